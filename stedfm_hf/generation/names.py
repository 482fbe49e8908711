"""Names of generation pipelines, checked before torch is imported."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs import UserError

INDEX = "model_index.json"


def check_pipeline_name(model: str | Path) -> None:
    """Refuse a folder that is not a pipeline, before slow imports.

    Args:
        model: Folder or Hub id.

    Raises:
        UserError: If there is no such folder, or it is another model.
    """
    folder = Path(model)
    if folder.is_dir() and not (folder / INDEX).is_file():
        raise UserError(
            f"model {model}: is not a generation pipeline ({INDEX} is missing); give a folder of "
            "`stedfm pretrain generation` or of `stedfm convert`"
        )
    if not folder.is_dir() and (str(model).startswith((".", "/", "~")) or "/" not in str(model)):
        raise UserError(f"model {model}: no such folder; check the path (a Hub id is OWNER/NAME)")
