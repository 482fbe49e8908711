"""Texts mean the same on the command line, in a recipe and in Python."""

from __future__ import annotations

import pytest

from stedfm_hf.data.settings import SimulateSettings
from stedfm_hf.evaluation.settings import KnnSettings
from stedfm_hf.inference.settings import EmbedSettings
from stedfm_hf.runs import UserError


def test_none_disables_the_cache_in_python_too() -> None:
    assert KnnSettings("crops", output="knn", cache="none").cache is None
    assert KnnSettings("crops", output="knn", cache="features").cache == "features"


def test_texts_are_converted_like_words_of_the_command_line() -> None:
    made = EmbedSettings("fields", output=None, tile_size="64", channel="1")
    assert (made.tile_size, made.channel) == (64, 1)


def test_values_that_are_not_texts_stay() -> None:
    assert EmbedSettings("fields", output=None, tile_size=64, channel=None).channel is None
    assert SimulateSettings("images", splits=[("train", 3)]).splits == [("train", 3)]


def test_a_text_that_cannot_be_converted_is_refused() -> None:
    with pytest.raises(UserError, match="tile size 'large' is not a number of pixels, auto or none"):
        EmbedSettings("fields", output=None, tile_size="large")
