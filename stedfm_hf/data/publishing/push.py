"""`stedfm data push`: publish a data set on the Hugging Face Hub."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.cards.published import CARD, card_for_hub, parts_with_card
from stedfm_hf.data.repository.layout import CONFIG, INDEX_FILE, preview_name
from stedfm_hf.data.settings import PushSettings
from stedfm_hf.runs import Progress, UserError, read_json
from stedfm_hf.runs.hub_errors import one_line
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.secret_detection import secrets_in_text
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.upload import Part, authorized_api, check_hub_id, upload
from stedfm_hf.runs.upload_checks import check_files, find_path, is_outside, secret_problem

_MANIFEST = "manifest.json"
_DATA = ("data/*.parquet", "preview/*.parquet")
_LAST = (CARD, INDEX_FILE, "figures/*.png", "figures/*.svg")
"""The card and the index are uploaded last, so that a data set with an index is complete."""
_TEXT_COLUMNS = ("source", "series", "channel", "metadata")


@dataclass(frozen=True)
class Pushed(Result):
    """Published data set.

    Attributes:
        url: URL of its page.
        crops: Number of crops in each split.
        shards: Number of Parquet files with crops.
        private: Whether only the owner and invited users can see it.
    """

    url: str
    crops: dict[str, int]
    shards: int
    private: bool

    def summary(self) -> str:
        """Return the URL and the size."""
        visibility = "private" if self.private else "public"
        return f"{self.url}: {sum(self.crops.values()):,} crops in {self.shards} shards, {visibility}"

    def to_json(self) -> dict[str, Any]:
        """Return the attributes."""
        return asdict(self)


@takes_settings(PushSettings)
def push(settings: PushSettings) -> Pushed:
    """Upload a data set to the Hub.

    Shards and previews are uploaded first, in several commits if they are many. A last commit adds the card, the
    index and the figures, and removes shards of an earlier version. The same call resumes an interrupted upload.

    Returns:
        URL and size of the published data set.

    Raises:
        UserError: The folder is incomplete or contains absolute paths, or the Hub refuses the upload.

    Example:
        >>> push("my-crops", "my-lab/my-crops").url  # doctest: +SKIP
        'https://huggingface.co/datasets/my-lab/my-crops'
    """
    return upload_dataset(settings)


def upload_dataset(settings: PushSettings, api: Any = None) -> Pushed:
    """Check a data set, create its repository if it does not exist, and upload it; see `push`.

    Args:
        settings: Settings of `push`.
        api: A `huggingface_hub.HfApi`; None creates one with the saved token (`authorized_api`).

    Returns:
        URL and size of the published data set.

    Raises:
        UserError: The folder is incomplete or contains absolute paths, or the Hub refuses the upload.
    """
    folder = Path(settings.dataset)
    hub_id = check_hub_id(settings.hub_id, "dataset")
    _check_names(folder, settings.manifest)
    api = authorized_api(hub_id) if api is None else api  # before the checks of many shards, which are slow
    index = check_repository(folder, allow_paths=settings.allow_paths, manifest=settings.manifest)
    card = card_for_hub((folder / CARD).read_text(encoding="utf-8"), folder, hub_id)
    with parts_with_card(dataset_parts(folder, manifest=settings.manifest), card) as parts:
        uploaded = upload(
            parts,
            hub_id,
            repo_type="dataset",
            private=not settings.public,
            overwrite=settings.overwrite,
            outdated=is_shard,
            api=api,
        )
    crops = {split: sum(sum(shard["row_groups"]) for shard in shards) for split, shards in index.items()}
    return Pushed(uploaded.url, crops, sum(map(len, index.values())), uploaded.private)


def dataset_parts(folder: Path, manifest: bool = False) -> list[Part]:
    """Return the files of a data set in the order of their upload.

    Args:
        folder: Folder of the data set.
        manifest: Whether the manifest is published, too.
    """
    names = _local_files(folder)
    shards = [name for name in names if is_shard(name)]
    rest = [name for name in names if not is_shard(name)] + [_MANIFEST] * manifest
    return [Part(folder, shards, "Upload crops"), Part(folder, rest, "Upload card and index")]


def is_shard(name: str) -> bool:
    """Return whether a file of a data set holds crops; shards of an earlier version are removed from the Hub."""
    return re.fullmatch(r"(data|preview)/[^/]+\.parquet", name) is not None


def check_repository(folder: Path, *, allow_paths: bool = False, manifest: bool = False) -> dict[str, Any]:
    """Check that a data set is complete and contains no secrets, absolute paths and links to other folders.

    Args:
        folder: Folder of the data set.
        allow_paths: Whether sources and metadata may contain absolute paths.
        manifest: Whether the manifest is published, too.

    Returns:
        Shards of each split, from the index.

    Raises:
        UserError: A file is missing, truncated, unexpected or a link to another folder, or a text contains a secret
            or an absolute path.
    """
    _check_names(folder, manifest)
    index = _read_index(folder / INDEX_FILE)
    _check_card(folder / CARD)
    for split in index:
        if not (folder / preview_name(split)).is_file():
            raise UserError(f"{folder / preview_name(split)}: is missing; build the data set again")
    shards = [shard for each in index.values() for shard in each]
    listed = {shard["file"] for shard in shards}
    names = _local_files(folder) + [_MANIFEST] * manifest
    for name in names:
        if name.startswith("data/") and name not in listed:
            raise UserError(f"{folder / name}: is not in {INDEX_FILE}; move it out of the folder")
        if is_outside(folder, name):
            raise UserError(f"{folder / name}: is a link to a file outside of the folder; replace it by the file")
    with Progress(len(shards), description="check", unit="shards") as progress:
        for shard in shards:
            _check_shard(folder / shard["file"], shard["row_groups"], allow_paths)
            progress.update()
    # The texts of shards are checked above: they are compressed in the file.
    if findings := check_files(folder, [name for name in names if not is_shard(name)], allow_paths=allow_paths):
        raise UserError(f"{folder / findings[0].file}: {findings[0].problem}")
    return index


def _check_names(folder: Path, manifest: bool) -> None:
    """Raise `UserError` if the folder is not a finished data set, by the names of its files."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a data set, such as one that `stedfm data build` wrote")
    for name in (INDEX_FILE, CARD, *([_MANIFEST] if manifest else [])):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: has no {name}; give a complete data set, such as one that `stedfm data build` wrote"
            )
    if (folder / ".staging").exists():
        raise UserError(f"{folder}: is not finished; run the command that writes it again to resume")


def _local_files(folder: Path) -> list[str]:
    """Return the relative paths of the files to upload, sorted, without the manifest and hidden files."""
    patterns = (*_DATA, *_LAST)
    names = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}
    return sorted(name for name in names if not name.rpartition("/")[2].startswith("."))


def _read_index(path: Path) -> dict[str, Any]:
    """Read the shards of each split from the index; raise `UserError` if a shard has no name or no rows."""
    index = read_json(path)
    try:
        splits: dict[str, Any] = index["splits"]
        if not all(
            isinstance(shard["file"], str) and sum(shard["row_groups"]) for each in splits.values() for shard in each
        ):
            raise ValueError("a shard without a name or rows")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: damaged, or written by another version; build the data set again") from error
    return splits


def _check_card(path: Path) -> None:
    """Raise `UserError` if the front matter of the card cannot be read or has no configuration of crops."""
    from huggingface_hub import DatasetCard

    try:
        configs = DatasetCard(path.read_text(encoding="utf-8")).data.to_dict().get("configs") or []
        names = [config["config_name"] for config in configs]
    except Exception as error:  # the YAML library can raise many errors
        raise UserError(f"{path}: its front matter cannot be read; build the data set again") from error
    if CONFIG not in names:
        raise UserError(f"{path}: its front matter has no configuration {CONFIG!r}; build the data set again")


def _check_shard(path: Path, groups: list[int], allow_paths: bool) -> None:
    """Check that a shard has the row groups of the index, and no secrets and absolute paths in its texts.

    `groups` is the number of rows of each row group.

    Raises:
        UserError: The shard is missing or damaged, has other row groups, or a text contains a secret or, unless
            allowed, an absolute path.
    """
    try:
        with pq.ParquetFile(path) as file:
            rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            table = file.read(columns=[name for name in _TEXT_COLUMNS if name in file.schema_arrow.names])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: is missing or damaged ({one_line(error)}); build the data set again") from error
    if rows != groups:
        raise UserError(
            f"{path}: holds {sum(rows)} crops, but {INDEX_FILE} lists {sum(groups)}; build the data set again"
        )
    for name, column in zip(table.schema.names, table.columns, strict=True):
        _check_texts(path, name, [text or "" for text in column.unique().to_pylist()], allow_paths)


def _check_texts(path: Path, column: str, texts: list[str], allow_paths: bool) -> None:
    """Raise `UserError` if a text of a column contains a secret or, unless allowed, an absolute path."""
    if secrets := secrets_in_text("\n".join(texts)):
        raise UserError(f"{path}: column {column!r} {secret_problem(secrets[0])}")
    if not allow_paths and (shown := find_path(texts)):
        raise UserError(
            f"{path}: column {column!r} contains an absolute path ({shown}); build the data set without it, or give "
            "--allow-paths to publish it"
        )
