"""`stedfm study export`: the table of answers, for the analysis and for a private data set on the Hub."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.upload import Part, Uploaded, authorized_api, check_hub_id, upload
from stedfm_hf.runs.wording import counted
from stedfm_hf.studies.answers import write_answers
from stedfm_hf.studies.serving.store import Store, Transaction
from stedfm_hf.studies.settings import StudyExportSettings

_TABLE, _STUDY, _CARD = "answers.parquet", "study.json", "README.md"


@dataclass(frozen=True)
class StudyExportResult(Result):
    """Result of `study export`.

    Attributes:
        output: Table that was written.
        answers: Number of answers that were not undone.
        undone: Number of answers that were undone, which are rows of the table, too.
        participants: Number of participants who answered.
        url: URL of the data set on the Hub, or None.
    """

    output: Path
    answers: int
    undone: int
    participants: int
    url: str | None

    def summary(self) -> str:
        """Return one line, and the URL."""
        size = f"{counted(self.answers, 'answer')} of {counted(self.participants, 'participant')}"
        if self.undone:
            size = f"{counted(self.answers + self.undone, 'row')}: {size}, and {self.undone:,} undone"
        return f"{self.output}: {size}" + ("" if self.url is None else f"\npublished: {self.url} (private)")

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        return asdict(self) | {"output": str(self.output)}


@takes_settings(StudyExportSettings)
def export_answers(settings: StudyExportSettings) -> StudyExportResult:
    """Write the stored answers as a table for `study analyse`; the server may be running.

    Returns:
        Size of the table, and the URL of the data set.

    Raises:
        UserError: If the file of answers or the output cannot be used, there are no answers, or the Hub refuses the
            upload.

    Example:
        >>> export_answers("answers.sqlite", "answers.parquet")  # doctest: +SKIP
    """
    return export_store(settings)


def export_store(settings: StudyExportSettings, api: Any = None) -> StudyExportResult:
    """Export the answers of a store; see `export_answers`.

    Args:
        settings: Settings of `study export`.
        api: A `huggingface_hub.HfApi`; None creates one with the saved token.
    """
    store, output = Store(settings.answers), Path(settings.output)
    if output.exists() and not settings.overwrite:
        raise UserError(f"{output}: exists; choose another --output, or replace it with --overwrite")
    if settings.push_to_hub is not None:
        check_hub_id(settings.push_to_hub, "dataset")
        api = authorized_api(settings.push_to_hub) if api is None else api
    with store.reading() as transaction:
        rows = answer_rows(transaction)
    if not rows:
        raise UserError(f"{settings.answers}: holds no answers yet")
    write_answers(output, rows, store.facts()["study"])
    url = None if settings.push_to_hub is None else _push(store, rows, settings.push_to_hub, api).url
    undone = sum(each["undone"] for each in rows)
    return StudyExportResult(output, len(rows) - undone, undone, len({each["participant"] for each in rows}), url)


def answer_rows(transaction: Transaction) -> list[dict[str, Any]]:
    """Return the stored answers as rows of the table of answers.

    Args:
        transaction: Transaction to read from.
    """
    rows, orders = [], Counter[str]()
    for each in transaction.history():
        values = asdict(each)
        del values["attempt"]
        rows.append(values | {"order": orders[each.participant]})
        orders[each.participant] += 1
    return rows


def _push(store: Store, rows: list[dict[str, Any]], hub_id: str, api: Any) -> Uploaded:
    """Upload the table, the study and a card to a private data set repository, which keeps earlier versions."""
    title = " ".join(store.study().title.split())
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        study = store.facts()["study"]
        write_answers(folder / _TABLE, rows, study)
        (folder / _STUDY).write_text(study, encoding="utf-8")
        (folder / _CARD).write_text(
            f"# Answers of a study\n\n{title}\n\n`{_TABLE}` holds one row per answer, `{_STUDY}` the study file.\n",
            encoding="utf-8",
        )
        part = Part(folder, [_TABLE, _STUDY, _CARD], "Upload answers")
        return upload([part], hub_id, repo_type="dataset", private=True, overwrite=True, api=api)
