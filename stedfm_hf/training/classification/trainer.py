"""The trainer of classifiers: a head that is normalised by the training images (ours)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.training.classification.arguments import ClassificationArguments
from stedfm_hf.training.classification.augmentation import augment
from stedfm_hf.training.classification.network import set_head
from stedfm_hf.training.classification.objective import Objective
from stedfm_hf.training.classification.prediction import logits_of, vectors_of
from stedfm_hf.training.classification.scoring import score
from stedfm_hf.training.finetuning.trainer import FinetuningTrainer

NORMALISED_BY = 256
"""Training images, at most, whose vectors the head is normalised by at a check."""


@dataclass(frozen=True, eq=False)
class Checked:
    """Images that are looked at as a whole.

    Args:
        images: (C, H, W) each.
        labels: of each.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class ClassificationTrainer(FinetuningTrainer[StedFmForImageClassification]):
    """Trains a `StedFmForImageClassification`.

    The head begins with a batch normalisation. With a frozen encoder it is that of the training vectors from the first
    step on, so that the probe is a linear layer on standardised vectors. Else a step takes the statistics of its
    batch, and a check, like the saved model, those of the training images as the weights are then: no moving average,
    which would depend on how steps are shared and lag behind few of them.

    Args:
        objective: its loss.
        training: images the head is normalised by.
        validation: images of the checks.
        frozen: whether the encoder is.
        kwargs: of :class:`FinetuningTrainer`.
    """

    args: ClassificationArguments

    def __init__(
        self,
        *,
        objective: Objective,
        training: Sequence[np.ndarray],
        validation: Checked,
        frozen: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(eval_dataset=validation, **kwargs)
        self.objective, self.training, self.validation, self.frozen = objective, training, validation, frozen

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Augments on the device, and takes the loss of the objective."""
        self.network.batch_norm.train(not self.frozen)
        images = inputs["pixel_values"]
        if self.args.augment:
            images = augment(images, inputs["keys"])
        output = model(pixel_values=images)
        loss = self.objective.loss(output.logits, inputs["labels"])
        return (loss, output) if return_outputs else loss

    def before_first_step(self) -> None:
        """Standardises the vectors of a frozen encoder."""
        if self.frozen:
            self.normalise_head()

    def normalise_head(self) -> None:
        """Normalises the head by the vectors of training images under the weights of now."""
        count = min(len(self.training), NORMALISED_BY)
        chosen = np.random.default_rng(0).permutation(len(self.training))[:count]
        vectors = self._vectors([self.training[number] for number in chosen]).astype(np.float64)
        set_head(self.network, mean=vectors.mean(axis=0), variance=vectors.var(axis=0))

    def _vectors(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return vectors_of(
            self.network, images, batch_size=self.args.max_per_device_batch, shared=self.args.world_size > 1
        )

    def logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """What the network gives of whole images, (n, L); every process must come here."""
        return logits_of(self.network, self._vectors(images))

    def check(self) -> Mapping[str, Any]:
        """Figures of the validation images."""
        if not self.frozen:
            self.normalise_head()
        logits = self.logits(self.validation.images)
        labels = self.validation.labels
        loss = self.objective.loss(torch.from_numpy(logits), self.objective.targets(labels), weighted=False)
        found: dict[str, Any] = {"loss": float(loss)}
        if np.isfinite(logits).all():
            found |= score(self.objective.in_units(logits), labels, self.objective.task)
        return found
