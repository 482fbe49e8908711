"""Explain why a model cannot be loaded: which file of its folder is damaged, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stedfm_hf.runs import UserError

CONFIG, PROCESSOR, INDEX = "config.json", "preprocessor_config.json", "model.safetensors.index.json"
_OTHER_MODELS = "give a folder: of `stedfm convert`, which converts the authors' archives, or of a training"


@contextmanager
def explained(model: str, location: str, advice: str) -> Iterator[None]:
    """Convert every error of loading a model to a `UserError` that names the damaged file.

    Args:
        model: Model as the user named it.
        location: Folder or Hub id.
        advice: What to do about it.

    Raises:
        UserError: If the block raises an error. Damaged files make the libraries raise errors of many types.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        folder = Path(location)
        if not folder.is_dir() and (missing := _reason_of_hub(location, error)) is not None:
            raise UserError(f"model {model}: {missing}, or {_OTHER_MODELS}") from error
        reason = damaged_file(folder) if folder.is_dir() else None
        raise UserError(f"model {model}: cannot be loaded ({reason or _text(error)}); {advice}") from error


def _reason_of_hub(hub_id: str, error: BaseException) -> str | None:
    """Return why a repository of the Hub cannot be read, and what to do; None for another error.

    transformers raises an `OSError` about huggingface.co for every endpoint and reason; its cause is the error of the
    Hub.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, GatedRepoError):
            return f"access to it is restricted; ask for access on its page ({constants.ENDPOINT}/{hub_id})"
        if isinstance(cause, RepositoryNotFoundError):
            return "the Hub has no such repository, or it is private; check the name, log in with `hf auth login`"
        if isinstance(cause, RevisionNotFoundError):
            return "the repository has no such revision; check its name"
        if isinstance(cause, LocalEntryNotFoundError):
            offline = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
            return f"the Hub cannot be reached{offline}, and the model is not in the cache; connect once"
        if isinstance(cause, EntryNotFoundError):
            return "the repository holds no model that transformers can load; check the name"
        cause = cause.__cause__ or cause.__context__
    return None


def refuse_missing(model: str, names: Iterable[str], advice: str) -> None:
    """Refuse a model whose weights are incomplete; transformers would initialise the missing ones at random.

    Args:
        model: Model as the user named it.
        names: Names of missing weights, or of weights whose shape is another than that of the configuration.
        advice: What to do about it.
    """
    if missing := sorted(names):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        shown = ", ".join(missing[:3]) + more
        raise UserError(f"model {model}: weights are missing or have other shapes ({shown}); {advice}")


def damaged_file(folder: Path) -> str | None:
    """Return the first file of a model folder that cannot be read, with the reason; None if all can be read.

    Args:
        folder: Folder of a model.
    """
    from safetensors import safe_open
    from transformers import AutoConfig, AutoImageProcessor

    weights = sorted(folder.glob("*.safetensors"))
    for name in (CONFIG, PROCESSOR, INDEX):
        path = folder / name
        try:
            if path.exists() and not isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
                return f"{path}: is not a JSON object"
            if name == CONFIG:
                AutoConfig.from_pretrained(folder)
            elif name == PROCESSOR:
                AutoImageProcessor.from_pretrained(folder)
            elif path.exists():
                shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
                if absent := [shard for shard in shards if not (folder / shard).is_file()]:
                    return f"{folder / absent[0]}: does not exist, but {name} lists it"
        except Exception as error:
            return f"{path}: {_text(error)}"
    for path in weights:
        try:
            with safe_open(path, framework="np") as file:
                file.keys()
        except Exception as error:
            return f"{path}: incomplete or damaged, {_text(error)}"
    return None if weights else f"{folder}: there is no model.safetensors"


def _text(error: Exception) -> str:
    """Return the message of an error in one line, with its type where the message alone says little."""
    text = " ".join(str(error).split())
    return (
        text if isinstance(error, (OSError, ValueError, RuntimeError)) and text else f"{type(error).__name__}: {text}"
    )
