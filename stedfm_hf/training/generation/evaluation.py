"""Evaluation of a diffusion model on held-out crops: loss, Fréchet distances of its samples, and a sheet of samples.

Crops, times and noise depend on the data set only, not on the seed, the number of processes or the batch size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from stedfm_hf.data.repository.files import SplitFiles
from stedfm_hf.evaluation.baselines import texture_features
from stedfm_hf.evaluation.morphology import morphology_features
from stedfm_hf.metrics import frechet_distance
from stedfm_hf.modeling.generation_pipeline_stedfm import StedFmGenerationPipeline
from stedfm_hf.runs import UserError
from stedfm_hf.training.generation.conditions import Condition, EmbeddingCondition
from stedfm_hf.training.generation.figures import SampleRow, save_sheet
from stedfm_hf.training.generation.network import DenoisingNetwork
from stedfm_hf.training.generation.preparation import NOISE, GenerationPreparation
from stedfm_hf.training.held_out_evaluation import SEED, Crops, read_crops
from stedfm_hf.training.random_numbers import random_normal, sample_keys

SHEETS = "samples"
"""Folder of the sheets of samples."""
SHEET_ROWS, SHEET_SAMPLES = 8, 4
"""Number of held-out crops in a sheet, and of samples for each."""
_MAX_DEVIATION = 10.0
"""Largest deviation of a hand-made feature from its mean over real images, in standard deviations."""
MAX_CROPS = 2048
"""Largest number of held-out crops."""


@dataclass(frozen=True, eq=False)
class _Part:
    """Images in [0, 1], (n, 1, S, S), with their indices (n,) and conditions, on the device."""

    images: torch.Tensor
    index: torch.Tensor
    conditions: dict[str, torch.Tensor]


class GenerationEvaluator:
    """Evaluation of a diffusion model on held-out crops.

    The held-out crops are divided: images are generated for the conditions of one half, and compared with the other
    half. The distance between the two halves is what perfect samples would have.

    Args:
        files: Held-out split.
        preparation: Preparation of the training; its seed, augmentation and dropout are ignored.
        condition: Condition of the training.
        images: Number of images to generate; 0 evaluates only the loss.
        steps: Number of sampling steps.
        folder: Folder of the sheets of samples; None for no sheets.
        batch_size: Number of images in a forward pass; does not change the metrics.

    Raises:
        UserError: There are fewer than 4 held-out crops, or they are too small.
    """

    def __init__(
        self,
        files: SplitFiles,
        preparation: GenerationPreparation,
        condition: Condition,
        *,
        images: int = 512,
        steps: int = 25,
        folder: Path | None = None,
        batch_size: int = 64,
    ) -> None:
        self.crops: Crops = read_crops(files, preparation.image_size, max_crops=MAX_CROPS)
        if len(self.crops) < 4:
            raise UserError(
                f"{files.repo}: split {files.split!r} has fewer than 4 crops; evaluate with --eval-steps 0"
            )
        self.preparation = GenerationPreparation(
            SEED, image_size=preparation.image_size, augment=False, condition_dropout=0.0
        )
        self.condition, self.steps, self.folder, self.batch_size = condition, steps, folder, batch_size
        self.labels = files.labels
        self.images = min(images, len(self.crops) // 2)

    def __len__(self) -> int:
        """Return the number of held-out crops."""
        return len(self.crops)

    @torch.no_grad()
    def loss_metrics(self, network: DenoisingNetwork, *, dtype: torch.dtype | None = None) -> dict[str, float]:
        """Return the loss on the held-out crops, and that of the best constant prediction.

        Args:
            network: Network in evaluation mode.
            dtype: Data type of autocast; None computes in the type of the weights.
        """
        device, objective = next(network.parameters()).device, network.objective
        losses, counts, moments = [], [], []
        for part in self._parts(self.crops, device):
            keys = sample_keys(SEED, 0, part.index)
            # Evenly spaced times, so that the loss of few crops is not that of a few times.
            times = (part.index * 617) % objective.scheduler.config.num_train_timesteps
            noise = random_normal(keys, part.images[0].numel(), purpose=NOISE).view_as(part.images)
            keep = torch.ones_like(times, dtype=torch.bool)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                losses.append(float(network(part.images, times, noise, keep, **part.conditions)))
            target = objective.target(objective.scaled(part.images), noise, times).double().flatten(1)
            weights = objective.weights(times).double()
            powers = (torch.ones_like(target), target, target.square())
            moments.append([float((weights * power.mean(dim=1)).sum()) for power in powers])
            counts.append(len(times))
        total, first, second = np.sum(moments, axis=0)
        return {
            "eval_loss": float(np.average(losses, weights=counts)),
            "eval_constant_loss": float((second - first**2 / total) / sum(counts)),
        }

    def sample_metrics(
        self, network: DenoisingNetwork, *, dtype: torch.dtype | None = None, step: int = 0
    ) -> dict[str, float]:
        """Generate images, write a sheet of them, and return their Fréchet distances to held-out images.

        Args:
            network: Network in evaluation mode.
            dtype: Data type of autocast; None computes in the type of the weights.
            step: Number of optimiser steps so far, for the name of the sheet.
        """
        if not self.images:
            return {}
        device = next(network.parameters()).device
        pipeline = pipeline_of(network)
        asked = self.crops.take(slice(self.images))
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            made = np.concatenate([self._generate(pipeline, part) for part in self._parts(asked, device)])
            if self.folder is not None:
                self._write_sheet(pipeline, device, step)
        found = {
            name: frechet_distance(values, self._reference[name]) for name, values in self._features(made).items()
        }
        real = {f"{name}_real": value for name, value in self.real_distances.items()}
        return {f"eval_frechet_{name}": value for name, value in (found | real).items()}

    @cached_property
    def real_distances(self) -> dict[str, float]:
        """Fréchet distance between the two halves of the held-out crops, by the name of the features."""
        conditions = self._features(self._pixels(self.crops.take(slice(self.images))))
        return {name: frechet_distance(conditions[name], values) for name, values in self._reference.items()}

    @cached_property
    def _reference(self) -> dict[str, np.ndarray]:
        """Features of the held-out crops with which generated images are compared."""
        return self._features(self._pixels(self.crops.take(slice(self.images, 2 * self.images))))

    @cached_property
    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the hand-made features of the held-out crops."""
        features = _hand_made(self._pixels(self.crops.take(slice(2 * self.images))))
        return features.mean(axis=0), features.std(axis=0).clip(min=1e-9)

    def _features(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the features of images (n, S, S) in [0, 1]: hand-made ones, and those of the encoder."""
        mean, std = self._scale
        # Limited, because a feature that hardly varies between real images would decide the distance.
        found = {"texture": ((_hand_made(images) - mean) / std).clip(-_MAX_DEVIATION, _MAX_DEVIATION)}
        if isinstance(self.condition, EmbeddingCondition):
            device = next(self.condition.encoder.parameters()).device
            parts = torch.from_numpy(images.astype(np.float32))[:, None].split(self.batch_size)
            embeddings = [self.condition(part.to(device), {})["condition"].cpu() for part in parts]
            found["embedding"] = torch.cat(embeddings).numpy()
        return found

    def _pixels(self, crops: Crops) -> np.ndarray:
        """Return the images of crops, (n, S, S) in [0, 1]."""
        return torch.cat([part.images for part in self._parts(crops, torch.device("cpu"), False)])[:, 0].numpy()

    def _parts(self, crops: Crops, device: torch.device, conditioned: bool = True) -> Iterator[_Part]:
        for start in range(0, len(crops), self.batch_size):
            part = crops.take(slice(start, start + self.batch_size))
            batch = {name: getattr(part, name).to(device) for name in ("pixels", "intensity_range", "index", "label")}
            images = self.preparation.images(batch, epoch=0)
            yield _Part(images, batch["index"], self.condition(images, batch) if conditioned else {})

    def _generate(self, pipeline: StedFmGenerationPipeline, part: _Part, number: int = 0) -> np.ndarray:
        """Generate an image for each condition, (n, S, S) in [0, 1]; other numbers start from other noise."""
        keys = sample_keys(SEED, number, part.index)
        noise = random_normal(keys, part.images[0].numel(), purpose=NOISE).view_as(part.images)
        images = pipeline(
            embeddings=part.conditions.get("condition"),
            class_labels=part.conditions.get("class_labels"),
            latents=noise,
            num_inference_steps=self.steps,
        ).images
        return np.asarray(images, np.float32).reshape(len(noise), *noise.shape[2:])

    def _write_sheet(self, pipeline: StedFmGenerationPipeline, device: torch.device, step: int) -> None:
        """Write a sheet of the first held-out crops and of samples with their conditions."""
        crops = self.crops.take(slice(min(SHEET_ROWS, self.images)))
        (part,) = list(self._parts(crops, device))[:1]
        columns = [self._generate(pipeline, part, number) for number in range(SHEET_SAMPLES)]
        pixel_size = float(crops.pixel_size_nm[0])
        rows = [
            SampleRow(
                original=part.images[row, 0].cpu().numpy(),
                samples=[column[row] for column in columns],
                label=self.labels[label] if label >= 0 and self.labels else None,
                pixel_size_nm=None if np.isnan(pixel_size) else pixel_size,
            )
            for row, label in enumerate(crops.label.tolist())
        ]
        assert self.folder is not None
        save_sheet(rows, self.folder, f"step-{step:07d}")


def pipeline_of(network: DenoisingNetwork) -> StedFmGenerationPipeline:
    """Return a pipeline of a network, without the encoder.

    Args:
        network: Network of the training.
    """
    pipeline = StedFmGenerationPipeline(
        network.unet, network.objective.scheduler, value_range=network.objective.value_range
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _hand_made(images: np.ndarray) -> np.ndarray:
    """Return texture and morphology features of images (n, S, S) in [0, 1], (n, d)."""
    return np.concatenate([texture_features(list(images)), morphology_features(list(images)).values], axis=1)
