"""Kinds of folders that can be published: their files, and what is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.cards.published import CARD
from stedfm_hf.hub.endpoint import ENDPOINT_FILES
from stedfm_hf.hub.loading_check import check_loading, check_pipeline_loading
from stedfm_hf.runs import UserError, read_json
from stedfm_hf.runs.upload import Part, RepoType
from stedfm_hf.runs.upload_checks import Finding

MANIFEST, PIPELINE_INDEX = "manifest.json", "model_index.json"
# Predictions in Parquet are left out: they name the images.
_SUFFIXES = {".safetensors", ".json", ".py", ".md", ".yaml", ".csv", ".png", ".svg"}
_EXPORT_SUFFIXES = _SUFFIXES | {".onnx", ".xml", ".bin", ".zip"}
_SPACE_SUFFIXES = _SUFFIXES | {".txt", ".tif", ".parquet", ".html", ".css"}
_LEFT_OUT = ("checkpoint-", "seed-", "runs", "__pycache__")
"""Folders of a training: checkpoints with the states of optimisers, other seeds, and events of TensorBoard."""


@dataclass(frozen=True)
class Kind:
    """Kind of a folder.

    Attributes:
        name: Name in messages.
        repo_type: Type of its repository.
        parts: Function that returns the files in the order of their upload; it takes the folder and whether the
            manifest is published.
        check: Function that returns problems of the folder that are specific to the kind; it takes the folder and
            whether texts may contain absolute paths.
        outdated: Function that returns whether to remove a file of the repository that the folder does not have.
    """

    name: str
    repo_type: RepoType
    parts: Callable[[Path, bool], list[Part]]
    check: Callable[[Path, bool], list[Finding]]
    outdated: Callable[[str], bool] = lambda name: False


def kind_of(folder: Path) -> Kind:
    """Return the kind of a folder.

    Raises:
        UserError: If it is not a folder, or not one of these kinds.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a model, a pipeline, a data set, an export or a Space")
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        # The folders of --format onnx and openvino have the configuration of the model, but no weights of PyTorch.
        own = isinstance(config, dict) and config.get("model_type") == "stedfm" and "auto_map" in config
        return _MODEL if own else _EXPORT
    if (folder / PIPELINE_INDEX).is_file():
        return _PIPELINE
    if (folder / "index.json").is_file() or (folder / "data").is_dir():
        return _dataset_kind()
    if (folder / CARD).is_file() and "\nsdk:" in (folder / CARD).read_text(encoding="utf-8"):
        return _SPACE
    if any(folder.glob("*.bioimageio.zip")):
        return _EXPORT
    raise UserError(
        f"{folder}: is not a model, a pipeline, a data set, an export or a Space (it has no config.json, "
        f"{PIPELINE_INDEX}, index.json or card with `sdk:`)"
    )


def _model_parts(folder: Path, manifest: bool) -> list[Part]:
    parts = _with_card_last(folder, _files(folder, _SUFFIXES, manifest), "model")
    known = {name for part in parts for name in part.names}
    endpoint = [file.name for file in ENDPOINT_FILES if file.name not in known]
    return [Part(ENDPOINT_FILES[0].parent, endpoint, "Upload endpoint"), *parts]


def _other_parts(suffixes: set[str], what: str) -> Callable[[Path, bool], list[Part]]:
    return lambda folder, manifest: _with_card_last(folder, _files(folder, suffixes, manifest), what)


def _with_card_last(folder: Path, names: list[str], what: str) -> list[Part]:
    """Return the files, and then the card: a repository with a card is complete."""
    files = [name for name in names if name != CARD]
    return [Part(folder, files, f"Upload {what}"), Part(folder, [CARD] * (CARD in names), "Upload card")]


def _files(folder: Path, suffixes: set[str], manifest: bool) -> list[str]:
    """Return the relative paths of the files with these suffixes, sorted, without hidden and left-out ones."""
    names = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or path.suffix.lower() not in suffixes or is_left_out(parts):
            continue
        if parts != (MANIFEST,) or manifest:
            names.append("/".join(parts))
    return names


def is_left_out(parts: tuple[str, ...]) -> bool:
    """Return whether a file is never published: a hidden one, or one of a training.

    Args:
        parts: Parts of its path, relative to the folder.
    """
    return any(part.startswith(".") for part in parts) or parts[0].startswith(_LEFT_OUT)


def _check_model(folder: Path, allow_paths: bool) -> list[Finding]:
    return check_loading(folder)


def _check_pipeline(folder: Path, allow_paths: bool) -> list[Finding]:
    return check_pipeline_loading(folder)


def _check_nothing(folder: Path, allow_paths: bool) -> list[Finding]:
    return []


def _check_space(folder: Path, allow_paths: bool) -> list[Finding]:
    return [] if (folder / "app.py").is_file() else [Finding("app.py", "does not exist; the Space cannot start")]


def _dataset_kind() -> Kind:
    """Return the kind of data sets, whose checks are those of `stedfm data push`."""
    # Imported here, because it imports pyarrow.
    from stedfm_hf.data.publishing.push import check_repository, dataset_parts, is_shard

    def check(folder: Path, allow_paths: bool) -> list[Finding]:
        try:
            check_repository(folder, allow_paths=allow_paths)
        except UserError as error:
            return [Finding(".", str(error))]
        return []

    return Kind(
        "data set", "dataset", lambda folder, manifest: dataset_parts(folder, manifest=manifest), check, is_shard
    )


_MODEL = Kind("model", "model", _model_parts, _check_model)
_PIPELINE = Kind("pipeline", "model", _other_parts(_SUFFIXES, "pipeline"), _check_pipeline)
_EXPORT = Kind("export", "model", _other_parts(_EXPORT_SUFFIXES, "export"), _check_nothing)
_SPACE = Kind("Space", "space", _other_parts(_SPACE_SUFFIXES, "Space"), _check_space)
