"""Split of a source image: a function of its id alone, with fractions that hold on average."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stedfm_hf.data.splits import SPLIT_FRACTIONS, SplitFractions, file_id, split_of
from stedfm_hf.runs import UserError

IDS = st.text(st.characters(), max_size=20)  # surrogates too: names of files may hold any bytes
SHARE = st.floats(0, 0.49)


@given(source=IDS, validation=SHARE, test=SHARE)
def test_the_split_is_a_function_of_the_id_and_the_shares(source: str, validation: float, test: float) -> None:
    fractions = SplitFractions(validation, test)
    found = split_of(source, fractions)
    assert found == split_of(source, SplitFractions(validation, test)) and found in ("train", "validation", "test")
    assert validation or found != "validation"
    assert test or found != "test"


@given(source=IDS, smaller=SHARE, larger=SHARE, validation=SHARE)
def test_splits_of_other_shares_nest(source: str, smaller: float, larger: float, validation: float) -> None:
    assume(smaller <= larger)
    few, many = SplitFractions(validation, smaller), SplitFractions(validation, larger)
    if split_of(source, few) == "test":
        assert split_of(source, many) == "test"
    if split_of(source, many) == "train":
        assert split_of(source, few) == "train"
    assert (split_of(source, SplitFractions(smaller, 0.2)) == "test") == (
        split_of(source, SplitFractions(larger, 0.2)) == "test"
    )


@pytest.mark.parametrize("fractions", [SPLIT_FRACTIONS, SplitFractions(0.1, 0.1), SplitFractions(0.4, 0.05)])
@pytest.mark.parametrize("name", ["cell {}", "folder/image_{}.tif", "{:016x}"])
def test_fractions_hold_on_average(fractions: SplitFractions, name: str) -> None:
    counts = Counter(split_of(name.format(number), fractions) for number in range(10_000))
    for split in ("train", "validation", "test"):
        assert counts[split] / 10_000 == pytest.approx(getattr(fractions, split), abs=0.02)


def test_known_sources_stay_where_they_are() -> None:
    """A new version of the package must not move images between train and test."""
    assert [split_of(f"cell {n}") for n in (0, 1, 2, 16, 17)] == ["test", "train", "validation", "test", "train"]
    assert (SPLIT_FRACTIONS.validation, SPLIT_FRACTIONS.test) == (0.15, 0.15)


def test_the_id_of_a_file_is_a_hash_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"pixels")
    (tmp_path / "b.tif").write_bytes(b"pixels")
    assert file_id(tmp_path / "a.tif") == file_id(tmp_path / "b.tif") == hashlib.sha256(b"pixels").hexdigest()[:16]


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.2), (0.5, 0.5), (0.2, 1.0)])
def test_what_is_not_a_share_is_refused(validation: float, test: float) -> None:
    with pytest.raises(UserError, match="give two numbers"):
        SplitFractions(validation, test)
