"""Compare an exported model with the model it was made from, on random images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.runs import UserError

Outputs = Mapping[str, torch.Tensor]
Network = Callable[[torch.Tensor], Outputs]
"""Function of images (B, C, H, W) that returns outputs by name."""

LARGEST_DIFFERENCE = 1e-3
"""Largest difference of a float32 export, relative to the largest value of the output (or to 1 if that is smaller)."""
SMALLEST_COSINE = 0.95
"""Smallest cosine similarity of an export of lower precision."""


@dataclass(frozen=True)
class Comparison:
    """Differences between the outputs of two models for the same images.

    Attributes:
        differences: Largest absolute difference of each output.
        relative: Largest difference, relative to the largest value of its output (or to 1 if that is smaller).
        cosine: Smallest cosine similarity of an output for one image.
        sizes: Heights and widths of the images, in pixels.
    """

    differences: dict[str, float]
    relative: float
    cosine: float
    sizes: tuple[tuple[int, int], ...]

    @property
    def largest(self) -> float:
        """Largest absolute difference of all outputs."""
        return max(self.differences.values())

    def check(self, precision: str) -> None:
        """Refuse an export that differs more than its precision explains.

        Raises:
            UserError: If a float32 export differs by more than rounding, or another one points elsewhere.
        """
        if precision == "float32" and not self.relative <= LARGEST_DIFFERENCE:
            raise UserError(
                f"the export differs from the model by {self.largest:.2g}, more than rounding explains; nothing was "
                "written. Report this as a bug, with the output of `stedfm doctor --json`"
            )
        if precision != "float32" and not self.cosine >= SMALLEST_COSINE:
            raise UserError(
                f"the {precision} export of this model is too different (cosine similarity {self.cosine:.3f}); "
                "nothing was written. Export it with --precision float32"
            )

    def describe(self) -> str:
        """Return the largest difference and the images it was found on."""
        name = max(self.differences, key=lambda each: self.differences[each])
        sizes = " and ".join(f"{height} x {width}" for height, width in self.sizes)
        return (
            f"largest difference from the PyTorch model: {self.largest:.2g} ({name}), smallest cosine similarity: "
            f"{self.cosine:.6f}; random images of {sizes} pixels"
        )

    def record(self) -> dict[str, object]:
        """Return plain data for the manifest."""
        return {
            "largest_differences": self.differences,
            "smallest_cosine": self.cosine,
            "compared_sizes": [list(size) for size in self.sizes],
        }


def random_images(config: StedFmConfig, sizes: Sequence[tuple[int, int]], batch: int = 2) -> list[torch.Tensor]:
    """Return the same random images (B, C, H, W) in [0, 1) every time, a batch per size.

    Args:
        config: Configuration of the model.
        sizes: Heights and widths, in pixels.
        batch: Number of images B.
    """
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(batch, config.num_channels, *size, generator=generator) for size in sizes]


def two_sizes(config: StedFmConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the crop size of a model, and a size that is not square and has odd numbers of patches."""
    patch_size = config.patch_size
    return (config.image_size, config.image_size), (5 * patch_size, 9 * patch_size)


@torch.no_grad()
def compare(reference: Network, exported: Network, images: Sequence[torch.Tensor]) -> Comparison:
    """Run both models on images, and compare the outputs that the exported one has.

    Args:
        reference: Model of this package.
        exported: Exported model.
        images: Batches (B, C, H, W).
    """
    differences: dict[str, list[float]] = {}
    relative, cosines = [], [1.0]
    for batch in images:
        expected, found = reference(batch), exported(batch)
        for name, values in found.items():
            wanted, values = expected[name].double(), values.double()
            if wanted.shape != values.shape:
                raise ValueError(f"{name}: the export returns {tuple(values.shape)}, not {tuple(wanted.shape)}")
            difference = float((values - wanted).abs().max())
            differences.setdefault(name, []).append(difference)
            relative.append(difference / max(1.0, float(wanted.abs().max())))
            if values[0].numel() > 1:
                cosines.append(float(functional.cosine_similarity(values.flatten(1), wanted.flatten(1)).min()))
    # NumPy's extremes, unlike Python's, are NaN if one of the values is.
    return Comparison(
        {name: float(np.max(each)) for name, each in differences.items()},
        float(np.max(relative)),
        float(np.min(cosines)),
        tuple((each.shape[2], each.shape[3]) for each in images),
    )
