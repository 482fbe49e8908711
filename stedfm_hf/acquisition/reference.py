"""Score maps and examples of the published code (`--protocol reference`).

Source: reference protocol, retrieval of structures from templates and from annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from skimage import measure
from skimage.feature import peak_local_max

from stedfm_hf.acquisition.examples import Examples, join
from stedfm_hf.acquisition.finders import LOWEST, QUANTILE, Finder, ForestFinder, TemplateFinder, unit
from stedfm_hf.acquisition.regions import Region
from stedfm_hf.acquisition.score_maps import ROTATIONS
from stedfm_hf.discovery.search.regions import Box
from stedfm_hf.images import StedImage
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.inference.preparation import Preparation
from stedfm_hf.interpretability.explainers import tile_tokens
from stedfm_hf.interpretability.fields import Tiles
from stedfm_hf.runs import UserError

EPSILON = 1e-6
"""Number that is added to the range of the intensities of an image."""
TEMPLATE_STRIDE, HARVEST_STRIDE, LABEL_STRIDE = 0.25, 0.5, 1.0
"""Distance of neighbouring windows as a fraction of a window: for scores of templates, for the patches of annotated
images, and for predicted classes."""
HARVESTED = 0.25
"""Fraction of a patch above which a class covers it."""
TEMPLATE_PART = 0.5
"""Coverage above which a patch belongs to a template, as a fraction of the largest coverage."""


class ReferencePreparation(Preparation):
    """Function that reads a source and scales each image from its minimum to its maximum."""

    def _scaled(self, image: StedImage) -> np.ndarray:
        """Return the scaled image (C, H, W) float32."""
        return np.stack([scale(plane) for plane in np.asarray(image.array)])


def scale(plane: np.ndarray) -> np.ndarray:
    """Scale an image (H, W) to (x - minimum) / (maximum - minimum + 1e-6), clipped to [0, 1]; float32.

    Example:
        >>> scale(np.array([[2, 4], [6, 2]])).round(3).tolist()
        [[0.0, 0.5], [1.0, 0.0]]
    """
    values = np.nan_to_num(plane.astype(np.float64))
    low = values.min()
    return np.clip((values - low) / (values.max() - low + EPSILON), 0, 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of the size of a crop that slide over an image, which is padded with zeros at the bottom and right.

    Attributes:
        encoder: Encoder with one channel.
        batch_size: Number of windows in one forward pass.
    """

    encoder: Encoder
    batch_size: int

    def __post_init__(self) -> None:
        if self.encoder.model.config.num_channels != 1:
            raise UserError(f"--protocol reference needs a model with one channel, and {self.encoder.name} has more")

    @property
    def size(self) -> int:
        """Size of a window, in pixels."""
        return int(self.encoder.model.config.image_size)

    @property
    def patch_size(self) -> int:
        """Size of a patch, in pixels."""
        return int(self.encoder.model.config.patch_size)

    def tokens(self, windows: np.ndarray) -> np.ndarray:
        """Embed windows (B, size, size); tokens (B, rows, cols, D) float32."""
        tiles = Tiles(self.patch_size, self.size, 0)
        batch = torch.from_numpy(np.ascontiguousarray(windows, np.float32))[:, None]
        return np.moveaxis(tile_tokens(self.encoder, tiles, batch).cpu().numpy(), 1, -1)

    def slide(self, plane: np.ndarray, stride: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield the first row and column of every window of an image (H, W), and its tokens (rows, cols, D)."""
        padded = np.pad(plane, [(0, self.size)] * 2)
        starts = [(y, x) for y in range(0, plane.shape[0], stride) for x in range(0, plane.shape[1], stride)]
        for first in range(0, len(starts), self.batch_size):
            some = starts[first : first + self.batch_size]
            windows = np.stack([padded[y : y + self.size, x : x + self.size] for y, x in some])
            yield from ((y, x, each) for (y, x), each in zip(some, self.tokens(windows), strict=True))

    def assemble(self, plane: np.ndarray, stride: int, values: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Average the values of the patches of all windows at every pixel.

        Args:
            plane: Image (H, W), scaled.
            stride: Distance of neighbouring windows, in pixels.
            values: Function that returns the values (n, L) of tokens (n, D).

        Returns:
            (L, H, W) float32.
        """
        height, width = plane.shape
        total: np.ndarray | None = None
        visits = np.zeros((height + self.size, width + self.size))
        for y, x, tokens in self.slide(plane, stride):
            found = values(tokens.reshape(-1, tokens.shape[-1])).reshape(*tokens.shape[:2], -1)
            pixels = np.moveaxis(found, -1, 0).repeat(self.patch_size, axis=1).repeat(self.patch_size, axis=2)
            if total is None:
                total = np.zeros((len(pixels), *visits.shape))
            window = (slice(y, y + self.size), slice(x, x + self.size))
            total[:, *window] += pixels
            visits[window] += 1
        assert total is not None
        return np.asarray(total[:, :height, :width] / visits[:height, :width], np.float32)


def reference_map(finder: Finder, windows: Windows, plane: np.ndarray, *, raised: bool = True) -> np.ndarray:
    """Return the published map of an image.

    Templates: the largest cosine similarity of every token to a template, averaged over windows that overlap by three
    quarters; below its 0.95 quantile, the map is raised to it. Forest: the predicted class of every token, from 1.

    Args:
        finder: Finder that was fitted with the reference protocol.
        windows: Windows of the encoder.
        plane: Image (H, W), scaled by `scale`.
        raised: Whether the map of templates is raised to its quantile.

    Returns:
        (L, H, W) float32 for templates, (1, H, W) for a forest.
    """
    if isinstance(finder, ForestFinder):
        stride = round(windows.size * LABEL_STRIDE)
        return windows.assemble(plane, stride, lambda tokens: finder.predict(tokens)[:, None])
    values = windows.assemble(plane, round(windows.size * TEMPLATE_STRIDE), finder.scores)
    if not raised:
        return values
    return np.maximum(values, np.quantile(values, QUANTILE, axis=(1, 2), keepdims=True).astype(np.float32))


def reference_regions(values: np.ndarray, size: int, count: int) -> list[Region]:
    """Return crops around the highest peaks of a map, as the published code proposes them.

    Peaks are at least half a crop apart, and a crop away from the border.

    Args:
        values: Map (H, W).
        size: Size of a crop, in pixels.
        count: Largest number of crops.
    """
    if min(values.shape) <= 2 * size:
        return []  # no pixel is a crop away from the border
    peaks = peak_local_max(values, min_distance=max(1, size // 2), num_peaks=count, exclude_border=size)
    return [
        Region(float(values[y, x]), Box(float(y - size // 2), float(x - size // 2), size, size), (float(y), float(x)))
        for y, x in peaks
    ]


def reference_examples(
    method: str,
    windows: Windows,
    images: Iterable[tuple[np.ndarray, np.ndarray, int]],
    classes: tuple[str, ...],
    *,
    rotations: bool = True,
) -> Examples:
    """Embed annotated images as the published code does.

    Args:
        method: `templates` or `forest`.
        windows: Windows of the encoder.
        images: Image (H, W), scaled by `scale`, masks of the classes (L, H, W) bool, and number of the source image.
        classes: Names of the L classes.
        rotations: Whether templates are also made of the images rotated by 90, 180 and 270 degrees.

    Returns:
        One token for each template, or the harvested patches.
    """
    find = reference_templates if method == "templates" else harvest
    parts = []
    for plane, planes, source in images:
        for number in range(ROTATIONS if rotations and method == "templates" else 1):
            rotated, masks = np.rot90(plane, number), np.rot90(planes, number, axes=(1, 2))
            for label, mask in enumerate(masks, 1):
                tokens = find(windows, rotated, mask)
                count = len(tokens)
                labels, objects = np.full(count, label), np.arange(1, count + 1)
                parts.append(Examples(classes, tokens, labels, objects, np.full(count, source)))
    return join(parts)


def fit_reference(method: str, examples: Examples, *, seed: int = 42) -> Finder:
    """Fit a finder as the published code does.

    Args:
        method: `templates` or `forest`.
        examples: Annotated patches of `reference_examples`.
        seed: Random seed of the forest.

    Raises:
        UserError: If a class has no object or patch.
    """
    if method != "templates":
        return ForestFinder.fit(examples, seed=seed, background=False)
    if missing := examples.missing():
        raise UserError(f"class {missing[0]}: has no object; annotate one, or leave it out with --classes")
    vectors, classes = unit(examples.tokens).astype(np.float32), examples.classes
    return TemplateFinder(classes, (LOWEST,) * len(classes), vectors, examples.labels)


def reference_templates(windows: Windows, plane: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Make the templates of a mask: one of each connected component, or one of an image of the size of a window.

    The crop around the centroid of a component is padded with zeros. Its template is the mean of the tokens in whose
    patch the mean of the numbers of the components is above half of the largest one.

    Args:
        windows: Windows of the encoder.
        plane: Image (H, W), scaled.
        mask: Mask (H, W) bool.

    Returns:
        (n, D) float32; none for an empty mask.
    """
    size, half = windows.size, windows.size // 2
    numbers = measure.label(mask)
    if not numbers.any():
        return np.empty((0, windows.encoder.model.config.hidden_size), np.float32)
    if plane.shape == (size, size):
        crops = [(plane, mask.astype(np.int64))]
    else:
        padded, padded_numbers = np.pad(plane, half), np.pad(numbers, half)
        centres = [tuple(map(int, each.centroid)) for each in measure.regionprops(numbers)]
        crops = [(padded[y : y + size, x : x + size], padded_numbers[y : y + size, x : x + size]) for y, x in centres]
    found = []
    for crop, objects in crops:
        covered = measure.block_reduce(objects, (windows.patch_size,) * 2, np.mean)
        found.append(windows.tokens(crop[None])[0][covered > TEMPLATE_PART * covered.max()].mean(axis=0))
    return np.stack(found).astype(np.float32)


def harvest(windows: Windows, plane: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Collect the tokens of the patches that a mask covers by more than a quarter, in overlapping windows.

    Args:
        windows: Windows of the encoder.
        plane: Image (H, W), scaled.
        mask: Mask (H, W) bool.

    Returns:
        (n, D) float32.
    """
    size, padded = windows.size, np.pad(mask, [(0, windows.size)] * 2)
    found = [np.empty((0, windows.encoder.model.config.hidden_size), np.float32)]
    for y, x, tokens in windows.slide(plane, round(size * HARVEST_STRIDE)):
        covered = measure.block_reduce(padded[y : y + size, x : x + size], (windows.patch_size,) * 2, np.mean)
        found.append(tokens[covered > HARVESTED])
    return np.concatenate(found)
