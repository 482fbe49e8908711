"""Table of answers: one row per answer, written by the server and by simulated raters, read by the analysis."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import atomic_path
from stedfm_hf.runs.wording import some_of
from stedfm_hf.studies.study import RANK, Study, parse_study

TRIAL, PRACTICE, ATTENTION = "trial", "practice", "attention"
KINDS = (TRIAL, PRACTICE, ATTENTION)
SCHEMA = pa.schema(
    [
        ("participant", pa.string()),  # random token, never a name
        ("trial", pa.int32()),  # number of the trial in the participant's plan, from 0
        ("order", pa.int32()),  # number of the answer, from 0; an undone answer and its replacement differ
        ("kind", pa.string()),  # trial, practice or attention
        ("stimulus", pa.string()),  # id of the stimulus; "" for comparisons of rank
        ("options", pa.list_(pa.string())),  # possible answers, from left to right as shown
        ("answer", pa.string()),  # one of the options
        ("response_s", pa.float64()),  # from the display of the trial to the answer
        ("confidence", pa.int8()),  # 1 to 5, or null
        ("undone", pa.bool_()),  # whether the participant took the answer back
        ("answered_at", pa.timestamp("us", tz="UTC")),  # null for simulated answers
    ],
)
"""Columns of the table of answers."""
_SERVED = b"stedfm_study"
"""Key of the study that was served, as JSON, in the metadata of the table."""


def answers_table(rows: Sequence[Mapping[str, Any]], served: str | None = None) -> pa.Table:
    """Return answers as a table for Parquet; see `write_answers`."""
    schema = SCHEMA if served is None else SCHEMA.with_metadata({_SERVED: served})
    return pa.Table.from_pylist(list(rows), schema=schema)


def write_answers(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], served: str | None = None) -> None:
    """Write answers as Parquet.

    Args:
        path: File to write.
        rows: One mapping per answer, with the columns of `SCHEMA`; `confidence` and `answered_at` may be missing.
        served: Study that was served, as JSON; None if the answers are not of a server.
    """
    with atomic_path(path) as temporary:
        pq.write_table(answers_table(rows, served), temporary, compression="zstd")


def changed_keys(path: str | os.PathLike[str], study: Study) -> list[str]:
    """Return the keys of a study file that differ from those of the study that was served.

    Args:
        path: Table of answers, as Parquet.
        study: Study of the study file.

    Returns:
        Names of the keys; empty if nothing changed, or if the table does not hold the study that was served.

    Raises:
        UserError: If the table holds a study that cannot be read.
    """
    text = (pq.read_schema(path).metadata or {}).get(_SERVED)
    if text is None:
        return []
    try:
        served = parse_study(json.loads(text))
    except ValueError as error:
        raise UserError(f"{path}: the study in its metadata cannot be read ({error}); export it again") from error
    names = [each.name for each in dataclasses.fields(Study)]
    return [name for name in names if getattr(served, name) != getattr(study, name)]


def read_answers(path: str | os.PathLike[str], study: Study) -> pd.DataFrame:
    """Read a table of answers and check that it belongs to a study.

    Args:
        path: Parquet file.
        study: The study.

    Returns:
        Answers with the columns of `SCHEMA`, sorted by participant and order; `options` holds tuples.

    Raises:
        UserError: If the file cannot be read, columns are missing, or answers are not of the study.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give the table of answers of the study")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: is not a Parquet file ({' '.join(str(error).split())}); export it again") from error
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise UserError(f"{path}: has no column {some_of(missing)}; export the answers again")
    try:
        frame = table.select(SCHEMA.names).cast(SCHEMA).to_pandas()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: a column has another type ({' '.join(str(error).split())})") from error
    try:
        return check_answers(frame, study)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return answers as a table without writing them; see `write_answers`.

    Args:
        rows: One mapping per answer.
    """
    frame = pd.DataFrame(list(rows), columns=SCHEMA.names)
    return frame.astype({"undone": bool, "participant": str})


def check_answers(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Refuse answers that are not of a study, and sort the others.

    Args:
        frame: Answers with the columns of `SCHEMA`.
        study: The study.

    Returns:
        Answers sorted by participant and order.

    Raises:
        UserError: If a value is missing or not allowed, or a trial was answered twice.
    """
    if frame.empty:
        raise UserError("holds no answers")
    needed = ["participant", "trial", "order", "kind", "stimulus", "options", "answer", "response_s", "undone"]
    if empty := [name for name in needed if frame[name].isna().any()]:
        raise UserError(f"column {empty[0]} has empty cells")
    frame = frame.assign(options=frame["options"].map(tuple), undone=frame["undone"].astype(bool))
    frame = frame.sort_values(["participant", "order"], kind="stable", ignore_index=True)
    known = set(study.by_id) | ({""} if study.type == RANK else set())
    ids = {each.id for each in study.stimuli}
    rows: Iterable[Any] = frame.itertuples()
    for row in rows:
        where = f"participant {row.participant}, trial {row.trial}"
        if row.kind not in KINDS:
            raise UserError(f"{where}: kind {row.kind!r} is unknown; it must be {', '.join(KINDS)}")
        if row.stimulus not in known:
            raise UserError(f"{where}: stimulus {row.stimulus} is not in the study file; use the file of this study")
        if row.answer not in row.options:
            raise UserError(f"{where}: answer {row.answer!r} was not an option ({', '.join(row.options)})")
        if row.kind == TRIAL:
            allowed = ids if study.type == RANK else set(study.answers)
            if not allowed.issuperset(row.options) or (study.type == RANK and len(set(row.options)) != 2):
                raise UserError(f"{where}: the options {', '.join(row.options)} are not of the study file")
    kept = frame[~frame["undone"]]
    if kept.duplicated(["participant", "trial"]).any():
        twice = kept[kept.duplicated(["participant", "trial"])].iloc[0]
        raise UserError(f"participant {twice['participant']} answered trial {twice['trial']} twice without undoing it")
    return frame
