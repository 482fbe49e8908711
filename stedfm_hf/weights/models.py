"""Which model a command uses: a folder, a Hub id, a packaged encoder, or the official one; found without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.runs import UserError
from stedfm_hf.runs.files import read_json
from stedfm_hf.runs.progress import print_note
from stedfm_hf.weights.packaged import PACKAGED, packaged_folder

HEADS = {
    "ForImageClassification": ("classifier", "stedfm finetune classification"),
    "ForSemanticSegmentation": ("decoder for masks", "stedfm finetune segmentation"),
}
"""End of the name of a class: what such a model has, and the command that trains one."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model is.

    Attributes:
        given: Name that was asked for.
        place: Folder or Hub id, as `from_pretrained` takes it.
        name: Name in tables and manifests: the Hub id, or the name of the folder; of a packaged encoder also what it
            was trained on.
    """

    given: str
    place: str
    name: str

    @property
    def is_folder(self) -> bool:
        """Whether it is on this machine."""
        return Path(self.place).is_dir()


def find_model(model: str | Path | ModelSource | None = None, *, head: str | None = None) -> ModelSource:
    """Find a model, and check what can be checked without opening its weights.

    Of a packaged encoder, a line on standard error says what it was trained on.

    Args:
        model: Folder, Hub id or `demo`; None finds the official small model (`default_model`).
        head: Head that is needed, of `HEADS`; None takes any model.

    Raises:
        UserError: There is no such model, or it has no such head.

    Example:
        >>> find_model("demo").name
        'demo (trained on simulated images only: for trying things out, not for results)'
    """
    if isinstance(model, ModelSource):
        return model
    if model is None:
        from stedfm_hf.weights.default_model import default_model

        model = default_model()
    name = str(model)
    if (packaged := packaged_folder(name)) is not None:
        print_note(f"{name}: {PACKAGED[name]}")
        found = ModelSource(name, str(packaged), f"{name} ({PACKAGED[name]})")
    else:
        _check_place(name)
        found = ModelSource(name, name, Path(name).resolve().name if Path(name).exists() else name)
    if found.is_folder:
        _check_folder(Path(found.place), name, head)
    return found


def _check_place(name: str) -> None:
    if name.lower() in PACKAGED and not Path(name).exists():
        raise UserError(f"model {name}: did you mean {name.lower()}?")
    if Path(name).is_file():
        raise UserError(f"model {name}: is a file; if it is a checkpoint: stedfm convert {name} FOLDER")
    # Without an owner it is not an id of the Hub: asking there, offline, would only take half a minute.
    if (name.startswith((".", "/", "~")) or "/" not in name) and not Path(name).exists():
        raise UserError(f"model {name}: no such folder; check the path (an id of the Hub is OWNER/NAME)")


def _check_folder(folder: Path, name: str, head: str | None) -> None:
    if not (folder / "config.json").is_file():
        if (folder / "manifest.json").is_file():
            raise UserError(f"model {name}: its training has not ended; run the same command again to resume it")
        raise UserError(f"model {name}: the folder has no config.json; give one written by `stedfm convert`, or demo")
    if head is not None:
        check_head(name, list(dict(read_json(folder / "config.json")).get("architectures") or []), head)


def check_head(name: str, architectures: list[str], head: str) -> None:
    """Refuse a model whose head would be initialised at random."""
    if not any(each.endswith(head) for each in architectures):
        held = ", ".join(architectures) or "model of an unknown class"
        what, command = HEADS[head]
        raise UserError(f"model {name}: has no {what}, it is a {held}; train one: {command}")
