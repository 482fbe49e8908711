"""Which images are taken, and the words for those that are not."""

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
def test_the_reference_looks_at_names_and_sizes(name: str, size: tuple[int, int], word: str | None) -> None:
    reason = Selection(reference=True).refuse_series(0, name, size)
    assert (reason is None) if word is None else (reason is not None and word in reason)
    assert Selection().refuse_series(0, name, size) is None


def test_the_reference_takes_plain_2d_images_only() -> None:
    reference = Selection(reference=True)
    assert reference.refuse_plane(1, {}) is None
    assert reference.refuse_plane(2, {}) is not None
    assert reference.refuse_plane(1, {"plane": {"z": 3}}) is not None
    assert Selection().refuse_plane(2, {"plane": {"z": 3}}) is None


def test_series_by_name_pattern_and_number() -> None:
    names = ["Ch1 {0}", "Ch2 {0}", "image[z=3]"]
    taken = {
        wanted: [n for n, name in enumerate(names) if Selection(wanted).refuse_series(n, name, (300, 300)) is None]
        for wanted in ("Ch*", "Ch2 {0}", "image[z=3]", 0, 2, "ch1*")
    }
    assert taken == {"Ch*": [0, 1], "Ch2 {0}": [1], "image[z=3]": [2], 0: [0], 2: [2], "ch1*": []}


def test_channels_by_name_and_number() -> None:
    assert Selection().channels(["a", "b"]) == [0, 1]
    assert Selection(channel="b").channels(["a", "b"]) == [1]
    assert Selection(channel="1").channels(["a", "b"]) == [1]
    assert Selection(channel=2).channels(["a", "b"]) == []
    assert Selection(channel="c").channels(["a", "b"]) == []


def test_sizes_and_signal_to_noise() -> None:
    chosen = Selection(min_size=100, max_size=200, snr=(2.0, 8.0))
    assert [chosen.refuse_size(size) is None for size in ((100, 200), (99, 150), (150, 201))] == [True, False, False]
    assert [chosen.refuse_snr(snr) is None for snr in (2.0, 8.0, 1.9, 8.1, None)] == [True, True, False, False, False]
    assert Selection().refuse_snr(None) is None


def test_empty_ranges_are_refused() -> None:
    with pytest.raises(UserError, match="at least 100 and at most 50"):
        Selection(min_size=100, max_size=50)
    with pytest.raises(UserError, match="from 8"):
        Selection(snr=(8.0, 2.0))
