"""Encoders of directions and pipelines: copies of one encoder are the same, and others are refused."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch

from stedfm_hf import StedFmGenerationPipeline, StedFmModel
from stedfm_hf.generation import Direction, fit_attribute, walk_attribute
from stedfm_hf.generation.loading import check_direction, load_pipeline
from stedfm_hf.generation.names import find_pipeline
from stedfm_hf.inference import load_encoder
from stedfm_hf.runs import Manifest, UserError
from tests.generation.test_bad_input import SIZE, write_crops
from tests.generation_models import reference_scheduler, tiny_pipeline, tiny_unet
from tests.hub_server import hub_server, use_hub


def save_pipeline_of(encoder: StedFmModel, folder: Path) -> Path:
    """Write a pipeline with an encoder that is as wide as `demo`."""
    unet = tiny_unet(sample_size=SIZE, condition_dim=encoder.config.hidden_size)
    processor = load_encoder("demo", device="cpu").processor
    StedFmGenerationPipeline(unet, reference_scheduler(), encoder, processor).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_direction_of_demo_fits_a_pipeline_with_a_copy_of_demo(tmp_path: Path, dtype: torch.dtype) -> None:
    crops = write_crops(tmp_path / "crops", SIZE)
    direction = fit_attribute(crops, tmp_path / "direction", model="demo", cache=None).direction
    demo = load_encoder("demo", device="cpu").model
    copy = load_pipeline(save_pipeline_of(demo.to(dtype), tmp_path / "copy"), device="cpu")
    assert direction.weights_sha256 != copy.encoder.weights_sha256
    check_direction(direction, copy)
    check_direction(Direction.load(tmp_path / "direction"), copy)
    torch.manual_seed(0)
    other = load_pipeline(save_pipeline_of(StedFmModel(demo.config).eval(), tmp_path / "other"), device="cpu")
    with pytest.raises(UserError, match="fitted with another encoder .demo .* fit it again with --model"):
        check_direction(direction, other)


def test_a_direction_without_fingerprint_is_compared_by_its_weights(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    loaded = load_pipeline(tmp_path / "tiny", device="cpu")
    check_direction(Direction(np.ones(32), weights_sha256=loaded.encoder.weights_sha256), loaded)
    with pytest.raises(UserError, match="another encoder"):
        check_direction(Direction(np.ones(32), weights_sha256="0" * 64), loaded)


def test_directions_of_other_encoders_are_not_kept(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", SIZE)
    size = load_encoder("demo", device="cpu").model.config.hidden_size
    Direction(np.ones(size), name="other", encoder_fingerprint="1 2 3", model="mine").save(tmp_path / "other")
    with pytest.raises(UserError, match=r"--orthogonal-to .*other: was fitted with another encoder .mine."):
        fit_attribute(crops, tmp_path / "out", model="demo", orthogonal_to=[str(tmp_path / "other")], cache=None)


def test_clusters_know_the_encoder_of_their_embeddings(tmp_path: Path) -> None:
    demo = load_encoder("demo", device="cpu")
    clusters, rng = tmp_path / "clusters", np.random.default_rng(0)
    options = {"model": demo.name, "weights_sha256": demo.weights_sha256}
    manifest = Manifest("cluster", settings={"features": "embedding"}, options=options)
    manifest.finish()
    clusters.mkdir()
    manifest.save(clusters / "manifest.json")
    sources = [str(number) for number in range(12)]
    leaves = pa.table({"leaf": ["a", "b"] * 6, "source": sources})
    pq.write_table(leaves, clusters / "memberships.parquet")
    embeddings = rng.normal(size=(12, demo.model.config.hidden_size)) + np.tile([[0], [4]], (6, 1))
    pq.write_table(pa.table({"features": embeddings.tolist()}), clusters / "features.parquet")
    fitted = fit_attribute(clusters, tmp_path / "direction").direction
    assert fitted.weights_sha256 == demo.weights_sha256
    check_direction(fitted, load_pipeline(save_pipeline_of(demo.model, tmp_path / "copy"), device="cpu"))
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    with pytest.raises(UserError, match="tiny: has other weights than the model of .*clusters, demo"):
        fit_attribute(clusters, tmp_path / "other", model=tmp_path / "tiny")


def test_a_hub_id_of_a_pipeline_works_in_every_command(
    tmp_path: Path, loopback: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder, crops = tmp_path / "tiny", write_crops(tmp_path / "crops", SIZE)
    tiny_pipeline(unet=tiny_unet(sample_size=SIZE)).save_pretrained(folder)
    with hub_server() as hub:
        for name, files in (("generator", folder), ("encoder", folder / "encoder")):
            hub.add("model", f"lab/{name}", files)
        use_hub(hub, monkeypatch)
        fitted = fit_attribute(crops, tmp_path / "direction", model="lab/generator", cache=None).direction
        assert fitted.model == "encoder of lab/generator" and fitted.size_px == SIZE
        alone = fit_attribute(crops, tmp_path / "alone", model="lab/encoder", cache=None).direction
        np.testing.assert_allclose(alone.normal, fitted.normal, atol=1e-5)
        image = tmp_path / "image.tif"
        tifffile.imwrite(image, np.random.default_rng(0).poisson(20, (SIZE, SIZE)).astype(np.uint16))
        walk = walk_attribute(
            image, tmp_path / "walks", model="lab/generator", direction=tmp_path / "direction", num_inference_steps=1
        )
        assert walk.exit_status == 0 and walk.table.num_rows == 5
        with pytest.raises(UserError, match="lab/encoder: is not a generation pipeline"):
            find_pipeline("lab/encoder")
        with pytest.raises(UserError, match="the Hub has no such repository, or it is private; check the name"):
            load_pipeline("lab/none")
    assert not list((tmp_path / "hub").rglob("*.py"))
