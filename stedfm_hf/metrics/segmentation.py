"""Metric of masks for the `evaluate` library, computed image by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from stedfm_hf.metrics.label_metrics import OfflineMetric
from stedfm_hf.metrics.mask_scores import ImageScores, ScoringProtocol, planes_of, predicted_pixels, score_image
from stedfm_hf.metrics.objects import ObjectScores, score_objects
from stedfm_hf.metrics.summary import N_RESAMPLES, flatten, summarise
from stedfm_hf.runs import UserError

PLANES = datasets.Sequence(datasets.Sequence(datasets.Sequence(datasets.Value("float32"))))


class SegmentationMetrics(OfflineMetric):
    """IoU, Dice, AUPR and AUROC of masks, and optionally object metrics, averaged over images.

    Images are scored when they are added, and only their scores are stored: images may differ in size, and thousands
    of them need little memory. Undefined scores are counted and excluded from means.

    `compute(predictions=, references=, regions=None, sources=None)` takes one entry for each image: probability maps
    (L, H, W), the target (masks (L, H, W), or class numbers (H, W) with 255 = ignored for single labels), the mask of
    the pixels to score (H, W) or None, and the source image. `add` takes the same for one image as `prediction`,
    `reference`, `region` and `source`; `add_batch` takes the arguments of `compute`. For each metric, such as `iou`,
    the result holds

    - `iou`: mean over images, then over classes; None if undefined for all classes;
    - `iou_per_class`: mean over images of each class, float or None;
    - `undefined_iou`: number of images of each class without a defined score;
    - `iou_interval`: 95 % bootstrap interval of the mean over source images; None for fewer than two sources;

    and `images`, the number of images. Metrics are `iou, dice, aupr, auroc`, and `f1, pq, sq` of objects; in the
    reference protocol `iou, aupr, auroc, auap, weak_aupr`.

    Args:
        target_type: "single_label" (predicts the most probable class of each pixel), "multi_label" or "soft".
        classes: Names of the classes; None uses numbers.
        background: Number of the class to exclude from means over classes; None includes all classes.
        threshold: Probability above which a pixel is predicted; None is 0.5, or 0.25 in the reference protocol.
        protocol: Scoring protocol, "default" or "reference".
        objects: Whether to compute object metrics as well.
        min_area_px: Area of the smallest object, in pixels.
        n_resamples: Number of bootstrap resamples; 0 computes no intervals.
        **options: Options of `evaluate.Metric`.

    Raises:
        UserError: If the reference protocol is combined with single labels or objects. When images are added: if
            predictions, references and regions do not match.

    Example:
        >>> maps = [[[0.9, 0.8], [0.3, 0.1]]]
        >>> found = SegmentationMetrics().compute(predictions=[maps, maps], references=[[[[1, 0], [0, 0]]]] * 2)
        >>> found["iou"], found["iou_per_class"], found["undefined_iou"], found["images"]
        (0.5, [0.5], [0], 2)
    """

    def __init__(
        self,
        *,
        target_type: str = "multi_label",
        classes: Sequence[str] | None = None,
        background: int | None = None,
        threshold: float | None = None,
        protocol: ScoringProtocol = "default",
        objects: bool = False,
        min_area_px: int = 1,
        n_resamples: int = N_RESAMPLES,
        **options: Any,
    ) -> None:
        if target_type not in ("single_label", "multi_label", "soft"):
            raise UserError(f"target_type {target_type!r} is unknown; choose single_label, multi_label or soft")
        if protocol == "reference" and (objects or target_type == "single_label"):
            raise UserError("the reference protocol supports neither single labels nor object metrics")
        super().__init__(**options)
        if self.num_process > 1:
            raise UserError(
                "SegmentationMetrics does not support num_process above 1; gather the images in one process"
            )
        self.target_type, self.classes, self.background = target_type, classes, background
        self.threshold, self.protocol, self.objects, self.min_area_px = threshold, protocol, objects, min_area_px
        self.n_resamples = n_resamples
        self._reset()

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "IoU, Dice, AUPR, AUROC of masks, and F1 and panoptic quality of their objects.",
            "predictions: maps of every class; references: planes of every class, or class numbers.",
            {"predictions": PLANES, "references": PLANES},
        )

    def __len__(self) -> int:
        return len(self._pixels)

    def add(
        self,
        *,
        prediction: Any = None,
        reference: Any = None,
        region: Any = None,
        source: str | None = None,
        **names_of_batches: Any,
    ) -> None:
        """Score one image.

        Args:
            prediction: Probability maps (L, H, W).
            reference: Target of the image: masks (L, H, W), or class numbers (H, W) for single labels.
            region: Mask of the pixels to score (H, W); None scores all pixels.
            source: Source image; None treats the image as a separate source.
            **names_of_batches: `predictions` and `references` of one image, as passed by `evaluate.combine`.

        Raises:
            UserError: If prediction, reference and region do not match.
        """
        maps = _array(names_of_batches.pop("predictions", prediction))
        target = _array(names_of_batches.pop("references", reference))
        if names_of_batches:
            raise TypeError(f"SegmentationMetrics.add got unexpected arguments: {', '.join(names_of_batches)}")
        inside = None if region is None else _array(region).astype(bool)
        single = self.target_type == "single_label"
        if single:
            target, counted = planes_of(target, self.target_type, len(maps))
            inside = counted if inside is None else counted & inside
        scores = score_image(maps, target, inside, threshold=self.threshold, exclusive=single, protocol=self.protocol)
        if self._pixels and len(self._pixels[0].values["iou"]) != len(maps):
            raise UserError(
                f"all images must have {len(self._pixels[0].values['iou'])} classes, but this one has {len(maps)}"
            )
        if self.objects:
            predicted = predicted_pixels(maps, threshold=scores.threshold, exclusive=single)
            self._objects.append(score_objects(predicted, target, inside, min_area_px=self.min_area_px))
        self._pixels.append(scores)
        # No file path can have the name of this separate source.
        self._sources.append(f"/{len(self._sources)}" if source is None else source)

    def add_batch(
        self,
        *,
        predictions: Any = None,
        references: Any = None,
        regions: Sequence[Any] | None = None,
        sources: Sequence[str] | None = None,
        **unknown: Any,
    ) -> None:
        """Score several images.

        Args:
            predictions: Probability maps (L, H, W) of each image.
            references: Target of each image.
            regions: Mask of the pixels to score (H, W) or None, for each image.
            sources: Source image of each image.
            **unknown: Not accepted.

        Raises:
            UserError: If the numbers of entries differ, or prediction, reference and region of an image do not match.
        """
        if unknown:
            raise TypeError(f"SegmentationMetrics got unexpected arguments: {', '.join(unknown)}")
        given = {"predictions": predictions, "references": references, "regions": regions, "sources": sources}
        sizes = {name: len(each) for name, each in given.items() if each is not None}
        if len(set(sizes.values())) != 1 or not {"predictions", "references"} <= set(sizes):
            raise UserError(
                f"give one prediction, reference, region and source for each image; their numbers are {sizes}"
            )
        for number in range(sizes["predictions"]):
            self.add(
                prediction=predictions[number],
                reference=references[number],
                region=None if regions is None else regions[number],
                source=None if sources is None else str(sources[number]),
            )

    def compute(self, *, predictions: Any = None, references: Any = None, **others: Any) -> dict[str, Any]:
        """Average the scores of all added images, and remove the images.

        Args:
            predictions: Probability maps of further images to add first.
            references: Targets of these images.
            **others: `regions` and `sources` of these images.

        Returns:
            Means, numbers of undefined scores and confidence intervals; see the class.

        Raises:
            UserError: If there are no images, or images to add do not match.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references, **others)
        try:
            return self._summary()
        finally:
            self._reset()

    def _summary(self) -> dict[str, Any]:
        """Summarise the scores of pixels and objects."""
        if not self._pixels:
            raise UserError("there are no images to score; add at least one")
        count = len(self._pixels[0].values["iou"])
        names = list(self.classes) if self.classes is not None else [str(number) for number in range(count)]
        left_out = [] if self.background is None else [names[self.background]]
        found: dict[str, Any] = {"images": len(self._pixels)}
        groups: list[Sequence[Any]] = [self._pixels, *([self._objects] if self.objects else [])]
        for scores in groups:
            found |= flatten(summarise(scores, names, self._sources, exclude=left_out, n_resamples=self.n_resamples))
        return found

    def _reset(self) -> None:
        """Remove all images."""
        self._pixels: list[ImageScores] = []
        self._objects: list[ObjectScores] = []
        self._sources: list[str] = []


def _array(values: Any) -> np.ndarray:
    """Convert a list, an array, or a tensor on any device to an array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
