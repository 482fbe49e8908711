"""Foreground masks of an encoder that was not trained to segment: clusters of patch tokens, or attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from stedfm_hf.images import StedImage
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.inference.one_image import prepare_image
from stedfm_hf.interpretability.attention import attention_maps
from stedfm_hf.interpretability.patch_clusters import above_otsu, cluster_margins
from stedfm_hf.modeling.blending_stedfm import blend_tiles, default_tile_overlap
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.runs import UserError

METHODS = ("clusters", "attention")
"""Methods of `zero_shot_mask`."""
MASS = 0.6
"""Fraction of the attention in the mask of the reference protocol."""
TILE = 64
"""Largest height and width of an image whose attention is computed as a whole, in patches."""


def zero_shot_mask(
    encoder: Encoder, image: StedImage, *, method: str = "clusters", protocol: str = "default", batch_size: int = 8
) -> np.ndarray:
    """Find the foreground of an image by an encoder, without training and without labels.

    | method | foreground |
    |---|---|
    | `clusters` | patches in the brighter clusters of tokens (`cluster_margins`) |
    | `attention` | Otsu's threshold of the attention of the class token, mean over blocks and heads |
    | `attention`, protocol `reference` | smallest set of pixels with 60 % of the reference's attention map |

    Margins and attention are interpolated from patches to pixels before the threshold, so that structures smaller
    than a patch cannot be separated. The image is scaled and its patches are embedded as by `stedfm embed`. Attention
    is that of the whole image, or of overlapping tiles of 64 x 64 patches that are blended.

    Args:
        encoder: Encoder.
        image: Image of any size with the channels of the model.
        method: One of `METHODS`.
        protocol: `"default"` or `"reference"`; clusters are the same in both.
        batch_size: Number of tiles that are embedded in one forward pass.

    Returns:
        Mask (H, W) bool at the pixels of the image; empty for a constant image.

    Raises:
        UserError: If the method is unknown, or the image does not have the channels of the model.
        ValueError: If the image cannot be scaled.

    Source:
        `reference`: reference protocol, zero-shot segmentation.

    Example:
        >>> from stedfm_hf.inference import load_encoder
        >>> pixels = np.random.default_rng(0).poisson(2, (1, 50, 70))
        >>> pixels[:, 10:40, 20:50] += 50
        >>> image = StedImage(pixels, None, ("actin",), {}, "cell.tif", "image")
        >>> mask = zero_shot_mask(load_encoder("demo", device="cpu"), image)
        >>> mask.shape, bool(mask[25, 35]), bool(mask[2, 2])
        ((50, 70), True, False)
    """
    if method not in METHODS:
        raise UserError(f"zero-shot method {method!r} is unknown; choose {' or '.join(METHODS)}")
    prepared = prepare_image(encoder, image)
    if len(prepared) != 1:
        raise UserError(
            f"{Path(image.source).name}: has {len(prepared)} channels, but {encoder.name} needs 1. Select one"
        )
    ((fact, pixels),) = prepared
    shape = (fact["height"], fact["width"])
    if pixels.min() == pixels.max():
        return np.zeros(shape, bool)
    if method == "clusters":
        return _resized(_cluster_map(encoder, pixels, batch_size), shape) > 0
    attention = _resized(_attention_map(encoder, pixels, protocol), shape)
    return mass_mask(attention) if protocol == "reference" else above_otsu(attention)


def mass_mask(values: np.ndarray, fraction: float = MASS) -> np.ndarray:
    """Return the smallest set of pixels that holds a fraction of the sum of a map.

    Args:
        values: Map (H, W) of values of at least 0.
        fraction: Fraction of the sum, in (0, 1].

    Returns:
        Mask (H, W) bool of the pixels with the largest values; empty for a map of zeros.

    Example:
        >>> mass_mask(np.array([[5.0, 1.0], [3.0, 1.0]])).tolist()
        [[True, False], [True, False]]
    """
    flat = np.asarray(values, np.float64).ravel()
    mask = np.zeros(flat.size, bool)
    order = np.argsort(-flat, kind="stable")
    mass = np.cumsum(flat[order])
    if mass[-1] > 0:
        mask[order[: np.searchsorted(mass, fraction * mass[-1]) + 1]] = True
    return mask.reshape(values.shape)


def _cluster_map(encoder: Encoder, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the margins of the clusters at every pixel of a scaled image (C, h, w)."""
    size, (height, width) = encoder.model.config.patch_size, pixels.shape[1:]
    (tokens,) = encode_images(encoder.model, [pixels], pooling="patch", batch_size=batch_size)
    if not np.isfinite(tokens).all():
        raise ValueError("the tokens are not finite; use the precision float32")
    margins = cluster_margins(tokens, _patch_means(pixels.mean(axis=0), size))
    return _resized(margins, (margins.shape[0] * size, margins.shape[1] * size))[:height, :width]


def _patch_means(plane: np.ndarray, size: int) -> np.ndarray:
    """Return the mean of each patch of a plane (h, w); incomplete patches have the mean of their pixels."""
    rows, cols = (np.arange(0, length, size) for length in plane.shape)
    sums = np.add.reduceat(np.add.reduceat(plane.astype(np.float64), rows, axis=0), cols, axis=1)
    counts = np.outer(*(np.diff([*starts, length]) for starts, length in zip((rows, cols), plane.shape, strict=True)))
    return np.asarray(sums / counts)


def _attention_map(encoder: Encoder, pixels: np.ndarray, protocol: str) -> np.ndarray:
    """Return the attention of the class token at every pixel of a scaled image (C, h, w)."""
    patch_size = encoder.model.config.patch_size
    aggregate = "reference" if protocol == "reference" else "mean"

    def attend(tiles: torch.Tensor) -> torch.Tensor:
        maps = attention_maps(encoder.model, tiles, aggregate=aggregate)[:, None]
        return functional.interpolate(maps, size=tuple(tiles.shape[2:]), mode="bilinear")

    bands = blend_tiles(
        attend,
        lambda top, bottom: pixels[:, top:bottom],
        (pixels.shape[1], pixels.shape[2]),
        tile_size=TILE * patch_size,
        tile_overlap=default_tile_overlap(TILE * patch_size, patch_size),
        multiple=patch_size,
        batch_size=1,
    )
    return np.concatenate([band[0] for _, band in bands])


def _resized(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Interpolate values (h, w) to another size."""
    if values.shape == shape:
        return values
    resized = functional.interpolate(torch.from_numpy(values)[None, None], size=shape, mode="bilinear")
    return np.asarray(resized[0, 0].numpy())
