"""Selection of the images of a file by series, channel, size and signal-to-noise ratio.

Each rule returns the reason to skip an image, or None to use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from stedfm_hf.runs.errors import UserError

REFERENCE_SIZE = 224
"""Height and width, in pixels, that an image must exceed."""
REFERENCE_NAME = "sted"
"""Text that the name of a series must contain, in any case."""
REFERENCE_EXCLUDED = ("overview", "exp", "focus")
"""Texts that the name of a series must not contain, in any case."""


@dataclass(frozen=True)
class Selection:
    """Rules by which images are selected; an image is one channel of one series.

    Attributes:
        series: Name of a series, a pattern (`STED*`), or its index in the file; None selects all.
        channel: Name or index of a channel; None selects all.
        min_size: Smallest height and width in pixels, after resampling.
        max_size: Largest height and width in pixels, after resampling; None sets no limit.
        snr: Smallest and largest signal-to-noise ratio (see `cropping.IntensityScale`); None selects all.
        reference: Whether the rules of the reference protocol apply, too: the name of the series contains "sted" and
            none of "overview", "exp" and "focus" (in any case), height and width are above 224 pixels, and the series
            is a 2-D image with one channel.

    Raises:
        UserError: A range is empty.

    Source:
        Reference protocol: the published script and notebook that collect the training images.
    """

    series: str | int | None = None
    channel: str | int | None = None
    min_size: int = 224
    max_size: int | None = None
    snr: tuple[float, float] | None = None
    reference: bool = False

    def __post_init__(self) -> None:
        if self.max_size is not None and self.max_size < self.min_size:
            raise UserError(
                f"min_size {self.min_size} is above max_size {self.max_size}, so no image can be used; change one of "
                "them"
            )
        if self.snr is not None and not self.snr[0] <= self.snr[1]:
            raise UserError(f"snr {self.snr[0]} {self.snr[1]} is not a range; give LOW HIGH, such as 1.5 20")

    def reason_to_skip_series(self, index: int, name: str, size: tuple[int, int]) -> str | None:
        """Return the reason to skip a series by its index, name and size.

        Args:
            index: Index of the series in the file.
            name: Name of the series.
            size: Height and width in pixels, before resampling.

        Returns:
            The reason, or None for a series that is selected.

        Example:
            >>> Selection(series="STED*").reason_to_skip_series(0, "Conf_594 {2}", (500, 500))
            "series is not 'STED*'"
            >>> Selection(reference=True).reason_to_skip_series(0, "STED_594 overview", (500, 500))
            "name contains 'overview' (reference protocol)"
        """
        if self.series is not None and not self._is_series(index, name):
            return f"series is not {self.series!r}"
        if self.reference:
            excluded = next((text for text in REFERENCE_EXCLUDED if text in name.lower()), None)
            if REFERENCE_NAME not in name.lower():
                return f"name does not contain {REFERENCE_NAME!r} (reference protocol)"
            if excluded is not None:
                return f"name contains {excluded!r} (reference protocol)"
            if min(size) <= REFERENCE_SIZE:
                return f"height or width is not above {REFERENCE_SIZE} pixels (reference protocol)"
        return None

    def _is_series(self, index: int, name: str) -> bool:
        if isinstance(self.series, int):
            return index == self.series
        return self.series is not None and (name == self.series or fnmatchcase(name, self.series))

    def reason_to_skip_size(self, size: tuple[int, int]) -> str | None:
        """Return the reason to skip an image by its height and width after resampling, or None."""
        if min(size) < self.min_size:
            return f"height or width is below {self.min_size} pixels (--min-size)"
        if self.max_size is not None and max(size) > self.max_size:
            return f"height or width is above {self.max_size} pixels (--max-size)"
        return None

    def reason_to_skip_stack(self, channels: int, metadata: dict[str, Any]) -> str | None:
        """Return the reason to skip a stack or a colour image in the reference protocol, or None."""
        if self.reference and (channels > 1 or "plane" in metadata):
            return "not a 2-D image with one channel (reference protocol)"
        return None

    def channels(self, names: Sequence[str]) -> list[int]:
        """Return the indices of the selected channels.

        Args:
            names: Names of the channels of an image.

        Returns:
            Indices in `names`; an empty list if the image does not have the requested channel.

        Example:
            >>> Selection(channel="STAR RED").channels(["DAPI", "STAR RED"]), Selection(channel=1).channels(["0"])
            ([1], [])
        """
        if self.channel is None:
            return list(range(len(names)))
        if isinstance(self.channel, str) and self.channel in names:
            return [list(names).index(self.channel)]
        number = int(self.channel) if str(self.channel).isdecimal() else -1
        return [number] if 0 <= number < len(names) else []

    def reason_to_skip_snr(self, snr: float | None) -> str | None:
        """Return the reason to skip an image by its signal-to-noise ratio, or None."""
        if self.snr is None:
            return None
        if snr is None:
            return "signal-to-noise ratio is undefined, because the background is constant (--snr)"
        low, high = self.snr
        return None if low <= snr <= high else f"signal-to-noise ratio is not from {low:g} to {high:g} (--snr)"
