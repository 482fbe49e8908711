"""Shards of a data set as its index file lists them.

The index lists the shards of all splits with the number of rows of each row group. Opening a data set through it takes
a few requests, whereas the `datasets` library looks at every file, and footers are one request for each shard.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from stedfm_hf.data.repository.layout import INDEX_FILE
from stedfm_hf.data.repository.remote import RemoteFiles
from stedfm_hf.data.repository.shards import Shard

HUB = "hf://datasets/"
"""Protocol of data sets on the Hub."""


def indexed_shards(repo: str | os.PathLike[str], *, token: str | None = None) -> dict[str, tuple[Shard, ...]] | None:
    """Return the shards of each split that the index of a data set lists.

    Args:
        repo: Local folder, Hub id or URL of a folder.
        token: Token of the Hub for private data sets; None uses the saved one.

    Returns:
        Shards of each split, sorted by name, with their whole path or URL. None if there is no readable index, or if
        it lists other files than the folder `data` holds.
    """
    try:
        if Path(str(repo)).is_dir():
            root = str(Path(str(repo)).absolute())
            text = Path(root, INDEX_FILE).read_bytes()
            present = {entry.name for entry in os.scandir(Path(root, "data"))}
        else:
            root = _remote_root(str(repo), token)
            files = RemoteFiles(root, token)
            text, present = files.read(f"{root}/{INDEX_FILE}"), files.names(f"{root}/data")
        splits = {
            str(split): tuple(sorted((_shard(root, record) for record in records), key=lambda shard: shard.file))
            for split, records in json.loads(text)["splits"].items()
        }
    except Exception:  # errors of many libraries; the caller finds the reason in its own way
        return None
    listed = [shard.file for shards in splits.values() for shard in shards]
    expected = {f"{root}/data/{name}" for name in present if name.endswith(".parquet") and not name.startswith(".")}
    return splits if len(listed) == len(expected) and expected.issuperset(listed) else None


def _shard(root: str, record: dict[str, Any]) -> Shard:
    return Shard(f"{root}/{record['file']}", tuple(map(int, record["row_groups"])))


def _remote_root(repo: str, token: str | None) -> str:
    """Return the URL of a data set; on the Hub that of its current commit, which later commits do not change."""
    if "://" in repo and not repo.startswith(HUB):
        return repo.rstrip("/")
    from huggingface_hub import HfApi

    name, _, revision = repo.removeprefix(HUB).rstrip("/").partition("@")
    commit = HfApi(token=token).repo_info(name, repo_type="dataset", revision=revision or None).sha
    return f"{HUB}{name}@{commit}"
