"""Default model of commands without `--model`."""

from __future__ import annotations

from pathlib import Path

import httpx2
from filelock import FileLock
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from stedfm_hf.runs import UserError, print_note
from stedfm_hf.runs.download import cache_folder
from stedfm_hf.weights.convert import convert, is_converted
from stedfm_hf.weights.official import OFFICIAL_WEIGHTS

__all__ = ["HUB_ID", "OFFICIAL_NAME", "default_model"]

OFFICIAL_NAME = "MAE_SMALL_STED"
HUB_ID = OFFICIAL_WEIGHTS[OFFICIAL_NAME].hub_id
_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


def default_model() -> str:
    """Find the published small model, and download it if necessary.

    Local copies are used first, so that a command gives the same result with and without a network: the Hub repository
    in the cache, then official weights converted earlier. Otherwise the Hub is queried, and finally the archive of the
    authors is downloaded and converted into the cache once, which is reported on standard error.

    Raises:
        UserError: If none of them is available; the message lists the alternatives.
    """
    folder = cache_folder() / "models" / HUB_ID.rpartition("/")[2]
    if _is_cached():
        return HUB_ID
    if is_converted(folder):
        return str(folder)
    if _is_on_hub():
        return HUB_ID
    _convert_once(folder)
    return str(folder)


def _is_cached() -> bool:
    try:
        for name in _FILES:
            hf_hub_download(HUB_ID, name, local_files_only=True)
    except OSError:  # LocalEntryNotFoundError is one
        return False
    return True


def _is_on_hub() -> bool:
    try:
        # One request: downloading at once would retry for half a minute where there is no network.
        HfApi().model_info(HUB_ID, timeout=10)
    except (HfHubHTTPError, httpx2.HTTPError, OSError):
        return False  # not published, no network, or HF_HUB_OFFLINE
    return True


def _convert_once(folder: Path) -> None:
    """Download and convert the official archive into a folder of the cache, unless another process has done it.

    A lock makes other processes wait. A UserError says what to do if the download or the conversion fails.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if is_converted(folder):  # by another command that was faster
                return
            print_note(
                f"no model is named and {HUB_ID} is not on the Hub: converting the archive {OFFICIAL_NAME} once into "
                f"{folder}"
            )
            convert(OFFICIAL_NAME, folder)
    except (UserError, OSError) as error:
        raise UserError(
            f"no model is named, and neither {HUB_ID} nor the archive of the authors can be downloaded ({error}); "
            "give a folder or Hub id with --model, try the commands with --model demo (small, comes with the package, "
            "trained on simulated images only), or make a folder with: "
            f"stedfm convert {OFFICIAL_NAME} ./stedfm-vit-small"
        ) from error
