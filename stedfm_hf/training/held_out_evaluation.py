"""Is it going well? What a masked autoencoder makes of held-out crops, the same ones with the same masks every time.

The crops are of source images that the training never sees. Crops and masks depend on the data set alone, not on the
seed, the ranks or the batch size of a run, so that runs can be compared. (Ours: the reference checks nothing.)
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
"""Of which crops are held out, where there are more than are looked at, and of their masks; not that of the run."""
READ_AT_ONCE = 256
NEIGHBOURS = 10
SMALLEST_ERROR = 1e-10
"""A mean squared error below it counts as it: 100 dB."""


@dataclass(frozen=True)
class HeldOutMetrics:
    """Metrics of an evaluation on held-out crops.

    Attributes:
        loss: the loss of the model, mean squared error of the hidden pixels.
        constant_loss: loss of the best constant, the variance of what is predicted: nothing is learned above it.
        psnr: peak signal-to-noise ratio of the hidden pixels in dB: 10 log10(1 / their mean squared error in [0, 1]).
        knn: share of the labelled crops whose label a vote of the 10 nearest training crops finds, by the vectors of
            the whole, unmasked crop; None where there are no labels.
    """

    loss: float
    constant_loss: float
    psnr: float
    knn: float | None = None

    def metrics(self) -> dict[str, float]:
        """The figures by the names that `transformers.Trainer` gives those of an evaluation."""
        found = {"eval_loss": self.loss, "eval_constant_loss": self.constant_loss, "eval_psnr": self.psnr}
        return found if self.knn is None else found | {"eval_knn": self.knn}


@dataclass(frozen=True, eq=False)
class Crops:
    """Some crops of a split, in memory as they are stored, cut to the size of the model's images.

    Args:
        pixels: (n, 1, S, S).
        intensity_range: (n, 2), the stored values that mean 0 and 1.
        index: number of each in the split, (n,) int64.
        label: number of its class, (n,) int64, -1 where it has none.
        pixel_size_nm: width of a pixel, (n,) float32, NaN where it is not known.
    """

    pixels: torch.Tensor
    intensity_range: torch.Tensor
    index: torch.Tensor
    label: torch.Tensor
    pixel_size_nm: torch.Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: torch.Tensor | slice) -> Crops:
        """Return the crops of some rows."""
        return Crops(*(values[rows] for values in self._columns()))

    def labelled(self) -> Crops:
        """Those that have a label."""
        return self.take((self.label != UNLABELLED).nonzero()[:, 0])

    @classmethod
    def joined(cls, parts: Sequence[Crops]) -> Crops:
        """The crops of several, one after the other."""
        return cls(*map(torch.cat, zip(*(part._columns() for part in parts), strict=True)))

    def _columns(self) -> tuple[torch.Tensor, ...]:
        return self.pixels, self.intensity_range, self.index, self.label, self.pixel_size_nm


def read_crops(files: SplitFiles, size: int, *, max_crops: int, labelled: bool = False) -> Crops:
    """Reads crops of a split: all, or as many as asked for in a random order that is always the same.

    Raises:
        UserError: the crops are smaller than `size`.
    """
    columns = ("pixel_size_nm", *["label"] * bool(files.labels))
    batch_size = min(READ_AT_ONCE, files.rows, max_crops)
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
        # A copy: the rest of a larger crop is let go.
        pixels = center_crop(batch["pixels"], size).clone()
        crops = Crops(pixels, batch["intensity_range"], batch["index"], label, widths).take(batch["valid"])
        parts.append(crops.labelled() if labelled else crops)
        if sum(map(len, parts)) >= max_crops:
            break
    return Crops.joined(parts).take(slice(max_crops))


@dataclass(frozen=True, eq=False)
class _HeldOutCrops:
    """The held-out crops of one data set, and labelled training crops whose vectors vote."""

    crops: Crops
    gallery: Crops | None
    labels: tuple[str, ...]


class HeldOutEvaluator:
    """Looks at held-out crops.

    Every process of a distributed training holds all the crops and computes everything: nothing has to be gathered,
    and models whose parameters are spread over the processes work as well.

    Args:
        validation: held-out splits, one for each data set.
        preparation: of the training; its seed and its augmentation do not matter.
        train: training splits: those of a repository in `validation` that has labels give the vectors that vote.
        max_crops: crops of each split at most.
        batch_size: crops at a time; the figures do not depend on it.

    Raises:
        UserError: there is nothing to look at, a split is held out and trained on, or crops are too small.

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
            raise UserError("held-out crops need a split, and at least one crop and one crop at a time")
        self.preparation, self.batch_size = replace(preparation, seed=SEED, augment=False), batch_size
        trained_on = {files.repo: files for files in train}
        size, before, self._sets = preparation.image_size, 0, []
        for files in validation:
            own = trained_on.get(files.repo)
            if own is not None and own.split == files.split:
                raise UserError(f"{files.repo}: split {files.split!r} cannot be trained on and held out; name another")
            crops = read_crops(files, size, max_crops=max_crops)
            # Numbered through all data sets, as in the training: no two crops share a mask.
            crops, before = replace(crops, index=crops.index + before), before + files.rows
            votes = own is not None and own.labels and len(crops.labelled())
            gallery = read_crops(own, size, max_crops=max_crops, labelled=True) if own is not None and votes else None
            self._sets.append(_HeldOutCrops(crops, gallery if gallery and len(gallery) else None, files.labels))

    def __len__(self) -> int:
        """Held-out crops."""
        return sum(len(each.crops) for each in self._sets)

    def evaluate(
        self,
        model: StedFmForPreTraining,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> HeldOutMetrics:
        """Looks at all held-out crops; the model and all random generators stay as they were.

        Args:
            model: the masked autoencoder itself, without what wraps it in a distributed or compiled training.
            device: where the model is; None takes that of its parameters.
            dtype: of autocast; None computes in the type of the weights. Losses are summed in float32 or better.

        Returns:
            The figures.
        """
        place = device or next(model.parameters()).device
        with _evaluation_mode(model, place, dtype):
            rows, counts = [], []
            for batch in self._batches([each.crops for each in self._sets], place):
                rows.append(_means(model, batch["pixel_values"], model(**batch)))
                counts.append(len(batch["noise"]))
            knn = self._knn(model, place)
        # One transfer for all; the mean over batches of different sizes in double.
        means = torch.stack(rows).cpu().double().numpy()
        loss, error, target, square = np.average(means, axis=0, weights=counts).tolist()
        psnr = -10.0 * math.log10(max(error, SMALLEST_ERROR))
        return HeldOutMetrics(loss=loss, constant_loss=square - target**2, psnr=psnr, knn=knn)

    def reconstructions(
        self,
        model: StedFmForPreTraining,
        *,
        max_crops: int = 6,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> list[Reconstruction]:
        """What the model makes of some held-out crops, in turn of each label: not picked by how they come out.

        Args:
            model: as for :meth:`evaluate`, as the next two.
            max_crops: crops.
            device: where the model is.
            dtype: of autocast.
        """
        place = device or next(model.parameters()).device
        groups: dict[tuple[int, int], list[int]] = {}
        for number, each in enumerate(self._sets):
            for where, label in enumerate(each.crops.label.tolist()):
                groups.setdefault((number, label), []).append(where)
        turns = [
            (*key, group[turn]) for turn in range(max_crops) for key, group in groups.items() if turn < len(group)
        ]
        found = []
        with _evaluation_mode(model, place, dtype):
            for number, label, where in sorted(turns[:max_crops]):
                crop = self._sets[number].crops.take(torch.tensor([where]))
                (batch,) = self._batches([crop], place)
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
        """Right answers of all data sets; each asks the training crops of its own."""
        right, asked = 0, 0
        for each in self._sets:
            if each.gallery is None:
                continue
            queries = each.crops.labelled()
            gallery_vectors, query_vectors = (self._vectors(model, crops, device) for crops in (each.gallery, queries))
            if not (np.isfinite(gallery_vectors).all() and np.isfinite(query_vectors).all()):
                return None
            gallery_labels, query_labels = (
                [each.labels[label] for label in crops.label.tolist()] for crops in (each.gallery, queries)
            )
            k = min(NEIGHBOURS, len(each.gallery))
            found = knn_accuracy(gallery_vectors, gallery_labels, query_vectors, query_labels, k=k)
            right, asked = right + int(found.correct.sum()), asked + len(queries)
        return right / asked if asked else None

    def _vectors(self, model: StedFmForPreTraining, crops: Crops, device: torch.device) -> np.ndarray:
        with _unsharded(model):
            vectors = [model.stedfm(batch["pixel_values"]).pooler_output for batch in self._batches([crops], device)]
        return torch.cat(vectors).float().cpu().numpy()


def find_held_out_crops(
    train: Sequence[SplitFiles],
    preparation: Preparation,
    *,
    split: str = "validation",
    max_crops: int = 2048,
    batch_size: int = 256,
    report: Callable[[str], None] = print,
) -> HeldOutEvaluator | None:
    """Finds the held-out crops of the data sets of a training.

    Returns:
        None where no data set has such a split.

    Raises:
        UserError: as of :class:`HeldOutEvaluator`.
    """
    found = []
    for files in train:
        if split in find_split_names(files.repo, token=files.token):
            found.append(find_split(files.repo, split, token=files.token))
        else:
            report(f"{files.repo}: has no split {split!r}: nothing of it tells whether the training goes well")
    return (
        HeldOutEvaluator(found, preparation, train=train, max_crops=max_crops, batch_size=batch_size)
        if found
        else None
    )


@contextmanager
def _evaluation_mode(model: StedFmForPreTraining, device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Evaluation mode, without gradients, in a precision; afterwards the model is as it was."""
    was_training = model.training
    model.eval()
    try:
        # Not inference_mode: DeepSpeed and FSDP gather parameters in the forward pass and keep them.
        with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            yield
    finally:
        model.train(was_training)


@contextmanager
def _unsharded(model: Any) -> Iterator[None]:
    """Lets the encoder be called without the whole model, whose call would gather what FSDP has spread out."""
    is_spread = hasattr(model, "unshard")
    if is_spread:
        model.unshard()
    yield
    if is_spread:
        model.reshard()


def _means(model: StedFmForPreTraining, images: torch.Tensor, output: StedFmForPreTrainingOutput) -> torch.Tensor:
    """Loss, squared error of the hidden pixels, mean and mean square of the targets: (4,) float32."""
    assert output.loss is not None and output.ids_masked is not None and output.logits is not None
    targets = model.targets(images, output.ids_masked)
    # Visible pixels are in the reconstruction as they were, so that they add nothing.
    error = (model.reconstruct(images, output) - images).square().sum() / output.logits.numel()
    return torch.stack([output.loss.float(), error, targets.mean(), targets.square().mean()])


def _reconstruction(
    model: StedFmForPreTraining, batch: dict[str, Any], label: str | None, pixel_size_nm: float
) -> Reconstruction:
    images, patch = batch["pixel_values"], model.config.patch_size
    output = model(**batch)
    grid = (images.shape[2] // patch, images.shape[3] // patch)
    hidden = mask_of_pixels(output.mask.cpu().numpy(), grid, patch)[0]
    original, filled = (each[0, 0].cpu().numpy() for each in (images, model.reconstruct(images, output)))
    known = None if math.isnan(pixel_size_nm) else pixel_size_nm
    return Reconstruction(original, np.ma.masked_array(original, hidden), filled, label, known)
