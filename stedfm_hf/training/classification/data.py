"""Training data of a classifier: crops of labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.runs import UserError
from stedfm_hf.training.finetuning.data import CachedItems, Samples, choose_crop
from stedfm_hf.training.preparation import FOREGROUND, MIN_FOREGROUND, center_crop


def cache_images(data: LabelledImages) -> CachedItems[np.ndarray]:
    """Return the images (C, H, W) float32 in [0, 1], each read once.

    Args:
        data: Images to read.
    """
    return CachedItems(lambda number: np.asarray(data[number], np.float32), len(data), size=lambda image: image.nbytes)


def training_size(shapes: Sequence[tuple[int, int]], names: Sequence[str], *, image_size: int, patch_size: int) -> int:
    """Return the size of the training crops in pixels: that of the model, or the largest that fits the smallest image.

    Args:
        shapes: Height and width of each image in pixels.
        names: Ids of the images, for the error.
        image_size: Image size of the model in pixels.
        patch_size: Patch size of the model in pixels; the result is a multiple of it.

    Raises:
        UserError: An image is smaller than a patch.
    """
    shortest = [min(shape) for shape in shapes]
    smallest = int(np.argmin(shortest))
    size = min(image_size, shortest[smallest] // patch_size * patch_size)
    if size < patch_size:
        raise UserError(
            f"{names[smallest]}: {' x '.join(map(str, shapes[smallest]))} pixels are smaller than a patch "
            f"of the model ({patch_size} x {patch_size}); remove the image, or use a larger part of the field"
        )
    return size


class TrainingImages(Samples[np.ndarray]):
    """Endless training crops of labelled images, by index.

    Args:
        images: Images (C, H, W) in [0, 1].
        targets: Targets of the images, in the form of the loss.
        size: Size of the crops in pixels.
        seed: Random seed of the order and the augmentation.
        augment: Whether crops are random; otherwise they are central.
    """

    def __init__(
        self, images: Sequence[np.ndarray], targets: torch.Tensor, *, size: int, seed: int, augment: bool
    ) -> None:
        super().__init__(images, seed=seed)
        self.targets, self.size, self.augment = targets, size, augment

    def sample(self, row: int, item: np.ndarray, keys: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a crop of the image, and its target."""
        image = torch.from_numpy(item)
        cut = crop_with_foreground(image, self.size, keys) if self.augment else center_crop(image[None], self.size)[0]
        return {"pixel_values": cut.contiguous(), "labels": self.targets[row]}


def crop_with_foreground(image: torch.Tensor, size: int, keys: torch.Tensor) -> torch.Tensor:
    """Return a random crop of an image that contains foreground, if possible.

    Args:
        image: Image (C, H, W) in [0, 1], at least `size` pixels high and wide.
        size: Height and width of the crop in pixels.
        keys: Keys of the sample, (1, 2), see `sample_keys`.
    """
    lit = image.amax(dim=0) > FOREGROUND
    top, left = choose_crop(
        lit.shape, size, keys, min_fraction=MIN_FOREGROUND, count_in=lambda rectangle: int(lit[rectangle].sum())
    )
    return image[:, top : top + size, left : left + size]
