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
    """Return the images (C, H, W) float32 in [0, 1], read once."""
    return CachedItems(lambda number: np.asarray(data[number], np.float32), len(data), size=lambda image: image.nbytes)


def training_size(shapes: Sequence[tuple[int, int]], names: Sequence[str], *, image_size: int, patch_size: int) -> int:
    """Return the size of the squares that are trained on: that of the model, or what the smallest image allows.

    Args:
        shapes: (H, W) of each image.
        names: Ids of the images, for the error.
        image_size: Size of the images of the model.
        patch_size: Size of its patches; the result is a multiple of it.

    Raises:
        UserError: An image is smaller than a patch.
    """
    shortest = [min(shape) for shape in shapes]
    smallest = int(np.argmin(shortest))
    size = min(image_size, shortest[smallest] // patch_size * patch_size)
    if size < patch_size:
        raise UserError(
            f"{names[smallest]}: {' x '.join(map(str, shapes[smallest]))} pixels are less than a patch of "
            f"the model ({patch_size} x {patch_size}); leave it out, or take a larger piece of the image"
        )
    return size


class TrainingImages(Samples[np.ndarray]):
    """Samples of a training by their number, without end.

    Args:
        images: (C, H, W) each.
        targets: Targets of the images, as the loss takes them.
        size: Size of the squares that are fed.
        seed: Random seed of the order and the augmentation.
        augment: Whether crops are random; else they are of the middle.
    """

    def __init__(
        self, images: Sequence[np.ndarray], targets: torch.Tensor, *, size: int, seed: int, augment: bool
    ) -> None:
        super().__init__(images, seed=seed)
        self.targets, self.size, self.augment = targets, size, augment

    def sample(self, row: int, item: np.ndarray, keys: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a square of the image, and its target."""
        image = torch.from_numpy(item)
        cut = crop_with_foreground(image, self.size, keys) if self.augment else center_crop(image[None], self.size)[0]
        return {"pixel_values": cut.contiguous(), "labels": self.targets[row]}


def crop_with_foreground(image: torch.Tensor, size: int, keys: torch.Tensor) -> torch.Tensor:
    """Return a square of an image with foreground in it, where there is any.

    Args:
        image: (C, H, W) in [0, 1], no smaller than `size`.
        size: Rows and columns of the square.
        keys: Keys of the sample, (1, 2), see :func:`stedfm_hf.training.random_numbers.sample_keys`.
    """
    lit = image.amax(dim=0) > FOREGROUND
    top, left = choose_crop(lit.shape, size, keys, share=MIN_FOREGROUND, count_in=lambda place: int(lit[place].sum()))
    return image[:, top : top + size, left : left + size]
