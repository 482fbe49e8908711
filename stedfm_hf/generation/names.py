"""Names of generation pipelines: folders and Hub ids, checked before torch is imported."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs import UserError
from stedfm_hf.runs.files import read_json
from stedfm_hf.weights.damage import explained
from stedfm_hf.weights.packaged import packaged_folder

INDEX = "model_index.json"
ADVICE = "give a folder of `stedfm pretrain generation` or of `stedfm convert`, or a Hub id of a pipeline"


def check_pipeline_name(model: str | Path) -> None:
    """Refuse a folder that is not a pipeline, before slow imports.

    Args:
        model: Folder, Hub id, or name of the packaged pipeline.

    Raises:
        UserError: If there is no such folder, or it is another model.
    """
    if packaged_folder(str(model)) is not None:
        return
    folder = Path(model)
    if folder.is_dir() and not (folder / INDEX).is_file():
        raise _not_a_pipeline(model)
    if not folder.is_dir() and not _is_hub_id(model):
        raise UserError(
            f"model {model}: no such folder; check the path (a Hub id is OWNER/NAME), or use the packaged demo"
        )


def is_pipeline(model: str | Path | None) -> bool:
    """Return whether a name is that of a generation pipeline; the Hub is asked about a Hub id.

    Args:
        model: Folder or Hub id of any model, `demo` (an encoder), or None.
    """
    if model is None or packaged_folder(str(model)) is not None:
        return False
    if Path(model).is_dir():
        return (Path(model) / INDEX).is_file()
    if not _is_hub_id(model):
        return False
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(str(model), INDEX)
    except Exception:  # loading the model reports an unknown repository, a missing login or a Hub that is not reached
        return False
    return True


def find_pipeline(model: str | Path) -> Path:
    """Return the folder of a pipeline; that of a Hub id is downloaded into the cache, without code and pickles.

    Args:
        model: Folder or Hub id.

    Raises:
        UserError: If it does not exist, is not a pipeline, or parts of it are missing.
    """
    check_pipeline_name(model)
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        with explained(str(model), str(model), ADVICE):
            try:
                hf_hub_download(str(model), INDEX)
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError as error:
                raise _not_a_pipeline(model) from error
            folder = Path(snapshot_download(str(model), allow_patterns=["*.json", "*.safetensors"]))
    index = read_json(folder / INDEX)
    if not isinstance(index, dict):
        raise UserError(f"model {model}: {INDEX} is not a JSON object; restore it from a copy")
    parts = [name for name, entry in index.items() if name[0] != "_" and _names_class(entry)]
    if missing := [name for name in parts if not (folder / name).is_dir()]:
        raise UserError(f"model {model}: {folder / missing[0]}: does not exist; restore it from a copy")
    return folder


def _names_class(entry: object) -> bool:
    """Return whether an entry of the index names a class: a module and a name."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(each, str) for each in entry)


def _is_hub_id(model: str | Path) -> bool:
    return not str(model).startswith((".", "/", "~")) and "/" in str(model)


def _not_a_pipeline(model: str | Path) -> UserError:
    return UserError(f"model {model}: is not a generation pipeline ({INDEX} is missing); {ADVICE}")
