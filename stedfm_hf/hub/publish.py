"""`stedfm publish`: check a folder and upload it to the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stedfm_hf.cards.checks import card_problems
from stedfm_hf.hub.kinds import CARD, Kind, is_left_out, kind_of
from stedfm_hf.hub.publish_settings import PublishSettings
from stedfm_hf.runs import EXIT_DONE, EXIT_ITEMS_FAILED, UserError, atomic_path, counted, print_note
from stedfm_hf.runs.pickle_detection import is_pickle
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.upload import Part, check_hub_id, check_login, upload
from stedfm_hf.runs.upload_checks import Finding, check_files
from stedfm_hf.runs.wording import text_table


@dataclass(frozen=True)
class Published(Result):
    """Result of `publish`.

    Attributes:
        kind: Kind of the folder: model, pipeline, data set, export or Space.
        url: URL of the repository; None for a dry run.
        private: Whether only the owner and invited users can see it.
        files: Size in bytes of every file, by path.
        changed: Files that were uploaded or removed.
        findings: Problems, for a dry run; otherwise there are none.
        tag: Tag of the version, or None.
    """

    kind: str
    url: str | None
    private: bool
    files: dict[str, int]
    changed: tuple[str, ...] = ()
    findings: tuple[str, ...] = field(default=())
    tag: str | None = None

    @property
    def exit_status(self) -> int:
        """1 for a dry run that found problems."""
        return EXIT_ITEMS_FAILED if self.findings else EXIT_DONE

    def summary(self) -> str:
        """Return the URL and what was uploaded, or the files and problems of a dry run."""
        size = f"{counted(len(self.files), 'file')}, {sum(self.files.values()) / 1e6:.1f} MB"
        if self.url is not None:
            visibility = "private" if self.private else "public"
            done = f"{len(self.changed)} uploaded or removed" if self.changed else "nothing has changed"
            tagged = f", tag {self.tag}" if self.tag else ""
            return f"{self.url}: {self.kind}, {size}, {done}, {visibility}{tagged}"
        table = text_table(["file", "bytes"], [(name, f"{count:,}") for name, count in self.files.items()])
        lines = [table, "", f"{self.kind}: {size}; nothing was uploaded"]
        if self.findings:
            lines += [f"{counted(len(self.findings), 'problem')} to solve before it can be published:"]
            lines += [f"  {each}" for each in self.findings]
        else:
            lines += ["no problems found"]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes."""
        return {
            "kind": self.kind,
            "url": self.url,
            "private": self.private,
            "files": self.files,
            "changed": list(self.changed),
            "findings": list(self.findings),
            "tag": self.tag,
        }


@takes_settings(PublishSettings)
def publish(settings: PublishSettings) -> Published:
    """Check a model, a pipeline, a data set, an export or a Space, and upload it to the Hub.

    A model is published with its weights, configuration, image processor, code and card, and with the handler of an
    Inference Endpoint. Checkpoints, events of TensorBoard and other files of a training stay on this computer.

    Returns:
        URL and files of the repository; for a dry run the files and the problems.

    Raises:
        UserError: The folder has problems, nobody is logged in, or the Hub refuses the upload.

    Example:
        >>> publish("my-classifier", "my-lab/my-classifier", tag="v1").url  # doctest: +SKIP
        'https://huggingface.co/my-lab/my-classifier'
    """
    folder, kind = settings.folder, kind_of(settings.folder)
    hub_id = check_hub_id(settings.hub_id, kind.repo_type)
    if not settings.dry_run:
        check_login()
    card = _card(folder, settings.licence)
    parts = kind.parts(folder, settings.manifest)
    findings = find_problems(kind, folder, parts, card, allow_paths=settings.allow_paths)
    files = {name: (part.folder / name).stat().st_size for part in parts for name in part.names}
    private = not settings.public
    if settings.dry_run:
        return Published(kind.name, None, private, files, findings=tuple(map(str, findings)), tag=settings.tag)
    if findings:
        for each in findings:
            print_note(str(each))
        raise UserError(f"{folder}: has {counted(len(findings), 'problem')} (listed above); nothing was uploaded")
    if card != (folder / CARD).read_text(encoding="utf-8"):
        with atomic_path(folder / CARD) as temporary:
            temporary.write_text(card, encoding="utf-8", newline="\n")
    uploaded = upload(
        parts,
        hub_id,
        repo_type=kind.repo_type,
        private=private,
        overwrite=settings.overwrite,
        outdated=kind.outdated,
        tag=settings.tag,
    )
    return Published(kind.name, uploaded.url, uploaded.private, files, uploaded.changed, tag=settings.tag)


def _card(folder: Path, licence: str | None) -> str:
    """Return the card of a folder, with a licence if it has none; an empty text if there is no card."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if licence is None or not text.startswith("---\n") or "\nlicense:" in text.partition("\n---")[0]:
        return text
    return text.replace("---\n", f"---\nlicense: {licence}\n", 1)


def find_problems(
    kind: Kind, folder: Path, parts: list[Part], card: str, *, allow_paths: bool = False
) -> list[Finding]:
    """Return the reasons not to publish a folder.

    Args:
        kind: Kind of the folder.
        folder: Folder to publish.
        parts: Its files.
        card: Text of its card; empty if it has none.
        allow_paths: Whether texts may contain absolute paths.
    """
    findings = [each for part in parts for each in check_files(part.folder, part.names, allow_paths=allow_paths)]
    known = {name for part in parts for name in part.names}
    for path in sorted(folder.rglob("*")):  # a pickle next to the published files is a mistake, too
        relative = path.relative_to(folder)
        if path.is_file() and relative.as_posix() not in known and not is_left_out(relative.parts) and is_pickle(path):
            findings.append(Finding(relative.as_posix(), "is a pickle; move it out of the folder"))
    if card:
        findings += [Finding(CARD, problem) for problem in card_problems(card, kind.repo_type)]
    else:
        findings.append(Finding(CARD, "does not exist; write a card"))
    return findings + kind.check(folder, allow_paths)
