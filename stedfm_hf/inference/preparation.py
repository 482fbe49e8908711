"""Read a source and scale its images for a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, cast

import numpy as np

from stedfm_hf.data.sources import Source
from stedfm_hf.images import StedImage
from stedfm_hf.images.regions import RowArray
from stedfm_hf.inference.loading import Loaded
from stedfm_hf.modeling.image_processing_stedfm import apply_intensity_range, fit_scaling

Fact = dict[str, Any]
"""Facts about an image for its rows: path, series, channel, ...; `image_number` counts the images of its file from 1,
and `size` is the size of the input of the model."""


@dataclass(frozen=True)
class Prepared:
    """Source that was read: its scaled images with the facts for their rows and notes on the file, or an error."""

    path: str
    images: tuple[tuple[dict[str, Any], np.ndarray], ...]
    notes: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Preparation:
    """Function that reads a source and scales its images; called in the reading threads."""

    loaded: Loaded
    series: str | int | None
    channel: str | int | None
    scaling: dict[str, Any]

    def __call__(self, source: Source) -> Prepared:
        """Read and scale a source; an error fails this source only."""
        try:
            images = source.read(self.series, self.channel)
            notes = tuple(dict.fromkeys(note for image in images for note in image.notes))
            return Prepared(source.path, tuple(self._images(source, images)), notes)
        except (ValueError, OSError, MemoryError) as error:
            return Prepared(source.path, (), error=str(error) or type(error).__name__)

    def _images(self, source: Source, images: list[StedImage]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Scale the images of a source, one by one, and return them with the facts for their rows.

        Models with one channel get each channel as a separate image (1, H, W); others need images with their number of
        channels.
        """
        channels, numbers = self.loaded.model.config.num_channels, count(1)
        while images:
            image = images.pop(0)  # the pixels of the file are freed as soon as they are scaled
            scaled = self._scaled(image)
            facts = {
                "origin": source,
                "path": source.path,
                "series": image.series,
                "height": image.array.shape[1],
                "width": image.array.shape[2],
                "pixel_size_nm": list(image.pixel_size_nm) if image.pixel_size_nm else None,
            }
            if channels == 1:
                for channel, name in enumerate(image.channel_names):
                    yield facts | {"channel": name, "image_number": next(numbers)}, scaled[channel : channel + 1]
            elif len(scaled) == channels:
                yield facts | {"channel": "+".join(image.channel_names), "image_number": next(numbers)}, scaled
            else:
                raise ValueError(f"has {len(scaled)} channels, and the model takes {channels}")

    def _scaled(self, image: StedImage) -> np.ndarray:
        """Return the scaled image (C, H, W) float32; rows of a large one are scaled when they are used.

        A large image that must be resampled is held as a whole.
        """
        array, processor = image.array, self.loaded.processor
        if not isinstance(array, RowArray) or self.scaling["target_pixel_size_nm"] is not None:
            whole = replace(image, array=np.asarray(array))
            return processor.prepare(whole, channel=None, **self.scaling)
        limits, clip = fit_scaling(array, self.scaling, image.intensity_range)
        if self.scaling["normalization"] in ("fixed", "none"):
            # The other scalings have read every pixel: a damaged file must fail here, not between the tiles.
            deque((row for plane in array for row in plane), maxlen=0)

        def read(top: int, bottom: int) -> np.ndarray:
            return apply_intensity_range(array[:, top:bottom], limits, clip=clip)

        return cast(np.ndarray, RowArray(read, array.shape, np.dtype(np.float32)))
