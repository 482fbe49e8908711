"""Function that measures generated and real images: attributes, and the predictions of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stedfm_hf.generation.measures import MEASURES, measure_images
from stedfm_hf.inference.loading import Classifier
from stedfm_hf.inference.predictions import predict, prediction_columns


@dataclass(frozen=True)
class Measurer:
    """Function that measures images.

    Attributes:
        classifier: Classifier or regression model whose predictions are measured, too, such as one of image quality.

    Example:
        >>> measure = Measurer()
        >>> measure(np.full((2, 64, 64), 0.25), pixel_size_nm=20.0).shape == (2, len(measure.names))
        True
    """

    classifier: Classifier | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attributes: `MEASURES`, then `p_<class>` or `value_<name>`."""
        return (*MEASURES, *(() if self.classifier is None else prediction_columns(self.classifier)))

    def __call__(self, images: np.ndarray | Sequence[np.ndarray], *, pixel_size_nm: float) -> np.ndarray:
        """Measure scaled images (n, H, W) in [0, 1]; returns (n, k) float64 in the order of `names`."""
        values = measure_images(images, pixel_size_nm=pixel_size_nm)
        if self.classifier is None:
            return values
        scaling = {"normalization": "none", "pixel_size_nm": pixel_size_nm}
        ready = [self.classifier.processor.prepare(np.asarray(image, np.float32), **scaling) for image in images]
        predictions = list(predict(self.classifier, ready, tile_size="auto", batch_size=16))
        return np.column_stack([values, np.stack(predictions)])
