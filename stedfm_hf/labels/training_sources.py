"""The record of the images that a model was trained or selected on: hashed ids in the folder of the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.labels.sourced import SourcedImages
from stedfm_hf.runs import UserError, write_json
from stedfm_hf.weights.packaged import packaged_folder

TRAINING_SOURCES_FILE = "training_sources.json"
_PREFIX = "stedfm-hf training source: "
_ABOUT = (
    "Hashed ids of all source images, and of the files or pixels of their images, that this model was trained or "
    "selected on. Evaluations exclude these images."
)


@dataclass(frozen=True)
class TrainingSources:
    """Images that a model was trained or selected on.

    Attributes:
        ids: Hashed ids of source images and of the contents of images.
    """

    ids: frozenset[str]

    def __contains__(self, source: str) -> bool:
        """Return whether the record holds an id of a source image or of the content of an image."""
        return _hashed(source) in self.ids

    def used(self, images: SourcedImages[Any]) -> np.ndarray:
        """Return whether the model used each image, or another image of its source image, (n,) bool.

        Args:
            images: Images to look up.
        """
        pairs = zip(_ids(images), images.contents.tolist(), strict=True)
        return np.array([source in self or content in self for source, content in pairs], dtype=bool)


def write_training_sources(
    folder: Path, used: Iterable[SourcedImages[Any]], *, before: TrainingSources | None = None
) -> None:
    """Write the record of a model into its folder.

    Args:
        folder: Folder of the model.
        used: Images of the training and the validation split.
        before: Record of the model that the training started from.
    """
    write_training_ids(folder, source_ids(used), before=before)


def write_training_ids(folder: Path, ids: Iterable[str], *, before: TrainingSources | None = None) -> None:
    """Write the record of a model or a finder into its folder.

    Args:
        folder: Folder of the model.
        ids: Ids of source images and of the contents of images.
        before: Record of the model that the training started from.
    """
    hashed = {_hashed(identity) for identity in ids if identity} | (before.ids if before else frozenset())
    write_json(folder / TRAINING_SOURCES_FILE, {"format": 1, "about": _ABOUT, "ids": sorted(hashed)})


def source_ids(used: Iterable[SourcedImages[Any]]) -> set[str]:
    """Return the ids of the source images, and of the contents of images, where they are known.

    Args:
        used: Images, for example of several splits.
    """
    return {identity for images in used for identity in (*_ids(images), *images.contents.tolist()) if identity}


def read_training_sources(model: str | Path) -> TrainingSources | None:
    """Read the record of a model.

    Args:
        model: Folder or Hub id of the model.

    Returns:
        The record, or None if there is none: it is then unknown which images the model was trained on.

    Raises:
        UserError: The record is damaged.
    """
    from transformers.utils import cached_file

    try:
        file = cached_file(str(packaged_folder(str(model)) or model), TRAINING_SOURCES_FILE)
    except (OSError, ValueError):  # no such file, or the Hub cannot be asked
        return None
    try:
        return TrainingSources(frozenset(map(str, json.loads(Path(str(file)).read_text(encoding="utf-8"))["ids"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"model {model}: {TRAINING_SOURCES_FILE} is damaged ({error}); download or fine-tune the model again"
        ) from error


def _ids(images: SourcedImages[Any]) -> list[str]:
    """Return the source image ids; "" where the source is only the image id, which other data sets use too."""
    pairs = zip(images.sources.tolist(), images.image_ids.tolist(), strict=True)
    return ["" if source == image_id else source for source, image_id in pairs]


def _hashed(identity: str) -> str:
    return hashlib.sha256((_PREFIX + identity).encode("utf-8", "surrogatepass")).hexdigest()[:24]
