"""The trainer of segmenters: checks on whole images, drawn beside their masks (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

from stedfm_hf.modeling.blending_stedfm import segment_image
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation
from stedfm_hf.training.finetuning.trainer import FinetuningTrainer
from stedfm_hf.training.segmentation.arguments import SegmentationArguments
from stedfm_hf.training.segmentation.augmentation import augment
from stedfm_hf.training.segmentation.feeding import Annotated, Side
from stedfm_hf.training.segmentation.figures import CHECKS, Shown, save_overlays
from stedfm_hf.training.segmentation.scoring import Scored, figures_of, score


class SegmentationTrainer(FinetuningTrainer[StedFmForSemanticSegmentation]):
    """Trains a `StedFmForSemanticSegmentation`.

    An encoder, frozen or not, does the same in training and in evaluation. The decoder "unetr" has batch norms: each
    process takes the statistics of its own batches, and those of the first one are checked and saved.

    Args:
        validation: images of the checks.
        kwargs: of :class:`FinetuningTrainer`.
    """

    args: SegmentationArguments

    def __init__(self, *, validation: Side, **kwargs: Any) -> None:
        super().__init__(eval_dataset=validation.items, **kwargs)
        self.validation = validation

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Augments images and masks on the device, and takes the loss of the model."""
        images, labels, region = inputs["pixel_values"], inputs["labels"], inputs["region"]
        if self.args.augment:
            images, labels, region = augment(images, labels, region, inputs["keys"], self.args.augmentation)
        output = model(pixel_values=images, labels=labels, region=region)
        return (output.loss, output) if return_outputs else output.loss

    def maps(self, item: Annotated) -> np.ndarray:
        """Probabilities (L, H, W) of a whole image, blended as the pipeline does."""
        self.network.eval()
        return segment_image(self.network, item.image, batch_size=self.args.max_per_device_batch)

    def look(self, side: Side, *, areas: bool, shown: int = 0) -> tuple[list[Scored], list[Shown]]:
        """Scores all images of a side; every process must come here, and gets the scores of all.

        Args:
            side: which.
            areas: whether areas under curves are computed.
            shown: how many of the images are to be drawn, the first ones.

        Returns:
            Scores of all images, and of the images of this process what is drawn.
        """
        shared = self.args.world_size > 1
        rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if shared else (0, 1)
        if shared:  # all processes look with the network that is saved: with the running statistics of the first
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, 0)
        own, pictures = {}, []
        for number in range(rank, len(side.data), world):
            item = side.items[number]
            maps = self.maps(item)
            own[number] = score(maps, item, side.data, self.network, areas=areas)
            if number < shown:
                pictures.append(Shown(str(side.data.places[number]), item, maps))
        if shared:
            parts: list[dict[int, Scored]] = [{} for _ in range(world)]
            torch.distributed.all_gather_object(parts, own)
            own = {number: each for part in parts for number, each in part.items()}
        return [own[number] for number in range(len(side.data))], pictures

    def check(self) -> Mapping[str, Any]:
        """Figures of the validation images; some of them are drawn."""
        # The first process draws those that it has segmented itself.
        scored, pictures = self.look(self.validation, areas=False, shown=self.args.overlays * self.args.world_size)
        if self.args.should_save and pictures:
            name = f"step-{self.state.global_step:06d}"
            save_overlays(Path(str(self.args.output_dir)) / CHECKS, name, pictures, self.validation.data)
        return figures_of(scored, self.validation.data, intervals=False)
