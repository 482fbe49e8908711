"""What a classifier is fed: crops of labelled images (ours)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.training.classification.augmentation import crop_with_foreground, middle_of
from stedfm_hf.training.finetuning import feeding
from stedfm_hf.training.finetuning.feeding import Remembered, Samples

Side = feeding.Side[LabelledImages, np.ndarray]


def remember(data: LabelledImages) -> Remembered[np.ndarray]:
    """The images (C, H, W) float32 in [0, 1], read once."""
    return Remembered(lambda number: np.asarray(data[number], np.float32), len(data), size=lambda image: image.nbytes)


def read_side(data: LabelledImages, *, channels: int) -> Side:
    """Reads all images once; see :func:`stedfm_hf.training.finetuning.feeding.read_side`.

    Args:
        data: the images.
        channels: of the model.

    Raises:
        UserError: an image has other channels, or none of a class can be read.
    """
    return feeding.read_side(data, remember, channels=channels, channels_of=len)


class TrainingImages(Samples[np.ndarray]):
    """Samples of a training by their number, without end.

    Args:
        images: (C, H, W) each.
        targets: of every image, as the loss wants them.
        side: of the squares that are fed.
        seed: of the order and the augmentation.
        augment: whether crops are random; else they are of the middle.
    """

    def __init__(
        self, images: Sequence[np.ndarray], targets: torch.Tensor, *, side: int, seed: int, augment: bool
    ) -> None:
        super().__init__(images, seed=seed)
        self.targets, self.side, self.augment = targets, side, augment

    def sample(self, row: int, item: np.ndarray, keys: torch.Tensor) -> dict[str, torch.Tensor]:
        """A square of the image, and its target."""
        image = torch.from_numpy(item)
        cut = crop_with_foreground(image, self.side, keys) if self.augment else middle_of(image, self.side)
        return {"pixel_values": cut.contiguous(), "labels": self.targets[row]}
