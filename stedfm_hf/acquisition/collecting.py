"""Annotated images as a model sees them, and the patches that finders are fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stedfm_hf.acquisition.annotations import Annotated
from stedfm_hf.acquisition.examples import Examples, join, label_patches
from stedfm_hf.acquisition.score_maps import example_patches
from stedfm_hf.images import StedImage
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.inference.one_image import prepare_image
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.interpretability.fields import Tiles
from stedfm_hf.runs import UserError

MOST_PATCHES = 400_000
"""Largest number of patches that a finder is fitted to; of more, each image gives a random part."""


@dataclass(frozen=True, eq=False)
class AnnotatedField:
    """Annotated image as a model sees it.

    Attributes:
        pixels: Image (C, H, W), scaled.
        planes: Masks of the classes (L, H, W) bool.
        annotated: Pixels that were annotated (H, W) bool.
        patch_size: Size of a patch, in pixels.
    """

    pixels: np.ndarray
    planes: np.ndarray
    annotated: np.ndarray
    patch_size: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.annotated.shape[0], self.annotated.shape[1]

    @cached_property
    def labels(self) -> np.ndarray:
        """Class of each patch (rows, cols) int64, as in `Examples`."""
        return label_patches(self.planes, self.annotated, self.patch_size)[0]


def scale_field(encoder: Encoder, image: StedImage, scaling: Mapping[str, Any]) -> tuple[Fact, np.ndarray]:
    """Scale an image that is one input of the encoder.

    Args:
        encoder: Encoder.
        image: Image.
        scaling: Scaling of intensities, as in `finder.json`.

    Returns:
        Facts about the image, and pixels (C, H, W) float32.

    Raises:
        ValueError: If the image does not fit the model, or has several channels for a model with one.
    """
    prepared = prepare_image(encoder, image, scaling)
    if len(prepared) != 1:
        raise ValueError(f"has {len(prepared)} channels; choose one with --channel")
    return prepared[0]


def prepare_field(encoder: Encoder, each: Annotated, scaling: Mapping[str, Any]) -> AnnotatedField:
    """Scale an annotated image for a model, and resize its masks.

    Args:
        encoder: Encoder.
        each: Annotated image.
        scaling: Scaling of intensities, as in `finder.json`.

    Raises:
        UserError: If the image does not fit the model.
    """
    try:
        pixels = scale_field(encoder, each.image, scaling)[1]
    except ValueError as error:
        raise UserError(f"{each.name}: {error}") from error
    masks = _resized(np.concatenate([each.planes, each.annotated[None]]), (pixels.shape[1], pixels.shape[2]))
    return AnnotatedField(pixels, masks[:-1], masks[-1], encoder.model.config.patch_size)


def collect_examples(
    encoder: Encoder,
    tiles: Tiles,
    fields: Iterable[tuple[AnnotatedField, int]],
    classes: tuple[str, ...],
    *,
    rotations: bool,
    seed: int,
) -> Examples:
    """Embed annotated images; of many, a random part of the patches of each is kept.

    Args:
        encoder: Encoder.
        tiles: Tiles of the images.
        fields: Annotated images, each with the number of its source image.
        classes: Names of the classes.
        rotations: Whether images are also used rotated by 90, 180 and 270 degrees.
        seed: Random seed of the kept part.
    """
    rng, parts = np.random.default_rng(seed), list[Examples]()
    for each, number in fields:
        found = example_patches(
            encoder, tiles, each.pixels, each.planes, each.annotated, classes, number, rotations=rotations
        )
        parts.append(found)
        most = max(1, MOST_PATCHES // len(parts))
        if sum(map(len, parts)) > MOST_PATCHES:
            parts = [part.part(most, rng) for part in parts]
    return join(parts)


def one_plane(each: Annotated) -> np.ndarray:
    """Return the image (H, W) of an annotated image with one channel.

    Raises:
        UserError: If it has more channels.
    """
    if len(each.image.array) != 1:
        raise UserError(f"{each.name}: has {len(each.image.array)} channels; choose one with --channel")
    return np.asarray(each.image.array[0])


def _resized(planes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize masks (L, H, W) to the shape of the input of the model, by their nearest pixels."""
    rows, cols = (
        ((np.arange(length) + 0.5) * old / length).astype(np.int64)
        for length, old in zip(shape, planes.shape[1:], strict=True)
    )
    return planes[:, rows[:, None], cols]
