from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch

from stedfm_hf.cli import main
from stedfm_hf.generation import Direction, generate, measure_attribute, walk_attribute, walk_images
from stedfm_hf.generation.following import verdict
from stedfm_hf.generation.walks import embed, random_unit
from stedfm_hf.runs import UserError
from tests.generation_models import SIZE, save_quality_model, tiny_pipeline, tiny_unet

D = 32


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pipeline of 32 px images, the smallest whose resolution can be measured."""
    path = tmp_path_factory.mktemp("pipelines") / "tiny-pipeline"
    tiny_pipeline(unet=tiny_unet(sample_size=32)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def direction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("directions") / "activity"
    normal = np.random.default_rng(3).normal(size=D)
    percentiles = {"all": np.linspace(-2, 2, 21).tolist()}
    Direction(normal, 0.1, name="activity", percentiles=percentiles).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    for number in range(3):
        image = np.random.default_rng(number).poisson(30, (40, 36)).astype(np.uint16)
        tifffile.imwrite(root / f"{number}.tif", image, imagej=True, resolution=(50, 50), metadata={"unit": "um"})
    return root


def pixels(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).random((count, SIZE, SIZE)).astype(np.float32)


def test_a_walk_generates_from_the_embeddings_that_it_says(pipeline: Any) -> None:
    direction = Direction(np.random.default_rng(1).normal(size=D), 0.2)
    walk = walk_images(pipeline, pixels(), direction, np.array([-1.0, 0.0, 2.0]), num_inference_steps=4)
    assert walk.images.shape == (2, 3, SIZE, SIZE) and walk.images.dtype == np.float32
    start = embed(pipeline, pixels())
    np.testing.assert_allclose(walk.start, direction.signed_distance(start), atol=1e-4)
    inverted = pipeline.invert(list(pixels()[:, None]), num_inference_steps=4, normalization="none")
    again = pipeline(
        embeddings=torch.from_numpy(direction.move(start, 2.0)).float(),
        latents=inverted.latents,
        num_inference_steps=4,
    ).images
    np.testing.assert_allclose(walk.images[:, 2], again, atol=1e-4)
    np.testing.assert_allclose(walk.reached[:, 2], direction.signed_distance(embed(pipeline, again)), atol=1e-3)


def test_kept_noise_does_not_depend_on_the_batch_and_new_noise_changes(pipeline: Any) -> None:
    direction = Direction(np.ones(D))
    stay = np.zeros(3)
    shared = walk_images(pipeline, pixels(), direction, stay, noise="shared", num_inference_steps=3)
    np.testing.assert_allclose(shared.images[:, 0], shared.images[:, 2], atol=1e-5)
    alone = walk_images(pipeline, pixels()[:1], direction, stay, noise="shared", num_inference_steps=3, batch_size=1)
    np.testing.assert_allclose(alone.images[0], shared.images[0], atol=1e-5)
    new = walk_images(pipeline, pixels(), direction, stay, noise="new", num_inference_steps=3)
    assert np.abs(new.images[:, 0] - new.images[:, 2]).max() > 0.01
    assert np.isnan(new.similarity).all()


def test_random_walks_are_as_long(pipeline: Any) -> None:
    direction = Direction(np.ones(D), 0.0, np.zeros(D), np.linspace(1, 2, D))
    embeddings = np.random.default_rng(2).normal(size=(4, D))
    random = random_unit(direction, 0, seed=0)
    step = (random.move(embeddings, random.signed_distance(embeddings) + 3) - embeddings) / direction.scale
    np.testing.assert_allclose(np.linalg.norm(step, axis=1), 3)
    flat = direction.with_facts(spread=np.eye(D)[:, :2])
    assert (random_unit(flat, 0, seed=0).normal[2:] == 0).all()  # nothing varies along the other columns
    walk = walk_images(pipeline, pixels(), direction, np.array([1.0]), random_direction=0, num_inference_steps=2)
    assert walk.wanted.tolist() == [[1.0], [1.0]]


def test_a_walk_that_the_images_do_not_follow_is_reported(
    folder: Path, direction: Path, images: Path, tmp_path: Path
) -> None:
    result = walk_attribute(images, tmp_path / "walks", model=folder, direction=direction, num_inference_steps=1)
    frame = result.table.to_pandas()
    slopes = [np.polyfit(each["wanted"], each["reached"], 1)[0] for _, each in frame.groupby("file")]
    assert result.slope is not None and result.slope == pytest.approx(np.mean(slopes), abs=1e-6)
    assert f"wanted distances: {result.slope:.2f}" in result.summary()
    assert ("warning: The generated images" in result.summary()) == (result.slope < 0.5)
    assert result.report is not None and verdict(result.slope) in result.report.read_text(encoding="utf-8")


def test_the_commands_walk_measure_and_generate(
    folder: Path, direction: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walks = tmp_path / "walks"
    words = ["attribute", "walk", str(images), "--model", str(folder), "--direction", str(direction)]
    words += ["--output", str(walks), "--num-inference-steps", "2", "--random-directions", "1"]
    assert main(words) == 0
    assert "30 images along walks from 3 files" in capsys.readouterr().out
    table = pq.read_table(walks / "walks.parquet").to_pandas()
    assert sorted(set(table["direction"])) == ["activity", "random 0"] and len(table) == 30
    assert table["wanted"].groupby(table["step"]).mean().round(6).tolist() == [-1.8, -1.0, 0.0, 1.0, 1.8]
    with tifffile.TiffFile(walks / "0.tif.walk1.tif") as file:
        assert file.asarray().shape == (6, 32, 32) and file.asarray().dtype == np.float32
        numerator, denominator = file.pages.first.tags["XResolution"].value
        assert numerator / denominator == 50
    before = (walks / "walks.parquet").read_bytes()
    assert main(words) == 0 and (walks / "walks.parquet").read_bytes() == before
    measured = tmp_path / "measured"
    assert main(["attribute", "measure", str(walks), "--output", str(measured)]) == 0
    changes = pq.read_table(measured / "changes.parquet").to_pandas().set_index("attribute")
    stack = np.stack([tifffile.imread(walks / f"{number}.tif.walk1.tif") for number in range(3)])
    expected = (stack[:, 5].mean(axis=(1, 2)) - stack[:, 1].mean(axis=(1, 2))).mean()
    assert changes.loc["brightness", "change"] == pytest.approx(expected, abs=1e-6)
    assert "What changes along activity" in (measured / "report.html").read_text()
    quality, predicted = save_quality_model(tmp_path / "quality"), tmp_path / "predicted"
    assert main(["attribute", "measure", str(walks), "--classifier", str(quality), "--output", str(predicted)]) == 0
    assert "value_quality" in pq.read_table(predicted / "changes.parquet")["attribute"].to_pylist()


def test_real_images_are_measured_next_to_walks(folder: Path, direction: Path, images: Path, tmp_path: Path) -> None:
    walk_attribute(images, tmp_path / "walks", model=folder, direction=direction, num_inference_steps=1)
    for name in ("rest", "active"):
        (tmp_path / "real" / name).mkdir(parents=True)
        for number in range(2):
            image = np.random.default_rng(number).poisson(30, (40, 40)).astype(np.uint16)
            tifffile.imwrite(tmp_path / "real" / name / f"{number}.tif", image)
    result = measure_attribute(tmp_path / "walks", tmp_path / "measured", dataset=tmp_path / "real")
    assert {each.name for each in result.changes} >= {"brightness", "density", "resolution_nm"}
    assert "Right: real images" in (tmp_path / "measured" / "report.html").read_text()


def test_generated_images_repeat_and_do_not_depend_on_the_other_inputs(
    folder: Path, images: Path, tmp_path: Path
) -> None:
    both = generate(images, tmp_path / "all", model=folder, number=2, num_inference_steps=2)
    assert both.table.num_rows == 6 and both.sheet is not None and both.sheet.is_file()
    one = generate(images / "1.tif", tmp_path / "one", model=folder, number=2, num_inference_steps=2)
    first = tifffile.imread(tmp_path / "all" / "1.tif.generated1.tif")
    np.testing.assert_allclose(tifffile.imread(tmp_path / "one" / "1.tif.generated1.tif"), first, atol=1e-5)
    assert first.shape == (3, 32, 32) and one.table["number"].to_pylist() == [0, 1]
    solvers = [
        generate(images, tmp_path / name, model=folder, number=1, num_inference_steps=3, scheduler=name)
        for name in ("dpm-solver++", "sde-dpm-solver++", "ddpm")
    ]
    assert all(each.exit_status == 0 for each in solvers)


def test_small_and_damaged_images_cost_only_themselves(folder: Path, images: Path, tmp_path: Path) -> None:
    tifffile.imwrite(images / "small.tif", np.ones((20, 60), np.uint16))
    (images / "damaged.tif").write_bytes(b"II*\0")
    result = generate(images, tmp_path / "out", model=folder, number=1, num_inference_steps=1)
    assert result.exit_status == 1 and result.table.num_rows == 3
    assert "smaller than the 32 x 32" in str(result.manifest.items["small.tif"].reason)


def test_mistakes_are_named(folder: Path, direction: Path, images: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Direction(np.ones(5)).save(other)
    with pytest.raises(UserError, match="fitted with another encoder"):
        walk_attribute(images, tmp_path / "a", model=folder, direction=other, distances=[1.0])
    with pytest.raises(UserError, match="is not a generation pipeline"):
        generate(images, tmp_path / "b", model=folder / "encoder")
    with pytest.raises(UserError, match="no such folder"):
        generate(images, tmp_path / "b", model="./missing")
    with pytest.raises(UserError, match="no percentiles of 'rest'"):
        walk_attribute(images, tmp_path / "c", model=folder, direction=direction, of_class="rest")
    with pytest.raises(UserError, match="no finished walks"):
        measure_attribute(images, tmp_path / "d")
