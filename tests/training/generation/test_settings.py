"""Recipes of `stedfm pretrain generation`: they can be used, and mark the values of the reference."""

from __future__ import annotations

import re

import pytest
import yaml

from stedfm_hf.runs.recipes import recipe_names
from stedfm_hf.training.generation.network import new_unet
from stedfm_hf.training.generation.settings import RECIPES, GenerationSettings
from tests.command_words import settings_from

LEAST = ["--dataset", "lab/crops", "--model", "demo", "--output", "run"]


def parse(*words: str) -> GenerationSettings:
    return settings_from(GenerationSettings, [*LEAST, *words], recipes=RECIPES)


def test_there_is_a_recipe_for_two_cores_one_gpu_and_the_published_one() -> None:
    assert set(recipe_names(RECIPES)) == {"demo", "single-gpu", "reference"}


@pytest.mark.parametrize("name", recipe_names(RECIPES))
def test_every_recipe_works_and_marks_the_values_of_the_reference(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    published = yaml.safe_load((RECIPES / "reference.yaml").read_text(encoding="utf-8"))
    for key, value in re.findall(r"^(\w+): (\S+|\[.*\]) # reference protocol", text, re.MULTILINE):
        assert published[key] == yaml.safe_load(value), key
    settings = parse("--recipe", name)
    recipe = yaml.safe_load(text)
    assert {key: getattr(settings, key) for key in recipe} == recipe


def test_the_demo_network_is_small_enough_for_the_package() -> None:
    unet = new_unet(parse("--recipe", "demo"), image_size=64, condition_dim=128)
    assert 2 * sum(value.numel() for value in unet.parameters()) < 7e6


def test_the_reference_network_is_the_published_one() -> None:
    """9,689,473 parameters, without the unused table of 4 classes (spec of the reference)."""
    unet = new_unet(parse("--recipe", "reference"), image_size=224, condition_dim=384)
    assert sum(value.numel() for value in unet.parameters()) == 9_689_473 - 4 * 256


def test_the_reference_shows_intensities_from_0_to_1() -> None:
    assert parse().value_range == (-1.0, 1.0)
    assert parse("--recipe", "reference").value_range == (0.0, 1.0)
