"""Evaluation of a masked autoencoder on held-out crops with fixed masks.

The crops are from source images that are not in the training split. Crops and masks depend on the data set only, not
on the seed, the number of processes or the batch size, so that runs can be compared.

Source: This package; the reference protocol has no held-out evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from stedfm_hf.data.repository.decoding import UNLABELLED
from stedfm_hf.data.repository.files import SplitFiles, find_split, find_split_names
from stedfm_hf.data.streaming.stream import CropStream
from stedfm_hf.evaluation import knn_accuracy
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining, StedFmForPreTrainingOutput
from stedfm_hf.reports.reconstructions import Reconstruction, mask_of_pixels
from stedfm_hf.runs import UserError
from stedfm_hf.training.preparation import Preparation, center_crop

SEED = 0
"""Random seed of the selection and the masks of the held-out crops; independent of the seed of the run."""
READ_BATCH_SIZE = 256
NEIGHBOURS = 10
MIN_ERROR = 1e-10
"""Smallest mean squared error for the PSNR, which limits it to 100 dB."""


@dataclass(frozen=True)
class HeldOutMetrics:
    """Metrics of an evaluation on held-out crops.

    Attributes:
        loss: Loss of the model: mean squared error of the masked patches.
        constant_loss: Loss of the best constant prediction: variance of the targets. A model with a higher loss has
            learned nothing.
        psnr: Peak signal-to-noise ratio of the masked pixels in dB, for intensities in [0, 1].
        knn: Accuracy of 10-nearest-neighbour classification of the labelled crops with the embeddings of labelled
            training crops, in [0, 1]; None without labels.
    """

    loss: float
    constant_loss: float
    psnr: float
    knn: float | None = None

    def metrics(self) -> dict[str, float]:
        """Return the metrics with the prefix that `transformers.Trainer` uses for evaluations."""
        found = {"eval_loss": self.loss, "eval_constant_loss": self.constant_loss, "eval_psnr": self.psnr}
        return found if self.knn is None else found | {"eval_knn": self.knn}


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops of a split in memory, in the stored data type, cropped to the image size of the model.

    Attributes:
        pixels: Stored pixels, (n, 1, S, S).
        intensity_range: Stored values that are scaled to 0 and 1, (n, 2).
        index: Index of each crop in the split, (n,) int64.
        label: Index of the class, (n,) int64; -1 without a label.
        pixel_size_nm: Width of a pixel in nm, (n,) float32; NaN if unknown.
    """

    pixels: torch.Tensor
    intensity_range: torch.Tensor
    index: torch.Tensor
    label: torch.Tensor
    pixel_size_nm: torch.Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: torch.Tensor | slice) -> Crops:
        """Return the crops of some rows.

        Args:
            rows: Indices, mask or slice of the rows.
        """
        return Crops(*(values[rows] for values in self._columns()))

    def labelled(self) -> Crops:
        """Return the crops that have a label."""
        return self.take((self.label != UNLABELLED).nonzero()[:, 0])

    @classmethod
    def joined(cls, parts: Sequence[Crops]) -> Crops:
        """Return the concatenation of several sets of crops.

        Args:
            parts: Sets of crops.
        """
        return cls(*map(torch.cat, zip(*(part._columns() for part in parts), strict=True)))

    def _columns(self) -> tuple[torch.Tensor, ...]:
        return self.pixels, self.intensity_range, self.index, self.label, self.pixel_size_nm


def read_crops(files: SplitFiles, size: int, *, max_crops: int, labelled: bool = False) -> Crops:
    """Read crops of a split: all, or a fixed random sample.

    Args:
        files: Files of the split.
        size: Image size of the model in pixels; larger crops are cropped centrally.
        max_crops: Largest number of crops.
        labelled: Whether to read only crops that have a label.

    Raises:
        UserError: The crops are smaller than `size`.
    """
    columns = ("pixel_size_nm", *["label"] * bool(files.labels))
    batch_size = min(READ_BATCH_SIZE, files.rows, max_crops)
    stream = CropStream(
        files, batch_size=batch_size, seed=SEED, epoch=0, rank=0, world_size=1, drop_last=False, columns=columns
    )
    parts: list[Crops] = []
    for batch in stream:
        if min(batch["pixels"].shape[2:]) < size:
            raise UserError(
                f"{files.repo}: split {files.split!r} has crops of {' x '.join(map(str, batch['pixels'].shape[2:]))}, "
                f"smaller than the {size} x {size} of the model; build the data set with larger crops"
            )
        label = batch.get("label", torch.full_like(batch["index"], UNLABELLED))
        widths = torch.tensor([math.nan if each is None else each[1] for each in batch["pixel_size_nm"]])
        # A copy, so that the memory of larger crops is released.
        pixels = center_crop(batch["pixels"], size).clone()
        crops = Crops(pixels, batch["intensity_range"], batch["index"], label, widths).take(batch["valid"])
        parts.append(crops.labelled() if labelled else crops)
        if sum(map(len, parts)) >= max_crops:
            break
    return Crops.joined(parts).take(slice(max_crops))


@dataclass(frozen=True, eq=False)
class _HeldOutCrops:
    """Held-out crops of one data set, and labelled training crops for the nearest-neighbour classification."""

    crops: Crops
    gallery: Crops | None
    labels: tuple[str, ...]


class HeldOutEvaluator:
    """Evaluation on held-out crops.

    Every process of a distributed training evaluates all crops, so no communication is needed, and models whose
    parameters are sharded among the processes work as well.

    Args:
        validation: Held-out splits, one for each data set.
        preparation: Preprocessing of the training; its seed and augmentation are ignored.
        train: Training splits. The nearest-neighbour classification uses the labelled crops of those that are of the
            same data set as a held-out split.
        max_crops: Largest number of crops of each split.
        batch_size: Number of crops in a forward pass; does not change the metrics.

    Raises:
        UserError: There are no held-out crops, a split is used for both training and evaluation, or crops are too
            small.

    Example:
        >>> files = find_split("sted-crops", "validation")  # doctest: +SKIP
        >>> held_out = HeldOutEvaluator([files], Preparation(seed=0, image_size=224, patches=196))  # doctest: +SKIP
        >>> held_out.evaluate(model).psnr  # doctest: +SKIP
        17.3
    """

    def __init__(
        self,
        validation: Sequence[SplitFiles],
        preparation: Preparation,
        *,
        train: Sequence[SplitFiles] = (),
        max_crops: int = 2048,
        batch_size: int = 256,
    ) -> None:
        if not validation or max_crops < 1 or batch_size < 1:
            raise UserError("the held-out evaluation needs a split; max_crops and batch_size must be at least 1")
        self.preparation, self.batch_size = replace(preparation, seed=SEED, augment=False), batch_size
        by_repo = {files.repo: files for files in train}
        size, before, self._sets = preparation.image_size, 0, []
        for files in validation:
            training = by_repo.get(files.repo)
            if training is not None and training.split == files.split:
                raise UserError(
                    f"{files.repo}: split {files.split!r} is the training split; give another --validation-split"
                )
            crops = read_crops(files, size, max_crops=max_crops)
            # Crops of all data sets have different indices, as in training, so that no two of them share a mask.
            crops, before = replace(crops, index=crops.index + before), before + files.rows
            has_labels = training is not None and training.labels and len(crops.labelled())
            gallery = (
                read_crops(training, size, max_crops=max_crops, labelled=True)
                if training is not None and has_labels
                else None
            )
            self._sets.append(_HeldOutCrops(crops, gallery if gallery and len(gallery) else None, files.labels))

    def __len__(self) -> int:
        """Return the number of held-out crops."""
        return sum(len(each.crops) for each in self._sets)

    def evaluate(
        self,
        model: StedFmForPreTraining,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> HeldOutMetrics:
        """Evaluate a model on all held-out crops, without changing the model or the random generators.

        Args:
            model: Masked autoencoder, without the wrappers of distributed or compiled training.
            device: Device of the model; None for the device of its parameters.
            dtype: Data type of autocast; None computes in the type of the weights. Losses are summed in float32 or
                float64.

        Returns:
            Metrics over all crops.
        """
        target = device or next(model.parameters()).device
        with _evaluation_mode(model, target, dtype):
            rows, counts = [], []
            for batch in self._batches([each.crops for each in self._sets], target):
                rows.append(_means(model, batch["pixel_values"], model(**batch)))
                counts.append(len(batch["noise"]))
            knn = self._knn(model, target)
        # One transfer for all batches; the weighted mean in float64.
        means = torch.stack(rows).cpu().double().numpy()
        loss, error, target_mean, square = np.average(means, axis=0, weights=counts).tolist()
        psnr = -10.0 * math.log10(max(error, MIN_ERROR))
        return HeldOutMetrics(loss=loss, constant_loss=square - target_mean**2, psnr=psnr, knn=knn)

    def reconstructions(
        self,
        model: StedFmForPreTraining,
        *,
        max_crops: int = 6,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> list[Reconstruction]:
        """Return reconstructions of some held-out crops, in turn from each label, not selected by quality.

        Args:
            model: Masked autoencoder, as for `evaluate`.
            max_crops: Largest number of crops.
            device: Device of the model; None for the device of its parameters.
            dtype: Data type of autocast; None computes in the type of the weights.
        """
        target = device or next(model.parameters()).device
        groups: dict[tuple[int, int], list[int]] = {}
        for number, each in enumerate(self._sets):
            for row, label in enumerate(each.crops.label.tolist()):
                groups.setdefault((number, label), []).append(row)
        turns = [
            (*key, group[turn]) for turn in range(max_crops) for key, group in groups.items() if turn < len(group)
        ]
        found = []
        with _evaluation_mode(model, target, dtype):
            for number, label, row in sorted(turns[:max_crops]):
                crop = self._sets[number].crops.take(torch.tensor([row]))
                (batch,) = self._batches([crop], target)
                name = self._sets[number].labels[label] if label != UNLABELLED else None
                found.append(_reconstruction(model, batch, name, float(crop.pixel_size_nm)))
        return found

    def _batches(self, sets: Sequence[Crops], device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
        for crops in sets:
            for start in range(0, len(crops), self.batch_size):
                part = crops.take(slice(start, start + self.batch_size))
                moved = {name: getattr(part, name).to(device) for name in ("pixels", "intensity_range", "index")}
                yield self.preparation(moved, epoch=0)

    def _knn(self, model: StedFmForPreTraining, device: torch.device) -> float | None:
        """Return the nearest-neighbour accuracy over the labelled held-out crops of all data sets.

        The neighbours are labelled training crops of the same data set. None: no data set has labels, or embeddings
        are not finite.
        """
        correct, total = 0, 0
        for each in self._sets:
            if each.gallery is None:
                continue
            queries = each.crops.labelled()
            gallery_embeddings, query_embeddings = (
                self._embeddings(model, crops, device) for crops in (each.gallery, queries)
            )
            if not (np.isfinite(gallery_embeddings).all() and np.isfinite(query_embeddings).all()):
                return None
            gallery_labels, query_labels = (
                [each.labels[label] for label in crops.label.tolist()] for crops in (each.gallery, queries)
            )
            k = min(NEIGHBOURS, len(each.gallery))
            accuracy = knn_accuracy(gallery_embeddings, gallery_labels, query_embeddings, query_labels, k=k)
            correct, total = correct + int(accuracy.correct.sum()), total + len(queries)
        return correct / total if total else None

    def _embeddings(self, model: StedFmForPreTraining, crops: Crops, device: torch.device) -> np.ndarray:
        with _unsharded(model):
            embeddings = [
                model.stedfm(batch["pixel_values"]).pooler_output for batch in self._batches([crops], device)
            ]
        return torch.cat(embeddings).float().cpu().numpy()


def find_held_out_crops(
    train: Sequence[SplitFiles],
    preparation: Preparation,
    *,
    split: str = "validation",
    max_crops: int = 2048,
    batch_size: int = 256,
    report: Callable[[str], None] = print,
) -> HeldOutEvaluator | None:
    """Read the held-out crops of the data sets of a training.

    Args:
        train: Training splits.
        preparation: Preprocessing of the training.
        split: Name of the held-out split.
        max_crops: Largest number of crops of each split.
        batch_size: Number of crops in a forward pass.
        report: Function that prints a line about a data set without this split.

    Returns:
        Held-out evaluation, or None if no data set has the split.

    Raises:
        UserError: As for `HeldOutEvaluator`.
    """
    found = []
    for files in train:
        if split in find_split_names(files.repo, token=files.token):
            found.append(find_split(files.repo, split, token=files.token))
        else:
            report(f"{files.repo}: no split {split!r}, so this data set is not part of the held-out evaluation")
    return (
        HeldOutEvaluator(found, preparation, train=train, max_crops=max_crops, batch_size=batch_size)
        if found
        else None
    )


@contextmanager
def _evaluation_mode(model: StedFmForPreTraining, device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Set a model to evaluation mode with autocast and without gradients, and restore its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        # Not inference_mode: DeepSpeed and FSDP collect parameters in the forward pass and keep them.
        with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            yield
    finally:
        model.train(was_training)


@contextmanager
def _unsharded(model: Any) -> Iterator[None]:
    """Collect the parameters that FSDP has sharded, so that the encoder can be called on its own."""
    is_sharded = hasattr(model, "unshard")
    if is_sharded:
        model.unshard()
    yield
    if is_sharded:
        model.reshard()


def _means(model: StedFmForPreTraining, images: torch.Tensor, output: StedFmForPreTrainingOutput) -> torch.Tensor:
    """Return loss, mean squared error of the masked pixels, mean and mean square of the targets, (4,) float32."""
    assert output.loss is not None and output.ids_masked is not None and output.logits is not None
    targets = model.targets(images, output.ids_masked)
    # Visible pixels are unchanged in the reconstruction, so their error is 0.
    error = (model.reconstruct(images, output) - images).square().sum() / output.logits.numel()
    return torch.stack([output.loss.float(), error, targets.mean(), targets.square().mean()])


def _reconstruction(
    model: StedFmForPreTraining, batch: dict[str, Any], label: str | None, pixel_size_nm: float
) -> Reconstruction:
    """Reconstruct the first image of a batch; `pixel_size_nm` is NaN if unknown, and `label` None."""
    images, patch = batch["pixel_values"], model.config.patch_size
    output = model(**batch)
    grid = (images.shape[2] // patch, images.shape[3] // patch)
    hidden = mask_of_pixels(output.mask.cpu().numpy(), grid, patch)[0]
    original, filled = (each[0, 0].cpu().numpy() for each in (images, model.reconstruct(images, output)))
    known = None if math.isnan(pixel_size_nm) else pixel_size_nm
    return Reconstruction(original, np.ma.masked_array(original, hidden), filled, label, known)
