"""Which images of a file become crops: by series, channel, size and signal-to-noise ratio, or as the reference chose.

Every rule answers with the reason why not, or None: nothing is left out without a word. (The reference's rules: its
scraping script and notebook; the others: ours.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from stedfm_hf.runs.errors import UserError

REFERENCE_SIDE = 224
REFERENCE_WORD = "sted"
REFERENCE_REFUSED = ("overview", "exp", "focus")


@dataclass(frozen=True)
class Selection:
    """Which images are taken; an image is one channel of one series.

    Args:
        series: name of a series, a pattern for it (`STED*`), or its number in the file from 0; None takes all.
        channel: name or number of a channel; None takes all.
        min_size: least length of both sides in pixels, after resampling.
        max_size: greatest length of both sides, after resampling; None for no limit.
        snr: least and greatest signal-to-noise ratio (see `cropping.IntensityScale`); None takes any.
        reference: the reference's rules as well: the name of the series contains "sted" and none of "overview", "exp"
            and "focus" (in capitals or not), both sides are above 224 pixels, and it is a plain 2-D image.

    Raises:
        UserError: an empty range.
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
                f"no image is at least {self.min_size} and at most {self.max_size} pixels; mend the limits"
            )
        if self.snr is not None and not self.snr[0] <= self.snr[1]:
            raise UserError(f"no signal-to-noise ratio is from {self.snr[0]} to {self.snr[1]}; give LOW HIGH")

    def refuse_series(self, number: int, name: str, size: tuple[int, int]) -> str | None:
        """Why a series is left out by its place, name and size in the file.

        Example:
            >>> Selection(series="STED*").refuse_series(0, "Conf_594 {2}", (500, 500))
            "other series than 'STED*'"
            >>> Selection(reference=True).refuse_series(0, "STED_594 overview", (500, 500))
            "name contains 'overview' (reference selection)"
        """
        if self.series is not None and not self._is_series(number, name):
            return f"other series than {self.series!r}"
        if self.reference:
            word = next((word for word in REFERENCE_REFUSED if word in name.lower()), None)
            if REFERENCE_WORD not in name.lower():
                return f"name does not contain {REFERENCE_WORD!r} (reference selection)"
            if word is not None:
                return f"name contains {word!r} (reference selection)"
            if min(size) <= REFERENCE_SIDE:
                return f"a side is not above {REFERENCE_SIDE} pixels (reference selection)"
        return None

    def _is_series(self, number: int, name: str) -> bool:
        if isinstance(self.series, int):
            return number == self.series
        return self.series is not None and (name == self.series or fnmatchcase(name, self.series))

    def refuse_size(self, size: tuple[int, int]) -> str | None:
        """Why an image is left out by its height and width after resampling."""
        if min(size) < self.min_size:
            return f"a side is below {self.min_size} pixels"
        if self.max_size is not None and max(size) > self.max_size:
            return f"a side is above {self.max_size} pixels"
        return None

    def refuse_plane(self, channels: int, metadata: dict[str, Any]) -> str | None:
        """Why a series is left out because it is no plain 2-D image; only the reference minds."""
        if self.reference and (channels > 1 or "plane" in metadata):
            return "not a 2-D image (reference selection)"
        return None

    def channels(self, names: Sequence[str]) -> list[int]:
        """Numbers of the channels to take; none where the one that is asked for is not there.

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

    def refuse_snr(self, snr: float | None) -> str | None:
        """Why an image is left out by its signal-to-noise ratio."""
        if self.snr is None:
            return None
        if snr is None:
            return "no signal-to-noise ratio (the background is flat)"
        low, high = self.snr
        return None if low <= snr <= high else f"signal-to-noise ratio is not from {low:g} to {high:g}"
