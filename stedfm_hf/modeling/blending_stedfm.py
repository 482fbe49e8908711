"""Fields larger than the model's crops: overlapping windows, blended such that no seam is left.

One rule for every size. A window has the side of the model's crops and overlaps its neighbours by two halos. The outer
half of a halo is only looked at: its values are thrown away, because a network sees nothing beyond its window. Where
the rest of two windows overlaps, their values are averaged with Gaussian weights that fall off from the middle of each
window. The weights of all windows sum to 1 at every pixel. At the border of the field windows end, and count, with it.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from transformers import PreTrainedModel

from .image_processing_stedfm import pad_to_multiple

SIGMA = 0.125
"""Standard deviation of the weights, in sides of a window."""

Rows = Callable[[int, int], np.ndarray]
"""Rows `top` to `bottom` of a field, (C, n, W) float in [0, 1]."""


def plan_windows(length: int, window: int, halo: int) -> list[int]:
    """Where windows begin along an axis of `length` pixels: the last is moved inward, so that it ends with the field.

    Example:
    ```python
    >>> plan_windows(600, 224, 32), plan_windows(100, 224, 32)
    ([0, 160, 320, 376], [0])

    ```
    """
    step = window - 2 * halo
    return [0] if length <= window else [*range(0, length - window, step), length - window]


def window_weights(length: int, window: int, halo: int) -> np.ndarray:
    """Weights of the windows of an axis, (windows, window) float32; at every pixel they sum to 1."""
    starts = plan_windows(length, window, halo)
    place = (np.arange(window) + 0.5) / window - 0.5
    weights = np.tile(np.exp(-0.5 * (place / SIGMA) ** 2), (len(starts), 1))
    weights[1:, : halo // 2] = 0
    weights[:-1, window - halo // 2 :] = 0
    total = np.zeros(max(length, window))
    for start, own in zip(starts, weights, strict=True):
        total[start : start + window] += own
    for start, own in zip(starts, weights, strict=True):
        own /= total[start : start + window]
    return weights.astype(np.float32)


def default_halo(window: int, patch_size: int) -> int:
    """An eighth of a window, in whole patches; of a window of few patches no more than a quarter.

    Example:
    ```python
    >>> default_halo(224, 16), default_halo(32, 16)
    (32, 8)

    ```
    """
    return min(patch_size * max(1, round(window / 8 / patch_size)), window // 4)


@torch.inference_mode()
def blend_windows(
    predict: Callable[[torch.Tensor], torch.Tensor],
    rows: Rows,
    shape: tuple[int, int],
    *,
    window: int,
    halo: int,
    multiple: int = 1,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, np.ndarray]]:
    """Maps of a field, from the top to the bottom, a band of rows at a time: memory depends on its width alone.

    Args:
        predict: (B, C, h, w) float32 on `device` to maps (B, L, h, w).
        rows: Gives the rows of the field.
        shape: (H, W) of the field; a side shorter than a window is one window.
        window: Side of a window.
        halo: Half of what windows overlap by; below half a window.
        multiple: A shorter side is mirrored up to a multiple of this, of the patch size.
        batch_size: Windows at a time.
        device: Where maps are computed and blended.

    Yields:
        First row of the band, and the band (L, n, W) float32.

    Raises:
        ValueError: Windows that overlap entirely, a field without pixels, or a batch without windows.
    """
    height, width = shape
    if not 0 <= 2 * halo < window:
        raise ValueError(f"a halo of {halo} pixels leaves nothing of windows of {window}; take less than half of them")
    if batch_size < 1:
        raise ValueError(f"a batch of {batch_size} windows is too small; the least is 1")
    if height < 1 or width < 1:
        raise ValueError(f"a field of {height} x {width} pixels has nothing to segment")
    sides = [min(window, -(-length // multiple) * multiple) for length in shape]
    tops, lefts = (plan_windows(length, side, halo) for length, side in zip(shape, sides, strict=True))
    down, across = (
        torch.from_numpy(window_weights(length, side, halo)).to(device)
        for length, side in zip(shape, sides, strict=True)
    )
    band: torch.Tensor | None = None
    for number, top in enumerate(tops):
        strip = pad_to_multiple(np.asarray(rows(top, min(top + sides[0], height)), np.float32), multiple)
        strip = strip if len(lefts) == 1 else strip[:, :, :width]
        for some in np.array_split(np.arange(len(lefts)), -(-len(lefts) // batch_size)):  # a small rest is slow
            batch = np.stack([strip[:, :, lefts[at] : lefts[at] + sides[1]] for at in some])
            maps = predict(torch.from_numpy(batch).to(device)).float()
            if band is None:
                band = maps.new_zeros(maps.shape[1], sides[0], max(width, sides[1]))
            for at, map in zip(some, maps, strict=True):
                weight = down[number][:, None] * across[at]
                band[:, :, lefts[at] : lefts[at] + sides[1]].add_(map * weight)
        assert band is not None
        done = (tops[number + 1] if number + 1 < len(tops) else height) - top
        yield top, band[:, :done, :width].cpu().numpy()
        if number + 1 < len(tops):
            # A new one: the old one is in the hands of the caller.
            unfinished, band = band[:, done:], torch.zeros_like(band)
            band[:, : unfinished.shape[1]] = unfinished


def segment_rows(
    model: PreTrainedModel,
    rows: Rows,
    shape: tuple[int, int],
    *,
    window: int | None = None,
    halo: int | None = None,
    batch_size: int = 8,
) -> Iterator[tuple[int, np.ndarray]]:
    """Probabilities of every class over a field, a band of rows at a time; see `blend_windows`.

    Args:
        model: A `StedFmForSemanticSegmentation`, on its device and in its dtype.
        rows: Gives the scaled rows of the field.
        shape: (H, W) of the field.
        window: Side of a window; None: the model's `image_size`.
        halo: Half of what windows overlap by; None: see `default_halo`.
        batch_size: Windows at a time.

    Raises:
        ValueError: A window that is no multiple of the patch size, or a halo that leaves nothing of it.
    """
    patch_size = model.config.patch_size
    side = model.config.image_size if window is None else window
    if side <= 0 or side % patch_size:
        raise ValueError(f"the side of a window must be a multiple of the patch size {patch_size}, got {side}")

    def predict(pixel_values: torch.Tensor) -> torch.Tensor:
        return model.probabilities(model(pixel_values.to(model.dtype)).logits.float())

    yield from blend_windows(
        predict,
        rows,
        shape,
        window=side,
        halo=default_halo(side, patch_size) if halo is None else halo,
        multiple=patch_size,
        batch_size=batch_size,
        device=model.device,
    )


def segment_image(
    model: PreTrainedModel,
    image: np.ndarray,
    *,
    window: int | None = None,
    halo: int | None = None,
    batch_size: int = 8,
) -> np.ndarray:
    """Probabilities of every class over an image of any size, (L, H, W) float32.

    Args:
        model: A `StedFmForSemanticSegmentation` in evaluation mode.
        image: (C, H, W) float32 in [0, 1], from `StedFmImageProcessor.prepare`.
        window: As for `segment_rows`.
        halo: As for `segment_rows`.
        batch_size: Windows at a time.

    Example:
    ```python
    >>> import numpy as np
    >>> from stedfm_hf import StedFmConfig, StedFmForSemanticSegmentation
    >>> model = StedFmForSemanticSegmentation(StedFmConfig(num_hidden_layers=4, num_labels=2)).eval()
    >>> segment_image(model, np.zeros((1, 300, 90), np.float32)).shape
    (2, 300, 90)

    ```
    """
    _, height, width = image.shape

    def rows(top: int, bottom: int) -> np.ndarray:
        return image[:, top:bottom]

    maps: np.ndarray | None = None
    for top, band in segment_rows(model, rows, (height, width), window=window, halo=halo, batch_size=batch_size):
        if maps is None:
            maps = np.empty((len(band), height, width), band.dtype)
        maps[:, top : top + band.shape[1]] = band
    assert maps is not None
    return maps


__all__ = ["blend_windows", "default_halo", "plan_windows", "segment_image", "segment_rows", "window_weights"]
