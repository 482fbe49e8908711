"""`stedfm data push`: publish a data set on the Hugging Face Hub."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.data.repository.layout import CONFIG, INDEX_FILE, preview_name
from stedfm_hf.data.settings import PushSettings
from stedfm_hf.runs import Progress, UserError, read_json
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings

_CARD, _MANIFEST = "README.md", "manifest.json"
_DATA = ("data/*.parquet", "preview/*.parquet")
_LAST = (_CARD, INDEX_FILE, "figures/*.png", "figures/*.svg")
"""The card and the index are uploaded last, so that a data set with an index is complete."""
_HIDDEN = (".*", "*/.*")
_TEXT_COLUMNS = ("source", "series", "channel", "metadata")
# An absolute path, as a whole value or a value in JSON; home folders also inside a text.
_PATH = re.compile(r'(?:^|")(?:/[^"/\s]+/|~/|[A-Za-z]:[\\/]|\\\\)|(?<![\w.])/(?:home|Users)/\w|(?<!\w)[A-Za-z]:\\')


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
    return upload(settings)


def upload(settings: PushSettings, api: Any = None) -> Pushed:
    """Check a data set, create its repository if it does not exist, and upload it; see `push`.

    Args:
        settings: Settings of `push`.
        api: A `huggingface_hub.HfApi`; None creates one with the saved token.

    Returns:
        URL and size of the published data set.

    Raises:
        UserError: The folder is incomplete or contains absolute paths, or the Hub refuses the upload.
    """
    folder, private = Path(settings.dataset), not settings.public
    hub_id = settings.hub_id.removeprefix("hf://datasets/").rstrip("/")
    if hub_id.count("/") != 1:
        raise UserError(f"{hub_id!r} is not a Hub id; write OWNER/NAME, such as my-lab/{folder.name}")
    index = check_repository(folder, allow_paths=settings.allow_paths, manifest=settings.manifest)
    from huggingface_hub import HfApi, get_token

    if api is None and get_token() is None:
        raise UserError("not logged in to the Hub; run `hf auth login`, or set HF_TOKEN to a token with write access")
    api = api or HfApi()
    with _hub_errors(hub_id):
        outdated = _prepare(api, hub_id, _local_files(folder), private)
        common: dict[str, Any] = {"repo_id": hub_id, "repo_type": "dataset", "folder_path": folder}
        # A new list for each call, because the library changes its argument.
        api.upload_folder(
            **common, allow_patterns=list(_DATA), ignore_patterns=list(_HIDDEN), commit_message="Upload crops"
        )
        api.upload_folder(
            **common,
            allow_patterns=[*_LAST, *([_MANIFEST] if settings.manifest else [])],
            ignore_patterns=list(_HIDDEN),
            delete_patterns=[glob.escape(name) for name in outdated] or None,
            commit_message="Upload card and index",
        )
    crops = {split: sum(sum(shard["row_groups"]) for shard in shards) for split, shards in index.items()}
    url = f"{api.endpoint}/datasets/{hub_id}"
    return Pushed(url, crops, sum(map(len, index.values())), private)


def check_repository(folder: Path, *, allow_paths: bool = False, manifest: bool = False) -> dict[str, Any]:
    """Check that a data set is complete and contains no absolute paths.

    Args:
        folder: Folder of the data set.
        allow_paths: Whether sources and metadata may contain absolute paths.
        manifest: Whether the manifest is published, too.

    Returns:
        Shards of each split, from the index.

    Raises:
        UserError: A file is missing, truncated or unexpected, or a text contains an absolute path.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a data set, such as one that `stedfm data build` wrote")
    for name in (INDEX_FILE, _CARD, *([_MANIFEST] if manifest else [])):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: has no {name}; give a complete data set, such as one that `stedfm data build` wrote"
            )
    if (folder / ".staging").exists():
        raise UserError(f"{folder}: is not finished; run the command that writes it again to resume")
    index = _read_index(folder / INDEX_FILE)
    _check_card(folder / _CARD)
    for split in index:
        if not (folder / preview_name(split)).is_file():
            raise UserError(f"{folder / preview_name(split)}: is missing; build the data set again")
    shards = [shard for each in index.values() for shard in each]
    listed = {shard["file"] for shard in shards}
    for name in _local_files(folder):
        if name.startswith("data/") and name not in listed:
            raise UserError(f"{folder / name}: is not in {INDEX_FILE}; move it out of the folder")
    with Progress(len(shards), description="check", unit="shards") as progress:
        for shard in shards:
            _check_shard(folder / shard["file"], shard["row_groups"], allow_paths)
            progress.update()
    if not allow_paths:
        for name in (_CARD, *([_MANIFEST] if manifest else [])):
            _refuse_paths(folder / name, "it", (folder / name).read_text(encoding="utf-8").splitlines())
    return index


def _local_files(folder: Path) -> set[str]:
    """Return the relative paths of the files to upload, without the manifest and hidden files."""
    patterns = (*_DATA, *_LAST)
    names = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}
    return {name for name in names if not name.rpartition("/")[2].startswith(".")}


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
    """Check that a shard has the row groups of the index and, unless allowed, no absolute paths in its texts.

    `groups` is the number of rows of each row group.

    Raises:
        UserError: The shard is missing or damaged, has other row groups, or a text contains an absolute path.
    """
    try:
        with pq.ParquetFile(path) as file:
            rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            columns = [] if allow_paths else [name for name in _TEXT_COLUMNS if name in file.schema_arrow.names]
            table = file.read(columns=columns) if columns else None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: is missing or damaged ({_line(error)}); build the data set again") from error
    if rows != groups:
        raise UserError(
            f"{path}: holds {sum(rows)} crops, but {INDEX_FILE} lists {sum(groups)}; build the data set again"
        )
    for name, column in zip(table.schema.names, table.columns, strict=True) if table else ():
        _refuse_paths(path, f"column {name!r}", [text or "" for text in column.unique().to_pylist()])


def _refuse_paths(path: Path, where: str, texts: list[str]) -> None:
    """Raise `UserError` if a text of a file contains an absolute path; `where` names the texts in the message."""
    for text in texts:
        if found := _PATH.search(text):
            shown = text[max(0, found.start() - 10) : found.end() + 30]
            raise UserError(
                f"{path}: {where} contains an absolute path ({shown}); build the data set without it, or give "
                "--allow-paths to publish it"
            )


def _prepare(api: Any, hub_id: str, local: set[str], private: bool) -> list[str]:
    """Create the repository, or check that the existing one holds an earlier version of this data set.

    Returns:
        Shards and previews in the repository that the data set no longer has, sorted; [] for a new one.

    Raises:
        UserError: The visibility of the repository is not the requested one, or it holds something else.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = api.repo_info(hub_id, repo_type="dataset")
    except GatedRepoError:  # first, because it is a subclass of the next error, but the repository exists
        raise
    except RepositoryNotFoundError:
        api.create_repo(hub_id, repo_type="dataset", private=private)
        return []
    if bool(info.private) != private:
        is_now, change = ("private", "leave --public out") if info.private else ("public", "give --public")
        raise UserError(f"{hub_id}: exists and is {is_now}; {change}, or change it in its settings on the Hub")
    existing = {sibling.rfilename for sibling in info.siblings or ()}
    outdated = sorted(name for name in existing - local if re.fullmatch(r"(data|preview)/[^/]+\.parquet", name))
    if outdated and INDEX_FILE not in existing:
        raise UserError(f"{hub_id}: holds another data set ({outdated[0]}); choose another name")
    return outdated


@contextmanager
def _hub_errors(hub_id: str) -> Iterator[None]:
    """Convert errors of the Hub and the network to one line with a way out."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except UserError:
        raise
    except HFValidationError as error:
        raise UserError(f"{hub_id!r} is not a valid Hub id ({_line(error)}); write OWNER/NAME") from error
    except OfflineModeIsEnabled as error:
        raise UserError("the Hub cannot be used, because HF_HUB_OFFLINE is set; unset it") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            reason = "the Hub does not accept the token; run `hf auth login` again"
        elif status in (403, 404):
            reason = "the token has no write access; check the owner, or log in with a token with write access"
        elif status == 409:
            reason = "the name is used by a repository that you cannot see; choose another name"
        else:
            reason = f"the Hub returned {error.server_message or _line(error)}; run the same command again later"
        raise UserError(f"{hub_id}: {reason}") from error
    except ValueError as error:  # the Hub refuses the front matter of the card
        raise UserError(f"{hub_id}: {_line(error)}") from error
    except (httpx2.HTTPError, OSError, RuntimeError) as error:  # RuntimeError: from uploads in the background
        raise UserError(
            f"{hub_id}: the upload stopped ({_line(error)}); run the same command again to resume"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
