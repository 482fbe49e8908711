from __future__ import annotations

import pytest

from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from stedfm_hf.runs.errors import UserError
from stedfm_hf.weights.official import OFFICIAL_WEIGHTS, find_official, is_official_name


def test_the_registry_is_sound() -> None:
    for name, weights in OFFICIAL_WEIGHTS.items():
        assert name == weights.name == name.upper() and is_official_name(name)
        assert weights.architecture in ARCHITECTURES
        assert weights.url is None or weights.url.startswith("https://")
    assert [name for name, weights in OFFICIAL_WEIGHTS.items() if weights.url] == ["MAE_SMALL_STED"]


def test_names_are_found_in_any_case() -> None:
    assert find_official("mae_Small_sted") is OFFICIAL_WEIGHTS["MAE_SMALL_STED"]


def test_unpublished_and_unknown_names_are_told_apart() -> None:
    with pytest.raises(UserError, match=r"MAE_LARGE_STED: .*published no file.*public: MAE_SMALL_STED"):
        find_official("MAE_LARGE_STED")
    with pytest.raises(UserError, match=r"MAE_HUGE: no such weights; public: MAE_SMALL_STED; .*MAE_BASE_STED"):
        find_official("MAE_HUGE")


@pytest.mark.parametrize("source", ["mae_small.pth", "./MAE_SMALL_STED", "https://example.org/MAE_X", "weights"])
def test_paths_are_no_names(source: str) -> None:
    assert not is_official_name(source)
