"""Image processor of STED-FM: scales pixels of any type to [0, 1] without an 8-bit step."""

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.processing_utils import ImagesKwargs

from .axes_stedfm import channel_axis
from .card_stedfm import CARD, has_empty_card
from .io_stedfm import read_image
from .maps_stedfm import most_probable_classes, prepare_map, resampled_size
from .processor_settings_stedfm import NORMALIZATIONS, StedFmImageProcessorKwargs, check_settings, size_dict

try:
    from PIL import Image
except ImportError:  # Pillow is optional here; a checker does not know a module that may be None
    Image = None  # type: ignore[assignment]

Normalization = Literal["percentile", "minmax", "fixed", "none"]
_DONE_ANYWAY = (("data_format", "channels_first"), ("data_format", "ChannelDimension.FIRST"), ("device", "cpu"))
_SAVED_WITH_SETTINGS = ("image_processor_type", "auto_map", "processor_class", "feature_extractor_type")
_AT_ONCE = 2**22
"""Largest number of pixels whose percentiles are computed at once, because they are copied."""
_SCALED_AT_ONCE = 2**20
"""Largest number of pixels that are scaled at once, because they are copied."""


def fit_intensity_range(
    array: np.ndarray,
    normalization: str = "percentile",
    percentiles: Sequence[float] = (0.1, 99.9),
    intensity_range: Any = None,
) -> np.ndarray:
    """Find the intensities that become 0 and 1, for each channel.

    Args:
        array: (C, H, W), any real dtype; non-finite values are ignored.
        normalization: `"percentile"`, `"minmax"`, `"fixed"` (takes `intensity_range`) or `"none"` (0 and the largest
            value of an integer dtype; 0 and 1 for floats, which `apply_intensity_range` then does not change).
        percentiles: Lower and upper percentile, in percent.
        intensity_range: (2,) or (C, 2), lower and upper intensity for `"fixed"`.

    Returns:
        (C, 2) float64. If the percentiles of a sparse image coincide, its minimum and maximum are used; these are
        equal only for an image without contrast.

    Raises:
        ValueError: For an unknown `normalization`, or `"fixed"` without a range.
    """
    channels = array.shape[0]
    if normalization == "fixed":
        if intensity_range is None:
            raise ValueError('normalization="fixed" needs intensity_range=(low, high)')
        limits = np.broadcast_to(np.asarray(intensity_range, dtype=np.float64), (channels, 2))
        if not (np.isfinite(limits).all() and (limits[:, 0] < limits[:, 1]).all()):
            raise ValueError(
                f"intensity_range must be finite with low < high, got {np.asarray(intensity_range).tolist()}"
            )
        return limits
    if normalization == "none":
        high = np.iinfo(array.dtype).max if np.issubdtype(array.dtype, np.integer) else 1.0
        return np.broadcast_to(np.array([0.0, high]), (channels, 2))
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {normalization!r}")
    limits = np.zeros((channels, 2))
    for channel, plane in enumerate(array):
        if not (count := sum(values.size for values in _finite_parts(plane))):
            continue
        if normalization == "percentile":
            limits[channel] = _percentiles(plane, count, percentiles)
        if limits[channel, 0] >= limits[channel, 1] or normalization == "minmax":
            ends = [(values.min(), values.max()) for values in _finite_parts(plane) if values.size]
            limits[channel] = min(low for low, _ in ends), max(high for _, high in ends)
    return limits


def _finite_parts(plane: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the finite values of a plane (H, W) as flat arrays, some rows at a time."""
    step = max(1, _AT_ONCE * len(plane) // max(1, plane.size))
    for top in range(0, len(plane), step):
        rows = plane[top : top + step]
        yield rows[np.isfinite(rows)] if rows.dtype.kind == "f" else rows.ravel()


def _percentiles(plane: np.ndarray, count: int, percentiles: Sequence[float]) -> np.ndarray:
    """Compute `np.percentile` of the `count` finite values of a plane, without copying a large plane."""
    if plane.size <= _AT_ONCE:
        return np.percentile(next(_finite_parts(plane)), percentiles)
    values = []
    # As in NumPy, a percentile is interpolated between the two values around its position in sorted order.
    for position in np.true_divide(percentiles, 100) * (count - 1):
        first = int(position)
        last = min(first + 1, count - 1)
        # Only the rarer side is held: for the usual percentiles a thousandth of the values.
        if position < count / 2:
            low, high = _outermost(plane, last + 1, lowest=True)[[first, last]]
        else:
            low, high = _outermost(plane, count - first, lowest=False)[[0, last - first]]
        step, fraction = high - low, position - first
        # Both forms agree up to rounding; NumPy switches at one half, too.
        values.append(low + step * fraction if fraction < 0.5 else high - step * (1 - fraction))
    return np.array(values)


def _outermost(plane: np.ndarray, number: int, lowest: bool) -> np.ndarray:
    """Return the lowest or highest `number` finite values of a plane, sorted."""
    extremes = np.empty(0, plane.dtype)
    for values in _finite_parts(plane):
        if len(extremes) == number:
            values = values[values < extremes.max() if lowest else values > extremes.min()]
        extremes = np.concatenate([extremes, values])
        if len(extremes) > number:
            extremes = (
                np.partition(extremes, number)[:number] if lowest else np.partition(extremes, -number)[-number:]
            ).copy()
    return np.sort(extremes)


def fit_scaling(array: np.ndarray, settings: Mapping[str, Any], known_range: Any = None) -> tuple[np.ndarray, bool]:
    """Find the scaling of an image from the settings of a processor.

    Args:
        array: (C, H, W), any real dtype.
        settings: `normalization`, `percentiles` and `intensity_range`.
        known_range: Intensity range of the larger image that this is a crop of (`StedImage.intensity_range`); it is
            not fitted again.

    Returns:
        `limits` and `clip` of `apply_intensity_range`.
    """
    normalization, intensity_range = settings["normalization"], settings["intensity_range"]
    if known_range is not None and normalization in ("percentile", "minmax"):
        normalization, intensity_range = "fixed", known_range
    limits = fit_intensity_range(array, normalization, settings["percentiles"], intensity_range)
    return limits, not (normalization == "none" and np.issubdtype(array.dtype, np.floating))


def apply_intensity_range(array: np.ndarray, limits: np.ndarray, clip: bool = True) -> np.ndarray:
    """Scale each channel so that its `limits` become 0 and 1.

    Args:
        array: (C, H, W), any real dtype.
        limits: (C, 2) from `fit_intensity_range`.
        clip: Whether values are clipped to [0, 1].

    Returns:
        (C, H, W) float32, always finite: NaN becomes 0, infinities become the ends of the range, and a channel without
        contrast becomes 0.
    """
    # float32 holds integers up to 2^24 exactly; larger ones, and float64, may sit on an offset that it cannot resolve.
    narrow = array.dtype != np.float64 and (array.dtype.kind == "f" or np.abs(limits).max() < 2**24)
    exact = np.float32 if narrow else np.float64
    scaled = np.empty(array.shape, dtype=np.float32)
    rows = max(1, _SCALED_AT_ONCE // max(1, array.shape[2]))
    for channel, (low, high) in enumerate(limits):
        if high <= low:
            scaled[channel] = 0.0
            continue
        for top in range(0, array.shape[1], rows):  # temporary arrays of a whole plane would triple the memory
            part = array[channel][top : top + rows].astype(exact)
            part -= exact(low)
            part /= exact(high - low)
            target = scaled[channel, top : top + rows]
            target[...] = np.nan_to_num(part, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
            if clip:
                np.clip(target, 0.0, 1.0, out=target)
    return scaled


def resample(array: np.ndarray, factors: tuple[float, float]) -> np.ndarray:
    """Resize (C, H, W) float32 by `factors` (y, x), bilinear with antialiasing, to at least one pixel."""
    size = resampled_size((array.shape[1], array.shape[2]), factors)
    if size == array.shape[1:]:
        return array
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(array)[None], size=size, mode="bilinear", antialias=True
    )
    return resized[0].numpy()


def pad_to_multiple(array: np.ndarray, multiple: int) -> np.ndarray:
    """Mirror (C, H, W) at the bottom and right edge until height and width are multiples of `multiple`."""
    _, height, width = array.shape
    if height % multiple == 0 and width % multiple == 0:
        return array
    return np.pad(array, ((0, 0), (0, -height % multiple), (0, -width % multiple)), mode="symmetric")


class StedFmImageProcessor(PilBackend):
    """Image processor: converts microscope images to `pixel_values` for STED-FM.

    Accepts arrays and tensors (H, W), (C, H, W), (H, W, C) or batches of the latter two, PIL images (L, I;16, I, F,
    RGB), file paths and `StedImage`, with 8- or 16-bit, signed or float pixels, alone or in lists. Three equal planes
    are a grey image stored in colour and become one channel, in every axis order, unless `channel` selects one of
    them. Pixels are never converted to 8 bit. A `StedImage` with an `intensity_range` (a crop of a data set) is
    scaled by this range instead of `"percentile"` or `"minmax"`, because its image was scaled as a whole.

    Keyword Args:
        normalization (str): Scaling to [0, 1], fitted once to the whole image for each channel: `"percentile"`
            (default, the scaling of the pretraining crops), `"minmax"`, `"fixed"` (`intensity_range` becomes 0 and 1,
            which keeps brightness comparable between images) or `"none"` (already scaled: integers are divided by the
            largest value of their dtype, floats are not changed).
        percentiles (tuple of float): Lower and upper percentile; the published crops used 0.1 and 99.9.
        intensity_range (pair of float): Lower and upper intensity for `"fixed"`, or one such pair per channel.
        channel (int): Index of the channel to keep; None keeps all.
        pixel_size_nm (float or pair of float): Pixel size of the image in nm, one number or (y, x); by default that
            of a `StedImage`.
        target_pixel_size_nm (float or pair of float): Pixel size in nm to which images are resampled; None does not
            resample.
        do_pad (bool): Whether to mirror the image at the bottom and right edge up to a multiple of `patch_size`.
        patch_size (int): Patch size of the model.
        size (int or dict): Size of the training crops, as `{"height": int, "width": int}`, for scripts that crop
            images themselves; the processor does not resize.
        do_reduce_labels (bool): Whether `segmentation_maps` count classes from 1 and 0 is ignored; 0 becomes 255, and
            all others are reduced by one.
        input_data_format (str): `"channels_first"` or `"channels_last"` for 3-D arrays; None decides by
            `axes_stedfm.channel_axis`: last where the last axis is the shortest and at most 4 long, else first.

    Raises:
        ValueError: If an image is empty, has a complex or object dtype, does not have the channel, or has no pixel
            size although `target_pixel_size_nm` needs one.

    Example:
    ```python
    >>> import numpy as np
    >>> from stedfm_hf import StedFmImageProcessor
    >>> processor = StedFmImageProcessor()
    >>> counts = np.arange(224 * 224, dtype=np.uint16).reshape(224, 224)
    >>> processor(counts, return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 1, 224, 224])

    ```
    """

    valid_kwargs: Any = StedFmImageProcessorKwargs
    model_input_names = ["pixel_values"]
    _auto_class = "AutoImageProcessor"
    # Images in [0, 1] are not standardised. Scripts of transformers read these two members.
    image_mean = (0.0,)
    image_std = (1.0,)

    normalization = "percentile"
    percentiles = (0.1, 99.9)
    intensity_range = None
    channel = None
    pixel_size_nm = None
    target_pixel_size_nm = None
    do_pad = True
    patch_size = 16
    size: Any = 224
    do_reduce_labels = False
    input_data_format = None
    return_tensors = None

    def __init__(self, **kwargs: Any) -> None:
        settings = {name: value for name, value in kwargs.items() if name in self._names()}
        self._refuse({name: value for name, value in kwargs.items() if name not in (*settings, *_SAVED_WITH_SETTINGS)})
        validate_typed_dict(self.valid_kwargs, settings)
        super().__init__(**settings)
        self.size = size_dict(self.size)
        check_settings(vars(self))

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Create a processor from saved settings and changes.

        Args:
            image_processor_dict: Saved settings.
            kwargs: Changed settings, and `return_unused_kwargs`.

        Raises:
            TypeError: For a setting of other image processors, or one that is misspelt.
        """
        own = set(cls._names())
        # A pipeline passes the arguments of its model on to here; those are left out without an error.
        other = {name for name in kwargs if name in ImagesKwargs.__annotations__ or get_close_matches(name, own)} - own
        if not kwargs.get("return_unused_kwargs"):
            cls._refuse({name: kwargs[name] for name in other})
        kwargs = {name: value for name, value in kwargs.items() if name not in other}
        return super().from_dict(image_processor_dict, **kwargs)

    @classmethod
    def _refuse(cls, settings: Mapping[str, Any]) -> None:
        """Raise a TypeError for unknown settings, unless they ask for nothing or for what is done anyway."""
        settings = {name: value for name, value in settings.items() if (name, str(value)) not in _DONE_ANYWAY}
        unknown = sorted(name for name, value in settings.items() if value is not None and value is not False)
        if unknown:
            raise TypeError(
                f"unknown setting {', '.join(unknown)}; there are {', '.join(cls._names())}. Images are not resized: "
                "use target_pixel_size_nm, or crop them"
            )

    def _upload_modified_files(self, working_dir: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Upload a folder without the empty card that transformers would add."""
        if has_empty_card(Path(working_dir)):
            Path(working_dir, CARD).unlink(missing_ok=True)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(StedFmImageProcessorKwargs.__annotations__)

    def _standardize_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        return kwargs  # the base class would add sizes and colour statistics that mean nothing here

    def preprocess(self, images: Any, segmentation_maps: Any = None, **kwargs: Any) -> BatchFeature:
        """Prepare images as input of the model; called by `processor(images, ...)`.

        Args:
            images: Image or list of images (see the class).
            segmentation_maps: Class indices (H, W) of every pixel, one array, tensor or PIL image for each image.
            kwargs: Settings of the class for this call, and `return_tensors="pt" | "np"`.

        Returns:
            `pixel_values` (B, C, H, W) float32 in [0, 1], and with `segmentation_maps` `labels` (B, H, W) int64, which
            are 255 (ignored) where the image was padded. Without `return_tensors`, lists of (C, H, W) and (H, W).

        Raises:
            ValueError: If an image cannot be used, or images of different sizes are to be returned as one tensor.
        """
        settings = self._settings(kwargs)
        prepared = [self._prepare(image, settings) for image in self._flatten(images)]
        if not prepared:
            raise ValueError("there is no image; pass one or more")
        sizes = [(image.shape[1], image.shape[2]) for image in prepared]
        if settings["do_pad"]:
            prepared = [pad_to_multiple(image, settings["patch_size"]) for image in prepared]
        shapes = {image.shape for image in prepared}
        if settings["return_tensors"] is not None and len(shapes) > 1:
            listed = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes))
            raise ValueError(
                f"images of different sizes ({listed}) cannot be stacked into a batch: process them one at a time"
            )
        data: dict[str, Any] = {"pixel_values": prepared}
        if segmentation_maps is not None:
            maps = self._flatten(segmentation_maps, axes=2)
            if len(maps) != len(prepared):
                raise ValueError(f"{len(maps)} segmentation maps for {len(prepared)} images; give one for each image")
            each = zip(maps, sizes, prepared, strict=True)
            data["labels"] = [prepare_map(one, size, image.shape[1:], settings) for one, size, image in each]
        return BatchFeature(data, tensor_type=settings["return_tensors"])

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Any = None, pixel_size_nm: Any = None
    ) -> list[torch.Tensor]:
        """Return the most probable class of every pixel.

        Args:
            outputs: Output of a segmentation model, with `logits` (B, L, H, W).
            target_sizes: Heights and widths of the B images, in pixels. What the processor added at the edges is cut
                off, and resampling (`target_pixel_size_nm`) is undone. Logits of images that this processor did not
                make are resized. None keeps the size of the logits.
            pixel_size_nm: Pixel size of the images in nm, if the processor resampled them; None for the setting.

        Returns:
            B maps of class indices (H, W), int64.

        Raises:
            ValueError: If the number of sizes is not B, or images were resampled and their pixel size is unknown.
        """
        wanted = target_sizes is not None and self.target_pixel_size_nm is not None
        factors = self._factors(self.pixel_size_nm if pixel_size_nm is None else pixel_size_nm) if wanted else None
        return most_probable_classes(outputs.logits, target_sizes, factors, self.patch_size)

    def prepare(self, image: Any, **kwargs: Any) -> np.ndarray:
        """Scale and resample one image without padding it, as input of tiling.

        Args:
            image: Image (see the class).
            kwargs: Settings of the class for this call.

        Returns:
            (C, H, W) float32 in [0, 1], always finite.
        """
        return self._prepare(image, self._settings(kwargs))

    def _settings(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        names = [name for name in self._names() if name != "size"]  # see the class: it changes no image
        self._refuse({name: value for name, value in kwargs.items() if name not in names})
        kwargs = {name: value for name, value in kwargs.items() if name in names}
        validate_typed_dict(self.valid_kwargs, kwargs)
        settings = {name: kwargs.get(name, getattr(self, name)) for name in names}
        check_settings(settings)
        return settings

    def _factors(self, pixel_size: Any, target: Any = None) -> tuple[float, float] | None:
        """Return the factors (y, x) of the resampling to a pixel size in nm, or None without resampling."""
        target = self.target_pixel_size_nm if target is None else target
        if target is None:
            return None
        if pixel_size is None:
            raise ValueError(f"resampling to {target} nm needs the pixel size of the image: give pixel_size_nm=...")
        sizes = np.broadcast_to(np.asarray(pixel_size, dtype=np.float64), (2,))
        targets = np.broadcast_to(np.asarray(target, dtype=np.float64), (2,))
        return float(sizes[0] / targets[0]), float(sizes[1] / targets[1])

    def _prepare(self, image: Any, settings: dict[str, Any]) -> np.ndarray:
        """Select a channel of an image, scale it, and resample it to the pixel size of the model.

        Args:
            image: Path, StedImage, or array. The pixel size of a StedImage is used unless the settings give one.
            settings: Settings of the processor for this call.

        Returns:
            (C, H, W) float32.

        Raises:
            ValueError: If the channel does not exist, or the pixel size for resampling is unknown.
        """
        pixel_size, known_range = settings["pixel_size_nm"], None
        if isinstance(image, (str, Path)):
            image = read_image(image)
        if hasattr(image, "array"):  # a StedImage, of the package or of a Hub folder
            pixel_size = image.pixel_size_nm if pixel_size is None else pixel_size
            known_range = getattr(image, "intensity_range", None)
            image = image.array
            array = self.process_image(image, input_data_format="channels_first")  # by the definition of StedImage
        else:
            array = self.process_image(image, input_data_format=settings["input_data_format"])
            if settings["channel"] is None and len(array) == 3 and all(np.array_equal(array[0], k) for k in array[1:]):
                array = array[:1]
        channel = settings["channel"]
        if channel is not None:
            if not 0 <= channel < array.shape[0]:
                raise ValueError(f"there is no channel {channel}: the image has {array.shape[0]}")
            array = array[channel : channel + 1]
        limits, clip = fit_scaling(array, settings, known_range)
        scaled = apply_intensity_range(array, limits, clip)
        target = settings["target_pixel_size_nm"]
        factors = None if target is None else self._factors(pixel_size, target)
        return scaled if factors is None else resample(scaled, factors)

    def process_image(self, image: Any, input_data_format: str | None = None, **kwargs: Any) -> np.ndarray:
        """Convert one raw image to (C, H, W) in its dtype, without changing values."""
        from_pil = Image is not None and isinstance(image, Image.Image)
        if from_pil:
            image = image.convert("RGB") if image.mode in ("P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV") else image
            image = image.getchannel("L") if image.mode == "LA" else image
        elif isinstance(image, torch.Tensor):
            image = image.detach().cpu()
            image = image.float() if image.dtype in (torch.bfloat16, torch.float16) else image
        if image is None:
            raise ValueError("an image is None; pass an array, a tensor, a PIL image or a path")
        array = np.asarray(image)
        if array.dtype == bool:
            array = array.astype(np.uint8)
        if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
            raise ValueError(f"images must hold real numbers, got dtype {array.dtype}")
        if array.ndim == 2:
            array = array[None]
        elif array.ndim != 3:
            raise ValueError(f"an image is (H, W) or (C, H, W), got shape {array.shape}")
        elif from_pil or input_data_format == "channels_last":
            array = np.moveaxis(array, -1, 0)
        elif input_data_format is None:
            array = np.moveaxis(array, channel_axis(array.shape), 0)
        if not array.size:
            raise ValueError(f"the image has no pixels: shape {array.shape}")
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _flatten(self, images: Any, axes: int = 3) -> list[Any]:
        """Return a list of single images of up to `axes` axes from an image, a batch of them or a list of these."""
        if isinstance(images, (list, tuple)):
            return [single for item in images for single in self._flatten(item, axes)]
        if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == axes + 1:
            return list(cast(Sequence[Any], images))
        return [images]


__all__ = ["StedFmImageProcessor"]
