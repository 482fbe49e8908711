"""Trainer of classifiers, with a head that is normalised by the features of training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed

from stedfm_hf.evaluation.probe import DEFAULT_C, fit_layer
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
"""Largest number of training images for the normalisation of the head in an evaluation."""
PROBED = 10_000
"""Largest number of training images for the probe that the head starts from."""


class ClassificationTrainer(FinetuneTrainer[ClassificationSettings, StedFmForImageClassification]):
    """Trainer of `StedFmForImageClassification`.

    The head starts with a batch normalisation. With a frozen encoder, its statistics are those of the training
    features, so the probe is a linear layer on standardised features. Otherwise, a training step uses the statistics
    of its batch, and an evaluation those of training images with the current weights. There is no moving average,
    because it would depend on the number of processes.

    Args:
        objective: Loss of the task.
        training: Training images, for the normalisation and the initial weights of the head.
        validation: Images of the evaluations.
        frozen: Whether the encoder is frozen.
        kwargs: Other arguments of `FinetuneTrainer`.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        training: LabelledSplit,
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
        """Standardise the features of a frozen encoder, and start the head from a probe where the settings say so."""
        if self.settings.starts_from_probe:
            self.fit_head()
        if self.frozen:
            self.normalise_head()

    def normalise_head(self) -> None:
        """Set the normalisation of the head from the features of training images with the current weights."""
        features = self._training_features(NORMALISED_BY)[1]
        set_head(self.network, mean=features.mean(axis=0), variance=features.var(axis=0))

    def fit_head(self) -> None:
        """Set the head to a linear probe on standardised features of training images.

        Source:
            Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", 2022; the
            reference protocol starts from random weights.
        """
        numbers, features = self._training_features(PROBED)
        mean, variance = features.mean(axis=0), features.var(axis=0)
        data = self.training.data
        weight, bias = fit_layer(
            (features - mean) / np.sqrt(variance + self.network.batch_norm.eps),
            self.objective.targets(data.labels[numbers]).numpy(),
            task=data.task,
            classes=len(data.classes),
            C=DEFAULT_C,
            balanced=self.objective.weights is not None,
        )
        set_head(self.network, mean=mean, variance=variance, weight=weight, bias=bias)

    def _training_features(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers (n,) of at most `most` training images, and their features (n, D) float64."""
        items = self.training.items
        chosen = np.random.default_rng(0).permutation(len(items))[:most]
        return chosen, self._features([items[number] for number in chosen]).astype(np.float64)

    def _features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return features_of(
            self.network, images, batch_size=self.settings.max_forward_batch_size, shared=self.args.world_size > 1
        )

    def logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits (n, L) of whole images; every process must make this call.

        Args:
            images: Images (C, H, W) in [0, 1], of any size.
        """
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
    """Rotate and mirror every image, and change its intensities, at random.

    Args:
        images: Images (B, C, S, S) in [0, 1].
        keys: Keys of the samples, (B, 2), on the same device.

    Source:
        This package; the reference protocol does not augment.
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
    """Set the normalisation of the head and, if given, its linear layer.

    Args:
        network: Network, changed in place.
        mean: Mean of every feature, (D,).
        variance: Variance of every feature, (D,).
        weight: Weights of the linear layer (L, D); None keeps the layer.
        bias: Biases of the linear layer (L,).
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

    Images are covered with tiles of the image size of the model; the features are the mean over all tiles.

    Args:
        network: Network without wrappers; it is in evaluation mode afterwards.
        images: Images (C, H, W) float32 in [0, 1], of any size.
        batch_size: Number of tiles in one forward pass.
        shared: Whether the processes divide the images among themselves, and exchange the features.
    """
    network.eval()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if shared else (0, 1)
    mine = range(rank, len(images), world)
    found = encode_images(
        network, (images[number] for number in mine), pooling=network.config.pooling, batch_size=batch_size
    )
    features = dict(zip(mine, found, strict=True))
    if shared:
        parts: list[dict[int, np.ndarray]] = [{} for _ in range(world)]
        torch.distributed.all_gather_object(parts, features)
        features = {number: each for part in parts for number, each in part.items()}
    return np.stack([features[number] for number in range(len(images))])


@torch.inference_mode()
def logits_of(network: StedFmForImageClassification, features: np.ndarray) -> np.ndarray:
    """Return the logits (n, L) float32 of features.

    Args:
        network: Network; it is in evaluation mode afterwards.
        features: Features (n, D) float32.
    """
    network.eval()
    device = network.classifier.weight.device
    return network.classify(torch.from_numpy(features).to(device)).float().cpu().numpy()
