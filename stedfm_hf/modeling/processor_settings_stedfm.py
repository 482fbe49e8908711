"""Settings of the image processor: names, types and checks."""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

NORMALIZATIONS = ("percentile", "minmax", "fixed", "none")


class StedFmImageProcessorKwargs(TypedDict, total=False):
    """Settings of `StedFmImageProcessor`, which are saved with it and can be overridden in every call."""

    normalization: str
    percentiles: list[float | int] | tuple[float | int, float | int]
    intensity_range: Any
    channel: int | None
    pixel_size_nm: Any
    target_pixel_size_nm: float | int | None
    do_pad: bool
    patch_size: int
    size: Any
    do_reduce_labels: bool
    input_data_format: str | None
    return_tensors: Any


def size_dict(size: Any) -> dict[str, int]:
    """Return a size as a dictionary, as transformers has it."""
    found = {"height": size, "width": size} if isinstance(size, int) else dict(size)
    if set(found) != {"height", "width"}:
        raise ValueError(f'size must be a number of pixels or {{"height": ..., "width": ...}}, got {size!r}')
    return {name: int(found[name]) for name in ("height", "width")}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise a ValueError for settings whose value is unknown or out of range."""
    choices = {"normalization": NORMALIZATIONS, "input_data_format": (None, "channels_first", "channels_last")}
    for name, known in choices.items():
        if settings[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {settings[name]!r}")
    low, high = settings["percentiles"] if len(settings["percentiles"]) == 2 else (1, 0)
    if not 0 <= low < high <= 100:
        raise ValueError(
            f"percentiles must be two numbers from 0 to 100, the lower first, got {settings['percentiles']}"
        )
    if settings["patch_size"] < 1:
        raise ValueError(f"patch_size must be at least 1, got {settings['patch_size']}")
    for name in ("pixel_size_nm", "target_pixel_size_nm"):
        if settings[name] is not None and not (np.asarray(settings[name], dtype=np.float64) > 0).all():
            raise ValueError(f"{name} must be positive, got {settings[name]}")


__all__ = ["NORMALIZATIONS", "StedFmImageProcessorKwargs", "check_settings", "size_dict"]
