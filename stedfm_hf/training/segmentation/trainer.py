"""Trainer of segmenters, with evaluation on whole images, and metrics of probability maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

from stedfm_hf.evaluation.segmentation import ImageScores, flatten, planes_of, predicted_pixels, score_image, summarise
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.metrics.mask_scores import THRESHOLD, overlap
from stedfm_hf.modeling.blending_stedfm import segment_image
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation
from stedfm_hf.training.finetuning.settings import SegmentationSettings
from stedfm_hf.training.finetuning.trainer import FinetuneTrainer
from stedfm_hf.training.segmentation.data import Annotated, AnnotatedSplit, augment
from stedfm_hf.training.segmentation.figures import EVALUATIONS, Overlay, save_overlays

METRICS = ("iou", "dice", "loss")
"""Metrics that can select the best model, the default first; means over the classes."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of the probability maps of an image.

    Attributes:
        scores: Scores of every class.
        loss: Mean loss over the annotated region.
    """

    scores: ImageScores
    loss: float


class SegmentationTrainer(FinetuneTrainer[SegmentationSettings, StedFmForSemanticSegmentation]):
    """Trainer of `StedFmForSemanticSegmentation`.

    The decoder "unetr" has batch normalisation: each process uses the statistics of its batches, and the running
    statistics of the first process are evaluated and saved.

    Args:
        validation: Images of the evaluations.
        kwargs: Other arguments of `FinetuneTrainer`.
    """

    def __init__(self, *, validation: AnnotatedSplit, **kwargs: Any) -> None:
        super().__init__(eval_dataset=validation.items, **kwargs)
        self.validation = validation

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Augment images and masks on the device, and return the loss of the model."""
        images, labels, region = inputs["pixel_values"], inputs["labels"], inputs["region"]
        if self.settings.augment:
            images, labels, region = augment(images, labels, region, inputs["keys"], self.settings.protocol)
        output = model(pixel_values=images, labels=labels, region=region)
        return (output.loss, output) if return_outputs else output.loss

    def maps(self, item: Annotated) -> np.ndarray:
        """Return the probabilities (L, H, W) of a whole image, from blended tiles as in the pipeline.

        Args:
            item: Image to segment.
        """
        self.network.eval()
        return segment_image(self.network, item.image, batch_size=self.settings.max_forward_batch_size)

    def score_split(self, split: AnnotatedSplit, *, areas: bool, shown: int = 0) -> tuple[list[Scored], list[Overlay]]:
        """Score all images of a split; every process must make this call, and gets all scores.

        Args:
            split: Images to score.
            areas: Whether to compute areas under curves, for which all pixels are sorted.
            shown: Number of first images to plot.

        Returns:
            Scores of all images, and the images of this process to plot.
        """
        shared = self.args.world_size > 1
        rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if shared else (0, 1)
        if shared:  # all processes use the running statistics of the first, which are saved
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, 0)
        scores, plotted = {}, []
        for number in range(rank, len(split.data), world):
            item = split.items[number]
            maps = self.maps(item)
            scores[number] = score(maps, item, split.data, self.network, areas=areas)
            if number < shown:
                plotted.append(Overlay(str(split.data.image_ids[number]), item, maps))
        if shared:
            parts: list[dict[int, Scored]] = [{} for _ in range(world)]
            torch.distributed.all_gather_object(parts, scores)
            scores = {number: each for part in parts for number, each in part.items()}
        return [scores[number] for number in range(len(split.data))], plotted

    def validate(self) -> Mapping[str, Any]:
        """Return the metrics of the validation images, and plot some of them."""
        # The first process only has the maps of the images that it segmented.
        shown = self.settings.overlays * self.args.world_size
        scored, plotted = self.score_split(self.validation, areas=False, shown=shown)
        if self.args.should_save and plotted:
            name = f"step-{self.state.global_step:06d}"
            save_overlays(Path(str(self.args.output_dir)) / EVALUATIONS, name, plotted, self.validation.data)
        return metrics_of(scored, self.validation.data, intervals=False)


def score(
    maps: np.ndarray, item: Annotated, data: AnnotatedImages, network: StedFmForSemanticSegmentation, *, areas: bool
) -> Scored:
    """Score the probability maps of an image.

    Args:
        maps: Probabilities (L, H, W).
        item: Image and its target.
        data: Images of the split, with the classes and the kind of targets.
        network: Network, for the loss.
        areas: Whether to compute areas under curves, for which all pixels are sorted.
    """
    planes, counted = planes_of(item.target, data.target_type, len(data.classes))
    inside = counted if item.region is None else counted & item.region
    exclusive = data.target_type == "single_label"
    if areas:
        scores = score_image(maps, planes, inside, exclusive=exclusive)
    else:
        predicted = predicted_pixels(maps, exclusive=exclusive)
        iou, dice = overlap(predicted[:, inside], (planes > 0.5)[:, inside])
        scores = ImageScores({"iou": iou, "dice": dice}, "default", THRESHOLD)
    loss = network.target_loss(
        network.logits_of(torch.from_numpy(maps)[None]),
        torch.from_numpy(item.target)[None],
        torch.from_numpy(inside)[None],
    )
    return Scored(scores, float(loss))


def metrics_of(scored: Sequence[Scored], data: AnnotatedImages, *, intervals: bool) -> dict[str, Any]:
    """Return means over images and classes, without the background.

    Args:
        scored: Scores of the images.
        data: Images of the split.
        intervals: Whether to compute 95 % confidence intervals.

    Returns:
        Result of `flatten`, with `loss`; undefined values are None.
    """
    left_out = [] if data.background is None else [data.classes[data.background]]
    options = {} if intervals else {"n_resamples": 0}
    rows = summarise([each.scores for each in scored], data.classes, data.sources, exclude=left_out, **options)
    return {**flatten(rows), "loss": float(np.mean([each.loss for each in scored]))}
