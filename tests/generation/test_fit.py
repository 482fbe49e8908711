from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from stedfm_hf import StedFmForPreTraining
from stedfm_hf.cli import main
from stedfm_hf.generation import Direction, fit_attribute
from stedfm_hf.runs import UserError
from tests.generation_models import tiny_pipeline, tiny_unet
from tests.models import tiny_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "stedfm-vit-test"
    StedFmForPreTraining(tiny_config()).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with few and with many bright spots, and of noise."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, spots in {"few": 3, "many": 120, "noise": 0}.items():
        (root / name).mkdir()
        for number in range(10):
            image = rng.poisson(20, (32, 32)).astype(np.uint16)
            image[tuple(rng.integers(0, 32, (2, spots)))] += 400
            tifffile.imwrite(root / name / f"{number}.tif", image)
    return root


def test_classes_give_a_boundary(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["attribute", "fit", "--model", str(model), "--dataset", str(images), "--classes", "few", "many"]
    words += ["--output", str(tmp_path / "spots"), "--cache", "none"]
    assert main(words) == 0
    assert "direction few-many from few to many (boundary), 20 images" in capsys.readouterr().out
    direction = Direction.load(tmp_path / "spots")
    assert direction.score is not None and direction.score.above_chance
    assert direction.at_percentile(50, "few") < direction.at_percentile(50, "many")
    assert direction.weights_sha256 and "all" in direction.percentiles
    assert json.loads((tmp_path / "spots" / "manifest.json").read_text())["settings"]["classes"] == ["few", "many"]
    assert main(words) == 0  # finished: nothing to do


def test_a_direction_names_the_pipeline_of_its_encoder(images: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "my-pipeline"
    tiny_pipeline(unet=tiny_unet(sample_size=32)).save_pretrained(pipeline)
    result = fit_attribute(images, tmp_path / "out", model=pipeline, classes=("few", "many"), cache=None)
    assert result.direction.model == "encoder of my-pipeline"


def test_a_walk_can_keep_the_brightness(model: Path, images: Path, tmp_path: Path) -> None:
    result = fit_attribute(
        images, tmp_path / "one", model=model, classes=("few", "many"), orthogonal_to=["brightness"], cache=None
    )
    assert result.direction.orthogonal_to == ("brightness",)
    again = fit_attribute(
        images,
        tmp_path / "two",
        model=model,
        classes=("few", "many"),
        orthogonal_to=[str(tmp_path / "one")],
        cache=None,
    )
    assert abs(again.direction.normal @ result.direction.normal) < 1e-6


def test_a_component_needs_no_classes(model: Path, images: Path, tmp_path: Path) -> None:
    result = fit_attribute(images, tmp_path / "pc", model=model, method="component", component=2, cache=None)
    assert result.direction.method == "principal component 2" and result.direction.score is None
    assert result.images == 30 and "warning" not in result.summary()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"has 3 classes \(few, many, noise\)"),
        ({"classes": ("few", "bright")}, "bright: is not a class of .*few, many, noise"),
        ({"classes": ("few", "few")}, "names few twice"),
        ({"classes": ("few", "many"), "method": "regression"}, "labels are classes"),
        ({"classes": ("few", "many"), "orthogonal_to": ["colour"]}, "neither brightness, density nor the folder"),
        ({"component": 2}, "--component needs --method component"),
    ],
)
def test_mistakes_are_named(
    model: Path, images: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit_attribute(images, tmp_path / "out", model=model, cache=None, **settings)  # type: ignore[arg-type]  # any
    assert not (tmp_path / "out" / "direction.json").exists()
