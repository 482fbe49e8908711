"""The beginning of a data set's folder: new, gone on with, or finished already (ours)."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.data.assembly.staging import Staging
from stedfm_hf.runs import Manifest, UserError, manifest_path


def begin_output(output: Path, manifest: Manifest, *, overwrite: bool) -> bool:
    """Takes up what an earlier run left in a folder; nothing is written yet.

    Args:
        output: the folder.
        manifest: of this run; it gets the record of an earlier one that is finished.
        overwrite: whether an existing data set is made anew.

    Returns:
        Whether it is finished already.

    Raises:
        UserError: the folder holds something else, or was begun with other settings.
    """
    record = manifest_path(output, folder=True)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; name a folder")
    if not record.exists():
        if output.is_dir() and any(output.iterdir()):
            raise UserError(f"{output}: holds other files; name a new folder")
    elif overwrite:
        Staging(output).remove()
    else:
        manifest.resume_from(old := Manifest.load(record))
        if old.ended is not None:
            Staging(output).remove()  # a run may be killed just before it does
            manifest.items, manifest.ended, manifest.seconds = old.items, old.ended, old.seconds
            return True
        manifest.items.clear()  # the parts tell
    return False
