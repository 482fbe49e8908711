"""Fine-tuning for segmentation: `stedfm finetune segmentation`, or `torchrun ... training/segment.py`."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before torch is imported
    from stedfm_hf.runs.command_line import run_script
    from stedfm_hf.training.finetuning.settings import SegmentationSettings

    name = "stedfm_hf.training.segment:finetune_segmentation"
    sys.exit(run_script("segmentation", name, settings=SegmentationSettings))

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.labels.annotated import (
    AnnotatedImages,
    class_warnings,
    sample_fraction,
    sample_per_class,
)
from stedfm_hf.labels.annotated.sampling import shuffled
from stedfm_hf.labels.annotated.stored import BACKGROUND
from stedfm_hf.labels.reading import read_annotated_images
from stedfm_hf.labels.splits import Splits
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation
from stedfm_hf.runs import UserError, atomic_path, counted, some_of
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.training.figures import FIGURES
from stedfm_hf.training.finetuning.card import count_parameters
from stedfm_hf.training.finetuning.data import Batches, CachedItems, splits_for_training
from stedfm_hf.training.finetuning.network import choose_trained, load_weights, network_config, standardise_by
from stedfm_hf.training.finetuning.settings import NEW_ENCODER, SegmentationSettings
from stedfm_hf.training.finetuning.summary import reported_split
from stedfm_hf.training.finetuning.task import FinetuneResult, Run, Task
from stedfm_hf.training.network import isolated_rng
from stedfm_hf.training.segmentation.data import (
    Annotated,
    AnnotatedSplit,
    TrainingCrops,
    cache_images,
    crop_size,
    crops_in,
)
from stedfm_hf.training.segmentation.figures import EXAMPLES, Overlay, save_overlays
from stedfm_hf.training.segmentation.notes import check_metric, class_notes, crop_notes, memory_warnings
from stedfm_hf.training.segmentation.trainer import METRICS, Scored, SegmentationTrainer, metrics_of

SCORES_FILE = "per_image.parquet"
DECODERS = {
    "upernet": "UperNet on a pyramid of four levels",
    "unetr": "the full decoder of the reference, after UNETR",
    "linear": "the linear decoder of the reference: the pixels of a patch from its token",
}


@takes_settings(SegmentationSettings)
@quiet_transformers(errors_only=True)
def finetune_segmentation(settings: SegmentationSettings) -> FinetuneResult:
    """Train a segmenter on annotated images, once for every seed.

    Returns:
        Folder of the best model, and the metrics of all seeds.

    Raises:
        UserError: The images cannot be used for training, or the output folder holds something else.

    Example:
        >>> result = finetune_segmentation("demo", "annotated", output="run", label_count=10)  # doctest: +SKIP
        >>> sorted(result.metrics["test"]["mean"])  # doctest: +SKIP
        ['aupr', 'auroc', 'dice', 'iou', 'loss']
    """
    return SegmentationTask(settings).run()


class SegmentationTask(Task[SegmentationSettings, AnnotatedImages, Annotated]):
    """Fine-tuning on masks: exclusive classes, overlapping classes, or votes."""

    headline = ("iou", "dice", "aupr")

    def read(self) -> Splits[AnnotatedImages]:
        """Read annotated images and split them."""
        return read_splits(self.settings, image_size=self.config.image_size)

    def metrics(self) -> Sequence[str]:
        """Return the metrics that can select the best model, the default first."""
        return METRICS

    def notes(self) -> Iterable[str]:
        """Return notes on the classes, and warnings about suspicious or very large images."""
        splits = self.splits
        yield from class_notes(splits.train)
        yield from class_warnings(splits.named())
        yield from memory_warnings(splits.held_out())

    def sample(self, seed: int) -> AnnotatedImages:
        """Return the training images of the run of a seed: all, or a random sample."""
        return sample_images(self.splits.train, self.settings, seed)

    def cache(self, data: AnnotatedImages) -> CachedItems[Annotated]:
        """Return the images with their masks, each read once."""
        return cache_images(data)

    def channels_of(self, item: Annotated) -> int:
        """Return the number of channels of an image."""
        return len(item.image)

    def run(self) -> FinetuneResult:
        """Train every seed, after checking that the validation images can select the best model."""
        check_metric(self.splits.validation, self.metric)
        return super().run()

    def make_trainer(self, run: Run, sampled: AnnotatedSplit, validation: AnnotatedSplit) -> SegmentationTrainer:
        """Build the network of a run and its trainer."""
        settings, data, items = self.settings, sampled.data, sampled.items
        shapes = [item.image.shape[1:] for item in items]
        size = crop_size(shapes, image_size=self.config.image_size, patch_size=self.config.patch_size)
        for note in crop_notes(sampled, shapes, size=size, image_size=self.config.image_size):
            self.report(f"seed {run.seed}: {note}")
        crops = [crops_in(height * width, size) for height, width in shapes]
        in_all = sum(crops_in(int(pixels), size) for pixels in self.splits.train.sizes)
        steps = settings.steps_for(in_all, sum(crops))
        images = counted(len(crops), "training image")
        self.report(f"seed {run.seed}: {images}, {counted(steps, 'step')} of crops of {size} pixels")
        args = self.run_arguments(run, steps)
        samples = TrainingCrops(
            items,
            crops=crops,
            size=size,
            seed=run.seed,
            background=data.background,
            min_annotated=settings.min_annotated,
        )
        return SegmentationTrainer(
            settings=settings,
            model=new_network(settings, data, seed=run.seed, images=(item.image for item in items)),
            args=args,
            batches=Batches(samples, args),
            validation=validation,
            metric=self.metric,
            processing_class=self.processor(),
        )

    def evaluate(
        self,
        run: Run,
        trainer: SegmentationTrainer,
        sampled: AnnotatedSplit,
        held_out: Mapping[str, AnnotatedSplit],
    ) -> dict[str, Any]:
        """Segment whole images of any size, as the saved model does, and write scores and figures."""
        data = sampled.data
        scored = {name: trainer.score_split(each, areas=True)[0] for name, each in held_out.items()}
        if not self.writes:
            return {}
        shown = reported_split(held_out)
        if examples := choose_examples(trainer, held_out[shown], scored[shown]):
            save_overlays(run.folder / FIGURES, EXAMPLES, examples, data)
        write_scores(run.folder / SCORES_FILE, held_out, scored)
        return {
            "training_images": len(data),
            "training_images_per_class": {name: int(present.sum()) for name, present in data.class_presence().items()},
            "training_pixels_per_class": data.counts(),
            "training_sources": data.source_count,
        } | {
            name: {"images": len(each.data), **metrics_of(scored[name], each.data, intervals=True)}
            for name, each in held_out.items()
        }

    def card(self, best: Mapping[str, Any]) -> dict[str, Any]:
        """Return sizes, classes and the IoU of each class for the model card."""
        network = StedFmForSemanticSegmentation.from_pretrained(self.settings.folder)
        train = self.splits.train
        ious = dict(zip(train.classes, best[reported_split(best)]["iou_per_class"], strict=True))
        return {
            "parameters": {
                "encoder": count_parameters(network.stedfm),
                "decoder": count_parameters(network.decode_head),
            },
            "config": network.config.to_dict(),
            "figures": (EXAMPLES,),
            "files": {SCORES_FILE: "scores of this model for every validation and test image"},
            "task": "segmentation",
            "classes": tuple(train.class_presence()),
            "decoder": DECODERS[network.config.decoder],
            "class_metric": "IoU",
            "metric_per_class": {name: value for name, value in ious.items() if name in train.class_presence()},
        }


def read_splits(settings: SegmentationSettings, *, image_size: int) -> Splits[AnnotatedImages]:
    """Read annotated images and split them.

    Args:
        settings: Settings of the fine-tuning.
        image_size: Image size of the model in pixels.

    Raises:
        UserError: The data set does not have a named split, has a source image in two splits, or has no training
            image of a class.
    """
    read = read_annotated_images(settings)
    splits = splits_for_training(read, settings)
    if without_mask := [image_id for each in read.values() for image_id in each.without_mask]:
        description = (
            f"{splits.description.removesuffix('.')}; skipped {counted(len(without_mask), 'image')} without a mask: "
            f"{some_of(without_mask)}."
        )
        splits = replace(splits, description=description)
    return skip_sparse_images(splits, settings.min_annotated, image_size)


def sample_images(train: AnnotatedImages, settings: SegmentationSettings, seed: int) -> AnnotatedImages:
    """Return the training images of the run of a seed: all, or a random sample.

    Args:
        train: Images of the training split.
        settings: Settings of the fine-tuning.
        seed: Random seed of the sample.

    Raises:
        UserError: More images are requested than exist.
    """
    if settings.labels_per_class is not None:
        return sample_per_class(train, settings.labels_per_class, seed)
    if (count := settings.label_count) is not None:
        if count > len(train):
            raise UserError(f"{train.name}: --label-count {count} is more than the {len(train)} training images")
        return train.take(np.sort(shuffled(train, seed)[:count]))
    return train if settings.label_fraction is None else sample_fraction(train, settings.label_fraction, seed)


def skip_sparse_images(
    splits: Splits[AnnotatedImages], min_annotated: float, image_size: int
) -> Splits[AnnotatedImages]:
    """Remove training images without any crop that has enough annotated pixels; validation and test are kept.

    Args:
        splits: Images of train, validation and test.
        min_annotated: Smallest annotated fraction of a crop.
        image_size: Size of the crops in pixels.

    Raises:
        UserError: No training image is left, or none of a class.
    """
    train, least = splits.train, f"{100 * min_annotated:g} %"
    enough = train.annotated * train.sizes >= min_annotated * np.minimum(image_size**2, train.sizes)
    if not enough.any():
        raise UserError(
            f"{train.name}: none of {len(train)} training images has a crop with {least} annotated pixels; lower "
            "--min-annotated"
        )
    if few := int((~enough).sum()):
        description = (
            f"{splits.description.removesuffix('.')}; skipped training images without a crop with {least} annotated "
            f"pixels: {few:,} of {len(train):,} ({some_of(train.image_ids[~enough].tolist())})."
        )
        splits = replace(splits, train=train.take(enough), description=description)
    if missing := [name for name, count in splits.train.counts().items() if not count]:
        if missing == [BACKGROUND] and len(splits.train.classes) == 3:
            raise UserError(
                f"{train.name}: no pixel of the masks is 0, as in masks of ilastik, where 1 or 2 is the background; "
                "name both: --classes 1=NAME 2=background, or 1=background 2=NAME"
            )
        elsewhere = any(images.counts()[name] for images in splits.held_out().values() for name in missing)
        raise UserError(
            f"{train.name}: the training images have no pixel of {', '.join(missing)}"
            f"{', but other splits have' if elsewhere else ''}; annotate some, or name only "
            "the classes that the masks show; --classes 1=NAME 2=background counts a class as background"
        )
    return splits


def new_network(
    settings: SegmentationSettings, data: AnnotatedImages, *, seed: int, images: Iterable[np.ndarray]
) -> StedFmForSemanticSegmentation:
    """Return the network before its first step: a pretrained or new encoder, and a new decoder.

    Args:
        settings: Settings of the fine-tuning.
        data: Training images.
        seed: Random seed of the new weights.
        images: Pixels of the training images, for the standardisation of a new encoder.

    Raises:
        UserError: The model cannot be loaded, or does not fit the decoder.
    """
    config = network_config(settings, data.classes)
    changes = {
        "target_type": data.target_type,
        "decoder": settings.decoder,
        "segmentation_loss": settings.segmentation_loss,
        "use_auxiliary_head": settings.auxiliary,
        # The model may have a decoder of another width.
        "decode_head_hidden_size": settings.decode_head_hidden_size,
    }
    try:
        config = type(config).from_dict(config.to_dict() | changes)  # checks the values together
        with isolated_rng(seed):
            # Only the encoder is taken from the model, which may also have a decoder.
            network = StedFmForSemanticSegmentation(config)
            if settings.mode in NEW_ENCODER:
                standardise_by(network.stedfm, images)
            else:
                network.stedfm.load_state_dict(load_weights(StedFmModel, settings, config).state_dict())
            choose_trained(network.stedfm, settings)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"model {settings.model}: {' '.join(str(error).split())}") from error
    if settings.decoder == "unetr":
        # UNETR does not use the final norm; a parameter without a gradient would stop distributed training.
        network.stedfm.norm.requires_grad_(False)
    return network


def choose_examples(trainer: SegmentationTrainer, split: AnnotatedSplit, scored: Sequence[Scored]) -> list[Overlay]:
    """Return the images with the best, the median and the worst mean IoU over the classes.

    Args:
        trainer: Trainer with the best weights.
        split: Images of a split.
        scored: Scores of the images.
    """
    foreground = [number for number in range(len(split.data.classes)) if number != split.data.background]
    ious = np.stack([each.scores.values["iou"][foreground] for each in scored])
    is_defined = ~np.isnan(ious)
    means = np.where(is_defined, ious, 0).sum(axis=1) / np.maximum(is_defined.sum(axis=1), 1)
    order = np.flatnonzero(is_defined.any(axis=1))
    order = order[np.argsort(-means[order], kind="stable")]
    if not len(order):
        return []
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    if len(order) < len(chosen):
        chosen = {"best": order[0], "worst": order[-1]} if len(order) == 2 else {"only image": order[0]}
    overlays = []
    for title, number in chosen.items():
        item = split.items[int(number)]
        row_title = f"{title} of {len(order)}" if len(order) > 1 else title
        overlays.append(Overlay(row_title, item, trainer.maps(item)))
    return overlays


def write_scores(path: Path, held_out: Mapping[str, AnnotatedSplit], scored: Mapping[str, Sequence[Scored]]) -> None:
    """Write one row for every image and class: split, id, source and scores; undefined scores are null.

    Args:
        path: Parquet file.
        held_out: Images by split.
        scored: Scores of the images, by split.
    """
    rows: list[dict[str, Any]] = []
    for split, images in held_out.items():
        for image, source, each in zip(images.data.image_ids, images.data.sources, scored[split], strict=True):
            plain = each.scores.plain()
            for number, label in enumerate(images.data.classes):
                scores = {score: values[number] for score, values in plain.items()}
                rows.append({"split": split, "image_id": str(image), "source": str(source), "class": label, **scores})
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
