"""Of masks: what their pixels and objects score, image by image."""

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
    """IoU, Dice, AUPR and AUROC of masks for each class and image, then means over images; objects if asked for.

    Images are scored when they are added, and only their scores are kept: they may differ in size, and thousands of
    them need no memory. An undefined score is counted and never averaged in.

    `compute(predictions=, references=, regions=None, sources=None)` takes for each image maps (L, H, W), its target
    (planes (L, H, W), or class numbers (H, W) with 255 = left out for single labels), true where pixels count (H, W)
    or None, and its source image. `add` takes `region=` and `source=`, `add_batch` what `compute` takes. For every
    score it returns

    - `iou`: the mean over images of each class, then over classes; None where no class has one;
    - `iou_per_class`: list of floats or None; `undefined_iou`: images of each class that were left out;
    - `iou_interval`: 95 % interval of the mean, by a bootstrap over sources; None of fewer than two;

    and `images`, how many there were. Scores are `iou, dice, aupr, auroc`; `f1, pq, sq` of objects; by the reference's
    rules `iou, aupr, auroc, auap, weak_aupr`.

    Args:
        target_type: "single_label" (the most probable class of a pixel is predicted), "multi_label" or "soft".
        classes: names, for the summary; None: numbers.
        background: number of the class that the mean over classes leaves out; None: all count.
        threshold: of a predicted pixel; None: 0.5, by the reference's rules 0.25.
        protocol: "default" or "reference".
        objects: whether objects are scored too.
        min_area_px: components of fewer pixels are no objects.
        n_resamples: of sources, for the intervals; 0: no intervals, for a check during training.
        **options: those of `evaluate.Metric`.

    Raises:
        UserError: the reference's rules were asked for with single labels or objects, which they do not know; when
            images are added: maps, targets and regions do not fit each other.

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
            raise UserError(f"target_type {target_type!r} has no masks; choose single_label, multi_label or soft")
        if protocol == "reference" and (objects or target_type == "single_label"):
            raise UserError(
                "the reference's rules know planes of classes and pixels only: no single labels, no objects"
            )
        super().__init__(**options)
        if self.num_process > 1:
            raise UserError("SegmentationMetrics keeps scores in this process; gather the images of the others first")
        self.target_type, self.classes, self.background = target_type, classes, background
        self.threshold, self.protocol, self.objects, self.min_area_px = threshold, protocol, objects, min_area_px
        self.n_resamples = n_resamples
        self._forget()

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
        """Score one image."""
        # `evaluate.combine` passes single images by the names of batches.
        maps = _array(names_of_batches.pop("predictions", prediction))
        target = _array(names_of_batches.pop("references", reference))
        if names_of_batches:
            raise TypeError(f"SegmentationMetrics.add knows no {', '.join(names_of_batches)}")
        inside = None if region is None else _array(region).astype(bool)
        single = self.target_type == "single_label"
        if single:
            target, counted = planes_of(target, self.target_type, len(maps))
            inside = counted if inside is None else counted & inside
        scores = score_image(maps, target, inside, threshold=self.threshold, exclusive=single, protocol=self.protocol)
        if self._pixels and len(self._pixels[0].values["iou"]) != len(maps):
            raise UserError(f"an image of {len(maps)} classes follows on some of {len(self._pixels[0].values['iou'])}")
        if self.objects:
            predicted = predicted_pixels(maps, threshold=scores.threshold, exclusive=single)
            self._objects.append(score_objects(predicted, target, inside, min_area_px=self.min_area_px))
        self._pixels.append(scores)
        # An image without a source is one of its own, whose name no other can have.
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
        """Score several images."""
        if unknown:
            raise TypeError(f"SegmentationMetrics knows no {', '.join(unknown)}")
        given = {"predictions": predictions, "references": references, "regions": regions, "sources": sources}
        sizes = {name: len(each) for name, each in given.items() if each is not None}
        if len(set(sizes.values())) != 1 or not {"predictions", "references"} <= set(sizes):
            raise UserError(
                f"each image needs a prediction and a reference, and all or none a region and a source: {sizes}"
            )
        for number in range(sizes["predictions"]):
            self.add(
                prediction=predictions[number],
                reference=references[number],
                region=None if regions is None else regions[number],
                source=None if sources is None else str(sources[number]),
            )

    def compute(self, *, predictions: Any = None, references: Any = None, **others: Any) -> dict[str, Any]:
        """Means over all images that were added, which are then forgotten."""
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references, **others)
        try:
            return self._summary()
        finally:
            self._forget()

    def _summary(self) -> dict[str, Any]:
        if not self._pixels:
            raise UserError("there are no images to score; add some first")
        count = len(self._pixels[0].values["iou"])
        names = list(self.classes) if self.classes is not None else [str(number) for number in range(count)]
        left_out = [] if self.background is None else [names[self.background]]
        found: dict[str, Any] = {"images": len(self._pixels)}
        kinds: list[Sequence[Any]] = [self._pixels, *([self._objects] if self.objects else [])]
        for scores in kinds:
            found |= flatten(summarise(scores, names, self._sources, exclude=left_out, n_resamples=self.n_resamples))
        return found

    def _forget(self) -> None:
        self._pixels: list[ImageScores] = []
        self._objects: list[ObjectScores] = []
        self._sources: list[str] = []


def _array(values: Any) -> np.ndarray:
    """An array of a list, an array, or a tensor on any device."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
