"""Selection of images by series, channel, size and signal-to-noise ratio, and the reasons to skip them."""

from __future__ import annotations

import pytest

from stedfm_hf.data.building.selection import Selection
from stedfm_hf.runs import UserError


@pytest.mark.parametrize(
    ("name", "size", "word"),
    [
        ("STED_594 {6}", (225, 225), None),
        ("Sted 640", (400, 300), None),
        ("Conf_594 {2}", (400, 400), "does not contain 'sted'"),
        ("STED Overview", (400, 400), "'overview'"),
        ("STED_exp3", (400, 400), "'exp'"),
        ("autoFocus STED", (400, 400), "'focus'"),
        ("STED_594 {6}", (224, 400), "not above 224"),
    ],
)
def test_the_reference_protocol_selects_by_name_and_size(name: str, size: tuple[int, int], word: str | None) -> None:
    reason = Selection(reference=True).reason_to_skip_series(0, name, size)
    assert (reason is None) if word is None else (reason is not None and word in reason)
    assert Selection().reason_to_skip_series(0, name, size) is None


def test_the_reference_protocol_selects_2d_images_only() -> None:
    reference = Selection(reference=True)
    assert reference.reason_to_skip_stack(1, {}) is None
    assert reference.reason_to_skip_stack(2, {}) is not None
    assert reference.reason_to_skip_stack(1, {"plane": {"z": 3}}) is not None
    assert Selection().reason_to_skip_stack(2, {"plane": {"z": 3}}) is None


def test_series_by_name_pattern_and_number() -> None:
    names = ["Ch1 {0}", "Ch2 {0}", "image[z=3]"]
    size = (300, 300)
    selected = {
        series: [n for n, name in enumerate(names) if not Selection(series).reason_to_skip_series(n, name, size)]
        for series in ("Ch*", "Ch2 {0}", "image[z=3]", 0, 2, "ch1*")
    }
    assert selected == {"Ch*": [0, 1], "Ch2 {0}": [1], "image[z=3]": [2], 0: [0], 2: [2], "ch1*": []}


def test_channels_by_name_and_number() -> None:
    assert Selection().channels(["a", "b"]) == [0, 1]
    assert Selection(channel="b").channels(["a", "b"]) == [1]
    assert Selection(channel="1").channels(["a", "b"]) == [1]
    assert Selection(channel=2).channels(["a", "b"]) == []
    assert Selection(channel="c").channels(["a", "b"]) == []


def test_sizes_and_signal_to_noise() -> None:
    selection = Selection(min_size=100, max_size=200, snr=(2.0, 8.0))
    by_size = [selection.reason_to_skip_size(size) is None for size in ((100, 200), (99, 150), (150, 201))]
    by_snr = [selection.reason_to_skip_snr(snr) is None for snr in (2.0, 8.0, 1.9, 8.1, None)]
    assert by_size == [True, False, False] and by_snr == [True, True, False, False, False]
    assert Selection().reason_to_skip_snr(None) is None


def test_empty_ranges_are_refused() -> None:
    with pytest.raises(UserError, match="min_size 100 is above max_size 50"):
        Selection(min_size=100, max_size=50)
    with pytest.raises(UserError, match="snr 8.0 2.0 is not a range"):
        Selection(snr=(8.0, 2.0))
