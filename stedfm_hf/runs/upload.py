"""Upload files to a repository of the Hugging Face Hub: the one function behind every command that publishes."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import sha256_file
from stedfm_hf.runs.hub_errors import NO_WRITE_ACCESS, hub_errors
from stedfm_hf.runs.wording import some_of

RepoType = Literal["model", "dataset", "space"]
_URL = {"model": "", "dataset": "datasets/", "space": "spaces/"}
_MADE_BY_HUB = ".gitattributes"


@dataclass(frozen=True)
class Part:
    """Files that are uploaded together.

    Attributes:
        folder: Folder of the files.
        names: Paths of the files, relative to the folder.
        message: Message of the commit.
    """

    folder: Path
    names: Sequence[str]
    message: str


@dataclass(frozen=True)
class Uploaded:
    """Published repository.

    Attributes:
        url: URL of its page.
        private: Whether only the owner and invited users can see it.
        files: Paths of the files that were uploaded; the repository had the others.
        removed: Paths of the files that were removed.
        commit: Identifier of its newest commit.
    """

    url: str
    private: bool
    files: tuple[str, ...]
    removed: tuple[str, ...]
    commit: str


def upload(
    parts: Sequence[Part],
    hub_id: str,
    *,
    repo_type: RepoType = "model",
    private: bool = True,
    overwrite: bool = False,
    outdated: Callable[[str], bool] = lambda name: False,
    tag: str | None = None,
    api: Any = None,
) -> Uploaded:
    """Upload files in order of their parts; the last part makes the upload complete.

    Large files may take several commits. Files that the repository has are not sent again, so the same call resumes
    an interrupted upload, and makes no commit if nothing has changed. The tag is set last.

    Args:
        parts: Files in order; the card belongs to the last part.
        hub_id: Id of the repository, which is created if it does not exist.
        repo_type: Type of the repository.
        private: Visibility of a new repository; an existing one must have it.
        overwrite: Whether files of the repository with other content may be replaced or removed.
        outdated: Function that returns whether to remove a file of the repository that the parts do not have.
        tag: Name of a tag to set on the uploaded state.
        api: A `huggingface_hub.HfApi`; None creates one with the saved token (`authorized_api`).

    Raises:
        UserError: If the id is not valid, nobody is logged in, the visibility differs, files would be overwritten
            without `overwrite`, the tag exists, or the Hub or the network fails.
    """
    hub_id = check_hub_id(hub_id, repo_type)
    if api is None:
        api = authorized_api(hub_id)
    with hub_errors(hub_id):
        local = {name: part.folder / name for part in parts for name in part.names}
        stored = _open_repository(api, hub_id, repo_type, private)
        changed = [name for name, path in local.items() if not _is_same(path, stored.get(name))]
        removed = sorted(name for name in stored if name not in local and outdated(name))
        replaced = sorted([*removed, *(name for name in changed if name in stored)])
        if replaced and not overwrite:
            raise UserError(
                f"{hub_id}: has other content, which would be replaced ({some_of(replaced)}); choose another id, or "
                "give --overwrite"
            )
        commit = str(api.repo_info(hub_id, repo_type=repo_type).sha)
        if tag is not None:
            _check_tag(api, hub_id, repo_type, tag, commit if not (changed or removed) else None)
        new = set(changed)
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            wanted = [name for name in part.names if name in new]
            if not wanted and not (is_last and removed):
                continue
            commit = api.upload_folder(
                repo_id=hub_id,
                repo_type=repo_type,
                folder_path=part.folder,
                allow_patterns=[glob.escape(name) for name in wanted] or [_NOTHING],
                delete_patterns=[glob.escape(name) for name in removed] if is_last and removed else None,
                commit_message=part.message,
            ).oid
        if tag is not None and tag not in _tags(api, hub_id, repo_type):
            # Of the uploaded commit, because somebody else may have changed the branch since.
            api.create_tag(hub_id, tag=tag, revision=commit, repo_type=repo_type)
    return Uploaded(f"{api.endpoint}/{_URL[repo_type]}{hub_id}", private, tuple(changed), tuple(removed), commit)


_NOTHING = "no file has this name/"
"""Pattern of a commit that only removes files."""


def check_hub_id(hub_id: str, repo_type: RepoType = "model") -> str:
    """Return an id without its prefix `hf://`.

    Raises:
        UserError: If it is not OWNER/NAME.

    Example:
        >>> check_hub_id("hf://datasets/my-lab/my-crops", "dataset")
        'my-lab/my-crops'
    """
    short = hub_id.removeprefix("hf://").removeprefix(_URL[repo_type]).rstrip("/")
    if short.count("/") != 1 or not all(short.split("/")):
        raise UserError(
            f"{hub_id!r} is not a Hub id; write OWNER/NAME, such as my-lab/{short.split('/')[-1] or 'name'}"
        )
    return short


def authorized_api(hub_id: str) -> Any:
    """Return a `huggingface_hub.HfApi` whose token may write to the owner of a repository; call it before slow checks.

    Args:
        hub_id: Id of the repository, OWNER/NAME.

    Raises:
        UserError: If nobody is logged in, the Hub does not accept the token, the token can only read, the owner is
            neither the user nor one of the organisations of the user, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise UserError("not logged in to the Hub; run `hf auth login`, or set HF_TOKEN to a token with write access")
    api = HfApi()
    with hub_errors(hub_id):
        user = api.whoami()
    owners = {each["name"].lower() for each in (user, *user.get("orgs", ()))}
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if hub_id.partition("/")[0].lower() not in owners or role == "read":
        raise UserError(f"{hub_id}: {NO_WRITE_ACCESS}")
    return api


def _open_repository(api: Any, hub_id: str, repo_type: RepoType, private: bool) -> Mapping[str, Any]:
    """Create the repository if it does not exist, and return its files by path.

    Raises:
        UserError: If an existing repository has another visibility.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    try:
        info = api.repo_info(hub_id, repo_type=repo_type)
    except GatedRepoError:  # first, because it is a subclass of the next error, but the repository exists
        raise
    except RepositoryNotFoundError:
        sdk = {"space_sdk": "gradio"} if repo_type == "space" else {}
        api.create_repo(hub_id, repo_type=repo_type, private=private, **sdk)
        return {}
    if bool(info.private) != private:
        is_now, change = ("private", "leave --public out") if info.private else ("public", "give --public")
        raise UserError(f"{hub_id}: exists and is {is_now}; {change}, or change it in its settings on the Hub")
    found = api.list_repo_tree(hub_id, repo_type=repo_type, recursive=True)
    return {each.path: each for each in found if isinstance(each, RepoFile) and each.path != _MADE_BY_HUB}


def _is_same(path: Path, stored: Any) -> bool:
    """Return whether a file of the repository (None if there is none) has the content of a local file."""
    if stored is None or stored.size != path.stat().st_size:
        return False
    if stored.lfs is not None:
        return bool(stored.lfs.sha256 == sha256_file(path))
    content = path.read_bytes()
    # Git names a file by this checksum.
    return bool(stored.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


def _check_tag(api: Any, hub_id: str, repo_type: RepoType, tag: str, commit: str | None) -> None:
    """Refuse a tag that is on another commit; `commit` is None if the upload will make a new one."""
    existing = _tags(api, hub_id, repo_type)
    if tag in existing and existing[tag] != commit:
        raise UserError(f"{hub_id}: has the tag {tag} on an earlier version; choose another tag")


def _tags(api: Any, hub_id: str, repo_type: RepoType) -> dict[str, str]:
    return {each.name: each.target_commit for each in api.list_repo_refs(hub_id, repo_type=repo_type).tags}
