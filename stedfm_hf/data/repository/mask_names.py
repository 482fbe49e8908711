"""Names of the numbers in masks, from the index of a data set."""

from __future__ import annotations

import os
from pathlib import Path

from stedfm_hf.data.repository.layout import INDEX_FILE
from stedfm_hf.runs import UserError, read_json


def read_mask_names(data: str | os.PathLike[str]) -> dict[int, str]:
    """Return the names of the numbers in the masks of a data set.

    Args:
        data: Folder of a data set, or its id on the Hub.

    Returns:
        Name of each number; {} if the data set has no names.
    """
    from huggingface_hub import hf_hub_download

    folder = Path(data)
    try:
        if folder.is_dir():
            index = next(each for each in (folder / INDEX_FILE, folder.parent / INDEX_FILE) if each.is_file())
        else:
            name, _, revision = os.fspath(data).partition("@")
            index = Path(hf_hub_download(name, INDEX_FILE, repo_type="dataset", revision=revision or None))
        return {int(number): str(name) for number, name in read_json(index)["mask_names"].items()}
    except (StopIteration, UserError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # no index, or one of another version
