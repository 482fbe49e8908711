"""The trainer of classifiers: a head that is normalised by the training images, and whole images in an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed

from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.training.classification.objective import Objective, score
from stedfm_hf.training.finetuning.data import LoadedSplit, change_intensities, random_rotations
from stedfm_hf.training.finetuning.settings import ClassificationSettings
from stedfm_hf.training.finetuning.trainer import FinetuneTrainer
from stedfm_hf.training.preparation import rotate_and_flip

LabelledSplit = LoadedSplit[LabelledImages, np.ndarray]
NORMALISED_BY = 256
"""Largest number of training images whose features the head is normalised by in an evaluation."""


class ClassificationTrainer(FinetuneTrainer[ClassificationSettings, StedFmForImageClassification]):
    """Train a `StedFmForImageClassification`.

    The head begins with a batch normalisation. With a frozen encoder it is that of the training features from the
    first step on, so that the probe is a linear layer on standardised features. Else a step takes the statistics of
    its batch, and an evaluation, like the saved model, those of the training images under the weights of then: no
    moving average, which would depend on how steps are shared and lag behind few of them.

    Args:
        objective: Loss of the task.
        training: Images that the head is normalised by.
        validation: Images of the evaluations.
        frozen: Whether the encoder is frozen.
        kwargs: Arguments of `FinetuneTrainer`.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        training: Sequence[np.ndarray],
        validation: LabelledSplit,
        frozen: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(eval_dataset=validation.items, **kwargs)
        self.objective, self.training, self.validation, self.frozen = objective, training, validation, frozen

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Augment on the device, and return the loss of the objective."""
        self.network.batch_norm.train(not self.frozen)
        images = inputs["pixel_values"]
        if self.settings.augment:
            images = augment(images, inputs["keys"])
        output = model(pixel_values=images)
        loss = self.objective.loss(output.logits, inputs["labels"])
        return (loss, output) if return_outputs else loss

    def before_first_step(self) -> None:
        """Standardise the features of a frozen encoder."""
        if self.frozen:
            self.normalise_head()

    def normalise_head(self) -> None:
        """Normalise the head by the features of training images under the weights of now."""
        count = min(len(self.training), NORMALISED_BY)
        chosen = np.random.default_rng(0).permutation(len(self.training))[:count]
        features = self._features([self.training[number] for number in chosen]).astype(np.float64)
        set_head(self.network, mean=features.mean(axis=0), variance=features.var(axis=0))

    def _features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return features_of(
            self.network, images, batch_size=self.settings.max_forward_batch_size, shared=self.args.world_size > 1
        )

    def logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits (n, L) of whole images; every process must come here."""
        return logits_of(self.network, self._features(images))

    def validate(self) -> Mapping[str, Any]:
        """Return metrics of the validation images."""
        if not self.frozen:
            self.normalise_head()
        logits, labels = self.logits(self.validation.items), self.validation.data.labels
        loss = self.objective.loss(torch.from_numpy(logits), self.objective.targets(labels), weighted=False)
        found: dict[str, Any] = {"loss": float(loss)}
        if np.isfinite(logits).all():
            found |= score(self.objective.in_units(logits), labels, self.objective.task)
        return found


def augment(images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Rotate and mirror every image in one of eight ways, and change its intensities a little.

    Source: The reference defines flips and rotations and applies none of them.

    Args:
        images: (B, C, S, S) in [0, 1].
        keys: Keys of the samples, (B, 2), on the same device.
    """
    return change_intensities(rotate_and_flip(images, random_rotations(keys)), keys)


def set_head(
    network: StedFmForImageClassification,
    *,
    mean: Any,
    variance: Any,
    weight: Any | None = None,
    bias: Any | None = None,
) -> None:
    """Give the head values that were found outside: the normalisation of the features, and a linear layer after it.

    Args:
        network: Network, changed in place.
        mean: Mean of every feature, (D,).
        variance: Variance of every feature, (D,).
        weight: Weights (L, D); None leaves the linear layer.
        bias: Biases (L,).
    """
    with torch.no_grad():
        statistics = dict(network.batch_norm.named_buffers())
        statistics["running_mean"].copy_(torch.as_tensor(mean))
        statistics["running_var"].copy_(torch.as_tensor(variance))
        if weight is not None:
            network.classifier.weight.copy_(torch.as_tensor(weight))
            network.classifier.bias.copy_(torch.as_tensor(bias))


def features_of(
    network: StedFmForImageClassification,
    images: Sequence[np.ndarray],
    *,
    batch_size: int = 32,
    shared: bool = False,
) -> np.ndarray:
    """Return the pooled features (n, D) float32 of images, as `stedfm classify` and the pipeline compute them.

    An image of any size is covered with tiles of the model's size; its features are the mean over all tiles.

    Args:
        network: Network without what wraps it; it is in evaluation mode afterwards.
        images: (C, H, W) float32 in [0, 1] each, of any size.
        batch_size: Number of tiles in one forward pass.
        shared: Whether each process of a group computes some of them, and all get all of them.
    """
    network.eval()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if shared else (0, 1)
    mine = range(rank, len(images), world)
    found = encode_images(
        network, (images[number] for number in mine), pooling=network.config.pooling, batch_size=batch_size
    )
    own = {number: vector for number, vector in zip(mine, found, strict=True)}
    if shared:
        parts: list[dict[int, np.ndarray]] = [{} for _ in range(world)]
        torch.distributed.all_gather_object(parts, own)
        own = {number: vector for part in parts for number, vector in part.items()}
    return np.stack([own[number] for number in range(len(images))])


@torch.inference_mode()
def logits_of(network: StedFmForImageClassification, features: np.ndarray) -> np.ndarray:
    """Return the logits (n, L) float32 of features."""
    network.eval()
    device = network.classifier.weight.device
    return network.classify(torch.from_numpy(features).to(device)).float().cpu().numpy()
