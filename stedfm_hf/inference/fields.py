"""Fields for segmentation: scaling, resampling to the pixel size of the model, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import sparse

from stedfm_hf.data.sources import ImageFile, Source
from stedfm_hf.images import ALL_SERIES, StedImage, list_series
from stedfm_hf.images.regions import RowArray, read_large
from stedfm_hf.inference.segmenter import Segmenter
from stedfm_hf.modeling.blending_stedfm import segment_rows
from stedfm_hf.modeling.image_processing_stedfm import apply_intensity_range, fit_scaling
from stedfm_hf.modeling.maps_stedfm import resampled_size
from stedfm_hf.runs import some_of


@dataclass(frozen=True)
class Field:
    """Field to segment: one channel of an image, or all channels for a model with more than one.

    Attributes:
        series: Name of the series.
        channel: Name of the channel; the names of more than one are joined by `+`.
        pixels: Pixels of the file (C, H, W); a `RowArray` if the file is large.
        limits: Intensities (C, 2) that become 0 and 1.
        clip: Whether scaled values are clipped to [0, 1].
        pixel_size_nm: Pixel size (y, x) in nm, or None.
        model_shape: Height and width of the input of the model, after resampling to the pixel size of the processor.
        notes: Sentences on what was assumed or left out while the file was read.
    """

    series: str
    channel: str
    pixels: np.ndarray
    limits: np.ndarray
    clip: bool
    pixel_size_nm: tuple[float, float] | None
    model_shape: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in the file, in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def scaled(self, top: int, bottom: int) -> np.ndarray:
        """Return scaled rows of the file (C, n, W) float32, as `StedFmImageProcessor.prepare` scales them."""
        return apply_intensity_range(self.pixels[:, top:bottom], self.limits, clip=self.clip)

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Return rows of the input of the model (C, n, w) float32, computed for each call to save memory."""
        if self.model_shape == self.shape:
            return self.scaled(top, bottom)
        down, across = (resampling(*lengths) for lengths in zip(self.shape, self.model_shape, strict=True))
        down = down[top:bottom]
        first, last = int(down.indices.min()), int(down.indices.max()) + 1
        planes = self.scaled(first, last)
        return np.stack([(across @ (down[:, first:last] @ plane).T).T for plane in planes])

    def no_signal(self) -> str | None:
        """Return why no channel has signal, or None.

        Rows are compared up to the first difference, so that a field with signal is hardly read and never copied.
        """
        any_finite = False
        for plane in self.pixels:
            first_value = None
            for row in plane:
                values = row[np.isfinite(row)]
                if values.size:
                    first_value = values[0] if first_value is None else first_value
                    if (values != first_value).any():
                        return None
            any_finite |= first_value is not None
        return "all pixels are equal" if any_finite else "no pixel is finite"


def read_fields(
    source: Source, segmenter: Segmenter, series: str | int | None, channel: str | int | None, scaling: dict[str, Any]
) -> Iterator[Field]:
    """Read the fields of a source, one by one.

    Args:
        source: File, or row of a data set.
        segmenter: Segmenter, which defines the scaling and the number of channels of a field.
        series: Name or index; None reads the only series; `"all"` reads every series and plane.
        channel: Name or index; None reads all channels.
        scaling: Settings of the processor.

    Raises:
        ValueError: If the file cannot be read or holds more than one series, the number of channels does not fit the
            model, or the pixel size is unknown and the model requires one.
    """
    for image in _read_images(source, series, channel):
        yield from fields_of(image, segmenter, scaling)


def _read_images(source: Source, series: str | int | None, channel: str | int | None) -> Iterator[StedImage]:
    """Read the images of a file or a data set row, one by one; for a damaged row, raise a ValueError."""
    if not isinstance(source, ImageFile):
        try:
            yield from source.read(None if series == ALL_SERIES else series, channel)
        except OSError as error:  # of the decoder: the row is damaged, the disk is not
            raise ValueError(str(error)) from error
    else:
        with source.named_errors():
            yield from _read_file(source, series, channel)


def _read_file(source: ImageFile, series: str | int | None, channel: str | int | None) -> Iterator[StedImage]:
    """Read the requested series of a file; all series one by one.

    Raises:
        ValueError: If the file cannot be read, or holds more than one series and none is requested.
    """
    if series == ALL_SERIES:
        yield from read_large(source.file, channel=channel)
    else:
        available = list_series(source.file) if series is None else []
        if len(available) > 1:
            raise ValueError(
                f"holds {len(available)} series ({some_of([each.name for each in available])}): --series all reads "
                "every series and plane, --series 0 the first"
            )
        yield from read_large(source.file, series=0 if series is None else series, channel=channel)


def fields_of(image: StedImage, segmenter: Segmenter, scaling: dict[str, Any]) -> Iterator[Field]:
    """Yield the fields of an image; the range of intensities is fitted to each whole channel."""
    processor = segmenter.processor
    array = image.array
    if not isinstance(array, RowArray):
        array = processor.process_image(array, input_data_format="channels_first")
    channels, model_channels = len(array), segmenter.model.config.num_channels
    if model_channels not in (1, channels):
        raise ValueError(f"has {channels} channels, and the model takes {model_channels}")
    limits, clip = fit_scaling(array, scaling, image.intensity_range)
    target, size = scaling["target_pixel_size_nm"], image.pixel_size_nm
    shape = model_shape = (array.shape[1], array.shape[2])
    if target is not None:
        if size is None:
            raise ValueError(f"the file has no pixel size, and the model needs {target} nm; write it into the file")
        model_shape = resampled_size(shape, (size[0] / target, size[1] / target))
    groups = [[number] for number in range(channels)] if model_channels == 1 else [list(range(channels))]
    for group in groups:
        channel_range = slice(group[0], group[-1] + 1)
        names = "+".join(image.channel_names[number] for number in group)
        yield Field(
            image.series, names, array[channel_range], limits[channel_range], clip, size, model_shape, image.notes
        )


@lru_cache(maxsize=2)
def resampling(source: int, target: int) -> sparse.csr_array:
    """Return the weights (target, source) of linear resampling with antialiasing along an axis.

    Example:
        >>> resampling(2, 4).toarray().tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    scale = source / target
    reach = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), source)
    positions = first[:, None] + np.arange((last - first).max())
    weights = np.where(positions < last[:, None], 1 - np.abs(positions + 0.5 - centres[:, None]) / reach, 0).clip(
        min=0
    )
    weights /= weights.sum(axis=1, keepdims=True)
    row, tap = np.nonzero(weights)
    entries = (weights[row, tap].astype(np.float32), (row, positions[row, tap]))
    return sparse.csr_array(entries, shape=(target, source))


def probability_bands(
    segmenter: Segmenter, field: Field, *, tile_size: int, tile_overlap: int, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the class probabilities of a field in bands of rows, from top to bottom, at the pixels of the file.

    Yields:
        Number of the first row of the band, and its probabilities (classes, rows, width) float32.

    Raises:
        ValueError: If a probability is NaN or infinite.
    """
    bands = segment_rows(
        segmenter.model,
        field.rows,
        field.model_shape,
        tile_size=tile_size,
        tile_overlap=tile_overlap,
        batch_size=batch_size,
    )
    for top, band in resized_bands(bands, field.model_shape, field.shape):
        if not np.isfinite(band).all():
            raise ValueError("the probabilities are not finite; try --precision float32")
        yield top, band


def resized_bands(
    bands: Iterator[tuple[int, np.ndarray]], source: tuple[int, int], target: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Resize bands of a map (L, h, w) to bands of a map (L, H, W) by linear interpolation; the borders coincide.

    Example:
        >>> halves = iter([(0, np.array([[[0.0]]])), (1, np.array([[[1.0]]]))])
        >>> np.concatenate([band for _, band in resized_bands(halves, (2, 1), (4, 1))], axis=1)[0, :, 0].tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    if source == target:
        yield from bands
        return
    (above, down), (left, across) = (_positions(*lengths) for lengths in zip(source, target, strict=True))
    below, right = np.minimum(above + 1, source[0] - 1), np.minimum(left + 1, source[1] - 1)
    # A target row needs the source rows above and below it, so source rows are kept until no later row needs them.
    kept_rows, first_kept, next_row = None, 0, 0
    for top, band in bands:
        kept_rows = band if kept_rows is None else np.concatenate([kept_rows, band], axis=1)
        end = top + band.shape[1]
        ready = int(np.searchsorted(below, end))
        if ready > next_row:
            weight = down[next_row:ready, None]
            rows = (
                kept_rows[:, above[next_row:ready] - first_kept] * (1 - weight)
                + kept_rows[:, below[next_row:ready] - first_kept] * weight
            )
            yield next_row, rows[:, :, left] * (1 - across) + rows[:, :, right] * across
            next_row = ready
        keep = min(int(above[next_row]), end) if next_row < target[0] else end
        kept_rows, first_kept = kept_rows[:, keep - first_kept :], keep


def _positions(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for every target pixel, the source pixel before it and the distance to it."""
    centres = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    before = centres.astype(np.int64)
    return before, (centres - before).astype(np.float32)
