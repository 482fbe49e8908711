"""`stedfm publish`: check a folder and upload it to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stedfm_hf.cards.checks import card_problems
from stedfm_hf.cards.published import CARD, card_for_hub, parts_with_card
from stedfm_hf.hub.kinds import Kind, is_left_out, kind_of
from stedfm_hf.hub.publish_settings import PublishSettings
from stedfm_hf.runs import EXIT_DONE, EXIT_ITEMS_FAILED, UserError, atomic_path, counted, print_note
from stedfm_hf.runs.pickle_detection import is_pickle
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.upload import Part, authorized_api, check_hub_id, upload
from stedfm_hf.runs.upload_checks import Finding, check_files
from stedfm_hf.runs.wording import some_of, text_table


@dataclass(frozen=True)
class Published(Result):
    """Result of `publish`.

    Attributes:
        kind: Kind of the folder: model, pipeline, data set, export or Space.
        url: URL of the repository; None for a dry run.
        private: Whether only the owner and invited users can see it.
        files: Size in bytes of every file, by path.
        uploaded: Files that were uploaded; the repository had the others.
        removed: Files of an earlier version that were removed from the repository.
        findings: Problems, for a dry run; otherwise there are none.
        left_out: Files and folders of the folder that are not published, without hidden ones; only for a dry run.
        tag: Tag of the version, or None.
    """

    kind: str
    url: str | None
    private: bool
    files: dict[str, int]
    uploaded: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
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
            done = [
                f"{counted(len(names), 'file')} {what}"
                for names, what in ((self.uploaded, "uploaded"), (self.removed, "removed"))
                if names
            ]
            tagged = f", tag {self.tag}" if self.tag else ""
            changes = ", ".join(done) or "nothing has changed"
            return f"{self.url}: {self.kind}, {size}, {changes}, {visibility}{tagged}"
        table = text_table(["file", "bytes"], [(name, f"{count:,}") for name, count in self.files.items()])
        lines = [table, "", f"{self.kind}: {size}; nothing was uploaded"]
        if self.left_out:
            lines += [f"not published: {some_of(self.left_out)}"]
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
            "uploaded": list(self.uploaded),
            "removed": list(self.removed),
            "findings": list(self.findings),
            "left_out": list(self.left_out),
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
    api = None if settings.dry_run else authorized_api(hub_id)
    card = _card(folder, settings.licence)
    parts = kind.parts(folder, settings.manifest)
    findings = find_problems(kind, folder, parts, card, allow_paths=settings.allow_paths, quick=not settings.dry_run)
    published_card = card_for_hub(card, folder, hub_id)
    files = {name: (part.folder / name).stat().st_size for part in parts for name in part.names}
    files |= {CARD: len(published_card.encode())} if card else {}
    private = not settings.public
    if settings.dry_run:
        return Published(
            kind.name,
            None,
            private,
            files,
            findings=tuple(map(str, findings)),
            left_out=tuple(_left_out(folder, files)),
            tag=settings.tag,
        )
    if findings:
        for each in findings:
            print_note(str(each))
        raise UserError(f"{folder}: has {counted(len(findings), 'problem')} (listed above); nothing was uploaded")
    if card != (folder / CARD).read_text(encoding="utf-8"):
        with atomic_path(folder / CARD) as temporary:
            temporary.write_text(card, encoding="utf-8", newline="\n")
    with parts_with_card(parts, published_card) as copied:
        done = upload(
            copied,
            hub_id,
            repo_type=kind.repo_type,
            private=private,
            overwrite=settings.overwrite,
            outdated=kind.outdated,
            tag=settings.tag,
            api=api,
        )
    return Published(kind.name, done.url, done.private, files, done.files, done.removed, tag=settings.tag)


def _left_out(folder: Path, published: Collection[str]) -> list[str]:
    """Return the files that are not published, and the folders of a training, sorted; without hidden ones."""
    names: dict[str, None] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            names[f"{parts[0]}/" if len(parts) > 1 and is_left_out(parts) else "/".join(parts)] = None
    return [name for name in names if name not in published]


def _card(folder: Path, licence: str | None) -> str:
    """Return the card of a folder, with a licence if it has none; an empty text if there is no card."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if licence is None or not text.startswith("---\n") or "\nlicense:" in text.partition("\n---")[0]:
        return text
    return text.replace("---\n", f"---\nlicense: {licence}\n", 1)


def find_problems(
    kind: Kind, folder: Path, parts: list[Part], card: str, *, allow_paths: bool = False, quick: bool = False
) -> list[Finding]:
    """Return the reasons not to publish a folder.

    Args:
        kind: Kind of the folder.
        folder: Folder to publish.
        parts: Its files.
        card: Text of its card; empty if it has none.
        allow_paths: Whether texts may contain absolute paths.
        quick: Whether to leave out the slow check of the kind if there are other problems.
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
    return findings if quick and findings else findings + kind.check(folder, allow_paths)
