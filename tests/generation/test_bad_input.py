"""Crops, options and pipelines that do not fit: what is refused, and that nothing is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from stedfm_hf.cli import main
from stedfm_hf.generation import Direction, fit_attribute, generate, measure_attribute, walk_attribute
from stedfm_hf.runs import UserError
from tests.generation_models import reference_scheduler, tiny_encoder, tiny_pipeline, tiny_unet

SIZE = 32


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pipeline of 32 px images."""
    folder = tmp_path_factory.mktemp("pipelines") / "tiny-pipeline"
    tiny_pipeline(unet=tiny_unet(sample_size=SIZE)).save_pretrained(folder)
    return folder


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    return write_crops(tmp_path / "crops", SIZE)


def write_crops(root: Path, size: int, classes: tuple[str, ...] = ("few", "many")) -> Path:
    """Write six images of each class, with more spots in every class than in the one before."""
    rng = np.random.default_rng(size)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for each in range(6):
            image = rng.poisson(20, (size, size)).astype(np.uint16)
            image[tuple(rng.integers(0, size, (2, 3 + 100 * number)))] += 400
            tifffile.imwrite(root / name / f"{each}.tif", image)
    return root


def a_direction(folder: Path, **facts: Any) -> Path:
    normal = np.random.default_rng(3).normal(size=32)
    Direction(normal, name="activity", percentiles={"all": np.linspace(-2, 2, 21).tolist()}, **facts).save(folder)
    return folder


def test_a_fit_refuses_crops_of_another_size(pipeline: Path, tmp_path: Path) -> None:
    larger = write_crops(tmp_path / "larger", 2 * SIZE)
    with pytest.raises(UserError, match="larger: none of 12 images can be used.*is 64 x 64 pixels, and the "):
        fit_attribute(larger, tmp_path / "out", model=pipeline, cache=None)
    assert not (tmp_path / "out").exists()


def test_crops_of_another_size_are_left_out(
    pipeline: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("few/large.tif", 2 * SIZE), ("many/small.tif", SIZE // 2)):
        tifffile.imwrite(crops / name, np.random.default_rng(0).poisson(20, (size, size)).astype(np.uint16))
    words = ["attribute", "fit", "--dataset", str(crops), "--model", str(pipeline), "--output", str(tmp_path / "out")]
    assert main([*words, "--cache", "none"]) == 1
    printed = capsys.readouterr()
    assert "12 images, 2 left out" in printed.out
    assert "large.tif: is 64 x 64 pixels" in printed.err and "stedfm data build --crop-size 32" in printed.err
    assert Direction.load(tmp_path / "out").size_px == SIZE


def test_a_direction_of_other_sizes_is_refused(pipeline: Path, crops: Path, tmp_path: Path) -> None:
    larger = write_crops(tmp_path / "larger", 2 * SIZE)
    result = fit_attribute(larger, tmp_path / "direction", model=pipeline / "encoder", cache=None)
    assert result.direction.size_px == 2 * SIZE
    with pytest.raises(UserError, match="fitted to images of 64 x 64 pixels, but the pipeline .* 32 x 32"):
        walk_attribute(crops, tmp_path / "walks", model=pipeline, direction=tmp_path / "direction")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("pickle", "holds pickles .* remove them"),
        ("foreign", "names evil.StedFmUNet as unet, .* its code is not run.*; give a folder of"),
        ("class", "is a DDPMPipeline, .*; give a folder of"),
        ("encoder", "the encoder is not that with which the network was trained"),
        ("part", "unet: does not exist; restore it"),
        ("json", "model_index.json: is not valid JSON"),
        ("weights", "cannot be loaded .*; give a folder of"),
    ],
)
def test_every_command_refuses_a_damaged_or_foreign_pipeline(
    pipeline: Path, crops: Path, tmp_path: Path, damage: str, message: str
) -> None:
    copy = shutil.copytree(pipeline, tmp_path / "copy")
    index, unet = copy / "model_index.json", copy / "unet"
    changes = {"foreign": {"unet": ["evil", "StedFmUNet"]}, "class": {"_class_name": "DDPMPipeline"}}.get(damage, {})
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))
    if damage == "pickle":
        torch.save({}, unet / "diffusion_pytorch_model.bin")
    elif damage == "encoder":
        tiny_encoder(seed=4).save_pretrained(copy / "encoder")
    elif damage == "part":
        shutil.rmtree(unet)
    elif damage == "json":
        index.write_text("{")
    elif damage == "weights":
        (unet / "diffusion_pytorch_model.safetensors").write_bytes(b"abc")
    direction, out = a_direction(tmp_path / "direction"), tmp_path / "out"
    for command in (
        lambda: fit_attribute(crops, out, model=copy, cache=None),
        lambda: walk_attribute(crops, out, model=copy, direction=direction),
        lambda: generate(crops, out, model=copy),
    ):
        with pytest.raises(UserError, match=message):
            command()
        assert not out.exists()


def test_a_fit_refuses_a_pipeline_of_classes(crops: Path, tmp_path: Path) -> None:
    unet = tiny_unet(condition_dim=None, num_classes=2, sample_size=SIZE)
    tiny_pipeline(False, unet).save_pretrained(tmp_path / "classes")
    with pytest.raises(UserError, match="is conditioned on classes and has no encoder"):
        fit_attribute(crops, tmp_path / "out", model=tmp_path / "classes", cache=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_inference_steps": 1001}, "trained with 1000 denoising steps, fewer than 1001; give at most 1000"),
        ({"guidance_scale": 2.0}, "--guidance-scale 2: the pipeline .* without condition dropout; leave out"),
        ({"guidance_scale": float("inf")}, "guidance_scale is inf; it must be a finite number"),
    ],
)
def test_options_that_a_pipeline_lacks_are_refused_at_once(
    pipeline: Path, crops: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    direction, out = a_direction(tmp_path / "direction"), tmp_path / "out"
    with pytest.raises(UserError, match=message):
        walk_attribute(crops, out, model=pipeline, direction=direction, **settings)
    with pytest.raises(UserError, match=message):
        generate(crops, out, model=pipeline, **settings)
    assert not out.exists()


def test_the_reference_protocol_needs_its_number_of_steps(crops: Path, tmp_path: Path) -> None:
    short = tiny_pipeline(unet=tiny_unet(sample_size=SIZE), scheduler=reference_scheduler(steps=100))
    short.save_pretrained(tmp_path / "short")
    with pytest.raises(UserError, match="trained with 100 denoising steps, fewer than 1000"):
        generate(crops, tmp_path / "out", model=tmp_path / "short", protocol="reference")


def test_distances_must_be_finite_and_near(pipeline: Path, crops: Path, tmp_path: Path) -> None:
    direction, out = a_direction(tmp_path / "direction"), tmp_path / "out"
    with pytest.raises(UserError, match="distances is nan; it must be a finite number"):
        walk_attribute(crops, out, model=pipeline, direction=direction, distances=[0.0, float("nan")])
    assert not out.exists()
    image = crops / "few" / "0.tif"
    result = walk_attribute(image, out, model=pipeline, direction=direction, distances=[1e39], num_inference_steps=1)
    assert result.exit_status == 1 and result.report is None
    assert "not finite; give smaller distances" in str(result.manifest.failures())
    with pytest.raises(UserError, match="holds no images, because all files failed"):
        measure_attribute(out, tmp_path / "measured")
    assert not (tmp_path / "measured").exists()


def test_images_that_are_all_too_small_leave_no_sheet(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write_crops(tmp_path / "small", SIZE // 2)
    words = ["generate", str(small), "--model", str(pipeline), "--output", str(tmp_path / "out")]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "12 failed" in printed.out and "sheet" not in printed.out
    assert "few/0.tif: is 16 x 16 pixels, smaller than the 32 x 32" in printed.err
    assert not (tmp_path / "out" / "generated.png").exists()
