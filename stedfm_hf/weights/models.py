"""Find the model of a command: a folder, a Hub id, a packaged encoder, or the official one. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.runs import UserError
from stedfm_hf.runs.files import read_json
from stedfm_hf.runs.manifest import Manifest
from stedfm_hf.runs.progress import print_note
from stedfm_hf.weights.packaged import PACKAGED, packaged_folder

HEADS = {
    "ForPreTraining": ("decoder for pixels", "stedfm pretrain"),
    "ForImageClassification": ("classifier", "stedfm finetune classification"),
    "ForSemanticSegmentation": ("decoder for masks", "stedfm finetune segmentation"),
}
"""Head and training command by the suffix of the class name."""
TRAININGS = ("pretrain", "finetune")
"""First words of the commands that train a model."""


@dataclass(frozen=True)
class ModelSource:
    """Location and name of a model.

    Attributes:
        given: Name given by the user.
        location: Folder or Hub id for `from_pretrained`.
        name: Name in tables and manifests: the Hub id or the name of the folder; for a packaged encoder also a note
            on its training data.
    """

    given: str
    location: str
    name: str

    @property
    def is_folder(self) -> bool:
        """Whether the model is a local folder."""
        return Path(self.location).is_dir()


def find_model(model: str | Path | ModelSource | None = None, *, head: str | None = None) -> ModelSource:
    """Find a model and check its configuration, without reading its weights.

    For a packaged encoder, a line on standard error names its training data.

    Args:
        model: Folder, Hub id or `demo`; None finds the official small model (`default_model`).
        head: Required head, a key of `HEADS`; None accepts any model.

    Raises:
        UserError: If the model does not exist, or does not have the head.

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
        _check_name(name, head)
        found = ModelSource(name, name, Path(name).resolve().name if Path(name).exists() else name)
    if found.is_folder:
        _check_folder(Path(found.location), name, head)
    return found


def _check_name(name: str, head: str | None) -> None:
    """Raise a UserError for a name that is neither a folder nor a Hub id, with a suggestion."""
    if name.lower() in PACKAGED and not Path(name).exists():
        raise UserError(f"model {name}: did you mean {name.lower()}?")
    if Path(name).is_file():
        raise UserError(f"model {name}: is a file; if it is a checkpoint: stedfm convert {name} FOLDER")
    # A name without an owner is not a Hub id: querying the Hub offline would take half a minute.
    if (name.startswith((".", "/", "~")) or "/" not in name) and not Path(name).exists():
        missing = f"model {name}: no such folder; check the path (a Hub id is OWNER/NAME)"
        if head is not None:
            raise UserError(f"{missing}, or train one: {HEADS[head][1]}")
        raise UserError(
            f"{missing}, make the folder with `stedfm convert MAE_SMALL_STED {name}`, or use the packaged encoder demo"
        )


def _check_folder(folder: Path, name: str, head: str | None) -> None:
    """Raise a UserError for a folder without a readable configuration, or without the required head."""
    if not (folder / "config.json").is_file():
        if (record := folder / "manifest.json").is_file():
            command = Manifest.load(record).command
            if command.split()[0] not in TRAININGS:
                raise UserError(f"model {name}: is not a model: `stedfm {command}` wrote the folder; give another one")
            raise UserError(f"model {name}: its training has not ended; run the same command again to resume it")
        raise UserError(f"model {name}: the folder has no config.json; give one written by `stedfm convert`, or demo")
    if head is not None:
        config = read_json(folder / "config.json")
        if not isinstance(config, dict):
            raise UserError(f"model {name}: {folder / 'config.json'}: is not a JSON object; restore it from a copy")
        architectures = config.get("architectures") or []
        check_head(name, list(map(str, architectures)) if isinstance(architectures, list) else [], head)


def check_head(name: str, architectures: list[str], head: str) -> None:
    """Refuse a model without the required head, which would be initialised at random."""
    if not any(each.endswith(head) for each in architectures):
        held = ", ".join(architectures) or "model of an unknown class"
        what, command = HEADS[head]
        raise UserError(f"model {name}: has no {what}, it is a {held}; train one: {command}")
