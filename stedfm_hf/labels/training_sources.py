"""Which images a fine-tuned model was trained or selected on: a record in its folder, of hashed ids only."""

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
    "Hashed ids of all source images (and of the files or pixels of their images) that this model was trained or "
    "selected on, so that evaluations can leave them out."
)


@dataclass(frozen=True)
class TrainingSources:
    """Images that a model was trained or selected on.

    Attributes:
        ids: Hashed ids of source images, and of the contents of images.
    """

    ids: frozenset[str]

    def __contains__(self, source: str) -> bool:
        """Whether an id of a source image or of the content of an image is among them."""
        return _hashed(source) in self.ids

    def used(self, images: SourcedImages[Any]) -> np.ndarray:
        """Return whether each image was used, (n,) bool: its content, or an image of its source image."""
        pairs = zip(_ids(images), images.contents.tolist(), strict=True)
        return np.array([source in self or content in self for source, content in pairs], dtype=bool)


def write_training_sources(
    folder: Path, used: Iterable[SourcedImages[Any]], *, before: TrainingSources | None = None
) -> None:
    """Write the record of a model into its folder."""
    ids = {identity for images in used for identity in (*_ids(images), *images.contents.tolist()) if identity}
    hashed = {_hashed(identity) for identity in ids} | (before.ids if before else frozenset())
    write_json(folder / TRAINING_SOURCES_FILE, {"format": 1, "about": _ABOUT, "ids": sorted(hashed)})


def read_training_sources(model: str | Path) -> TrainingSources | None:
    """Read the record of a model; None where there is none: it is unknown which images the model was trained on."""
    from transformers.utils import cached_file

    try:
        file = cached_file(str(packaged_folder(str(model)) or model), TRAINING_SOURCES_FILE)
    except (OSError, ValueError):  # no such file, or the Hub cannot be asked
        return None
    try:
        return TrainingSources(frozenset(map(str, json.loads(Path(str(file)).read_text(encoding="utf-8"))["ids"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"model {model}: {TRAINING_SOURCES_FILE} is damaged ({error}); get it again, or fine-tune again"
        ) from error


def _ids(images: SourcedImages[Any]) -> list[str]:
    """Ids of the source images; "" where it is only the place of the image, which another data set has, too."""
    pairs = zip(images.sources.tolist(), images.image_ids.tolist(), strict=True)
    return ["" if source == place else source for source, place in pairs]


def _hashed(identity: str) -> str:
    return hashlib.sha256((_PREFIX + identity).encode("utf-8", "surrogatepass")).hexdigest()[:24]
