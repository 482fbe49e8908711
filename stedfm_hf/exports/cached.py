"""Exports in the cache: a backend needs one, which is made when a model is first used with it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from stedfm_hf.exports.backends import LIBRARIES
from stedfm_hf.exports.kinds import Kind
from stedfm_hf.exports.runtime_models import FILES
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.modeling_stedfm import StedFmPreTrainedModel
from stedfm_hf.runs import UserError, print_note
from stedfm_hf.runs.download import cache_folder
from stedfm_hf.runs.files import sibling_folder

_FORMAT = 1
"""Raised when the exports of this package change, so that those in the cache are made again."""


def cached_export(
    kind: Kind,
    config: StedFmConfig,
    weights_sha256: str,
    *,
    backend: str,
    precision: str,
    name: str,
    load: Callable[[], StedFmPreTrainedModel],
) -> Path:
    """Return the folder of the export of a model in the cache, and make it if it is not there.

    Exports are kept by weights, configuration, precision and versions. A lock makes other processes wait for one that
    exports.

    Args:
        kind: Kind of the model.
        config: Configuration of the model.
        weights_sha256: SHA-256 of the weights.
        backend: `onnx` or `openvino`.
        precision: Precision of the export.
        name: Name of the model in messages.
        load: Function that returns the model in float32.

    Raises:
        UserError: If the model cannot be exported, or the cache cannot be written.
    """
    key = _key(kind, config, weights_sha256, backend, precision)
    folder = cache_folder() / "exports" / f"{backend}-{precision}-{key}"
    if (folder / FILES[backend]).is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not (folder / FILES[backend]).is_file():  # made by another process meanwhile
                print_note(f"{name}: exporting the model to {backend} ({precision}) once, into {folder}")
                _make(folder, load(), backend, precision, weights_sha256)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); set STEDFM_CACHE to another folder"
        ) from error
    return folder


def _make(folder: Path, model: StedFmPreTrainedModel, backend: str, precision: str, weights_sha256: str) -> None:
    from stedfm_hf.exports.onnx_format import export_onnx  # torch.onnx takes a second to import
    from stedfm_hf.exports.openvino_format import export_openvino

    with sibling_folder(folder) as new:
        write = export_onnx if backend == "onnx" else export_openvino
        write(model, new, weights_sha256=weights_sha256, precision=precision).check(precision)
        os.replace(new, folder)


def _key(kind: Kind, config: StedFmConfig, weights_sha256: str, backend: str, precision: str) -> str:
    """Return a short key of everything that an export depends on."""
    versions = {name: metadata.version(name) for name in ("torch", *LIBRARIES[backend])}
    facts: list[Any] = [_FORMAT, kind, config.to_diff_dict(), weights_sha256, backend, precision, versions]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
