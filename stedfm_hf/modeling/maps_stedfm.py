"""Segmentation maps of the image processor: targets of the loss, and class maps of the size of the images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

IGNORED = 255
"""Class index of pixels that the loss ignores: the default of `semantic_loss_ignore_index`."""


def resampled_size(size: tuple[int, int], factors: tuple[float, float]) -> tuple[int, int]:
    """Return the height and width after `resample`, in pixels."""
    return max(1, round(size[0] * factors[0])), max(1, round(size[1] * factors[1]))


def prepare_map(map: Any, size: tuple[int, int], padded: tuple[int, ...], settings: Mapping[str, Any]) -> np.ndarray:
    """Prepare a segmentation map for the loss.

    Args:
        map: Class indices (H, W).
        size: Height and width of the prepared image before padding.
        padded: Height and width of the prepared image.
        settings: Settings of the processor for this call.

    Returns:
        (H', W') int64 of the padded size, with 255 where the image was padded.
    """
    array = np.asarray(map.detach().cpu() if isinstance(map, torch.Tensor) else map)
    if array.ndim != 2 or array.dtype.kind not in "bui":
        raise ValueError(f"a segmentation map holds class indices (H, W), got {array.dtype} {array.shape}")
    if array.shape != size and settings["target_pixel_size_nm"] is None:
        raise ValueError(f"a segmentation map of {array.shape} pixels for an image of {size} pixels")
    # The nearest pixel, as for an image that was resampled; the same pixels otherwise.
    rows, cols = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
        for new, old in zip(size, array.shape, strict=True)
    )
    array = array[rows[:, None], cols].astype(np.int64)
    if settings["do_reduce_labels"]:
        array = np.where((array == 0) | (array == IGNORED), IGNORED, array - 1)
    return np.pad(
        array, [(0, whole - part) for whole, part in zip(padded, size, strict=True)], constant_values=IGNORED
    )


def most_probable_classes(
    logits: torch.Tensor, target_sizes: Any, factors: tuple[float, float] | None, patch_size: int
) -> list[torch.Tensor]:
    """Return the most probable class of every pixel, in maps of the size of the images.

    Args:
        logits: (B, L, H, W).
        target_sizes: Heights and widths of the B images, in pixels; None keeps the size of the logits.
        factors: Factors (y, x) by which the images were resampled before they were padded; None if they were not.
        patch_size: Number of pixels to a multiple of which the images were padded.

    Returns:
        B maps (H, W) int64. Padding is cut off; other differences in size are resampled.
    """
    if target_sizes is None:
        return list(logits.argmax(dim=1))
    if len(target_sizes) != len(logits):
        raise ValueError(f"{len(target_sizes)} target_sizes for {len(logits)} images; give one for each image")
    maps = []
    for each, (height, width) in zip(logits, target_sizes, strict=True):
        size = (int(height), int(width))
        inner = resampled_size(size, factors) if factors else size
        padded = tuple(-(-length // patch_size) * patch_size for length in inner)
        if tuple(each.shape[1:]) in (inner, padded):
            each = each[:, : inner[0], : inner[1]]
        if tuple(each.shape[1:]) != size:
            each = torch.nn.functional.interpolate(each[None].float(), size=size, mode="bilinear")[0]
        maps.append(each.argmax(dim=0))
    return maps


__all__ = ["IGNORED", "most_probable_classes", "prepare_map", "resampled_size"]
