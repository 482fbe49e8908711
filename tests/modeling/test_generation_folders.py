"""Saved pipelines: with this package, in a new interpreter without it, and damaged or foreign ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from transformers import AutoModel

from stedfm_hf import StedFmGenerationPipeline
from stedfm_hf.hub.kinds import kind_of
from stedfm_hf.hub.loading_check import check_pipeline_loading
from tests.generation_models import SIZE, reference_scheduler, seeded, tiny_encoder, tiny_pipeline, tiny_unet
from tests.hub_server import environment_of, hub_server, use_hub

IMAGE = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE)
# Where weights lie in memory changes how convolutions round.
ROUNDING = 1e-5
WITHOUT_PACKAGE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "stedfm_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import numpy, torch
from diffusers import DiffusionPipeline
folder, again, result = sys.argv[1:]
pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
pipeline.save_pretrained(again)
image = numpy.arange(256, dtype=numpy.uint16).reshape(16, 16)
generator = torch.Generator().manual_seed(2)
numpy.save(result, pipeline(image, num_inference_steps=3, generator=generator).images)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipelines") / "tiny"
    tiny_pipeline(value_range=(0.0, 1.0), clip_sample_range=(-1.0, 1.0)).save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def generate(pipeline: Any, image: np.ndarray = IMAGE) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(image, num_inference_steps=3, generator=torch.Generator().manual_seed(2)).images


def change_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_is_complete_and_without_paths(folder: Path) -> None:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for expected in (
        "model_index.json",
        "scheduler/scheduler_config.json",
        "image_processor/preprocessor_config.json",
    ):
        assert expected in files
    assert {path for path in files if path.endswith(".safetensors")} == {
        "unet/diffusion_pytorch_model.safetensors",
        "encoder/model.safetensors",
    }
    again = folder.parent / "again"
    StedFmGenerationPipeline.from_pretrained(folder).save_pretrained(again)
    for path in again.rglob("*.json"):
        assert str(folder) not in path.read_text()
    assert {path.relative_to(again).as_posix() for path in again.rglob("*") if path.is_file()} == files
    for name in files:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    assert AutoModel.from_pretrained(folder / "encoder").config.hidden_size == 32


def test_a_loaded_pipeline_is_the_same(folder: Path) -> None:
    loaded = StedFmGenerationPipeline.from_pretrained(folder)
    original = tiny_pipeline(value_range=(0.0, 1.0), clip_sample_range=(-1.0, 1.0))
    assert loaded.config.value_range == [0.0, 1.0] and loaded.config.clip_sample_range == [-1.0, 1.0]
    np.testing.assert_allclose(generate(loaded), generate(original), atol=ROUNDING)
    half = StedFmGenerationPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    assert half.unet.dtype == half.encoder.dtype == torch.bfloat16


def test_a_folder_loads_without_the_package(folder: Path, tmp_path: Path) -> None:
    again, result = tmp_path / "again", tmp_path / "images.npy"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache")}
    arguments = [sys.executable, "-c", WITHOUT_PACKAGE, str(folder), str(again), str(result)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = generate(StedFmGenerationPipeline.from_pretrained(folder))
    np.testing.assert_allclose(np.load(result), expected, atol=ROUNDING)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(again).as_posix() for path in again.rglob("*") if path.is_file()} == names
    np.testing.assert_allclose(generate(StedFmGenerationPipeline.from_pretrained(again)), expected, atol=ROUNDING)


def test_a_repository_loads_with_the_package(
    folder: Path, tmp_path: Path, loopback: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_server() as hub:
        hub.add("model", "my-lab/generator", folder)
        use_hub(hub, monkeypatch)
        loaded = StedFmGenerationPipeline.from_pretrained("my-lab/generator", cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.py"))
    expected = generate(StedFmGenerationPipeline.from_pretrained(folder))
    np.testing.assert_allclose(generate(loaded), expected, atol=ROUNDING)


@pytest.mark.slow
def test_a_repository_loads_without_the_package(folder: Path, tmp_path: Path) -> None:
    result = tmp_path / "images.npy"
    with hub_server() as hub:
        hub.add("model", "my-lab/generator", folder)
        arguments = [sys.executable, "-c", WITHOUT_PACKAGE, "my-lab/generator", str(tmp_path / "again"), str(result)]
        environment = environment_of(hub, tmp_path / "cache")
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = generate(StedFmGenerationPipeline.from_pretrained(folder))
    np.testing.assert_allclose(np.load(result), expected, atol=ROUNDING)


def test_code_is_not_run_without_being_trusted(folder: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(folder)


def test_the_code_in_the_folder_is_never_run_with_the_package(copy: Path) -> None:
    for file in copy.rglob("*.py"):
        file.write_text("raise SystemExit('the code of the folder ran')")
    generate(StedFmGenerationPipeline.from_pretrained(copy, trust_remote_code=True))


@pytest.mark.slow
def test_a_folder_can_be_published(folder: Path) -> None:
    assert kind_of(folder).name == "pipeline"
    assert check_pipeline_loading(folder) == []


def test_a_pipeline_without_encoder(tmp_path: Path) -> None:
    unet = tiny_unet(condition_dim=None, num_classes=2)
    pipeline = tiny_pipeline(False, unet, id2label={0: "a", 1: "b"})
    pipeline.save_pretrained(tmp_path)
    loaded = StedFmGenerationPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    one, two = (
        each(class_labels="b", num_inference_steps=2, generator=seeded(1)).images for each in (pipeline, loaded)
    )
    np.testing.assert_allclose(one, two, atol=ROUNDING)


def test_the_scheduler_is_saved(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.scheduler = DDIMScheduler.from_config(reference_scheduler().config, prediction_type="v_prediction")
    pipeline.save_pretrained(tmp_path)
    loaded = StedFmGenerationPipeline.from_pretrained(tmp_path)
    assert type(loaded.scheduler) is DDIMScheduler and loaded.scheduler.config.prediction_type == "v_prediction"


def test_pickles_are_refused(copy: Path) -> None:
    with pytest.raises(ValueError, match="pickles are never written"):
        tiny_pipeline().save_pretrained(copy.parent / "pickled", safe_serialization=False)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"holds pickles \(diffusion_pytorch_model.bin\)"):
        StedFmGenerationPipeline.from_pretrained(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet": ["evil", "StedFmUNet"]}, "names evil.StedFmUNet as unet"),
        ({"unet": ["diffusers", "UNet2DModel"]}, "names diffusers.UNet2DModel as unet"),
        ({"scheduler": ["os", "DDPMScheduler"]}, "names os.DDPMScheduler as scheduler"),
        ({"vae": ["diffusers", "AutoencoderKL"]}, "names diffusers.AutoencoderKL as vae"),
        ({"_class_name": "DDPMPipeline"}, "is a DDPMPipeline, not a StedFmGenerationPipeline"),
    ],
)
def test_foreign_classes_are_refused(copy: Path, changes: dict[str, Any], message: str) -> None:
    (copy / "unet" / "evil.py").write_text("raise SystemExit('foreign code ran')")
    change_index(copy, **changes)
    with pytest.raises(ValueError, match=message):
        StedFmGenerationPipeline.from_pretrained(copy)


def test_a_folder_with_another_encoder_is_refused(copy: Path) -> None:
    tiny_encoder(seed=4).save_pretrained(copy / "encoder")
    with pytest.raises(ValueError, match="not that with which the network was trained"):
        StedFmGenerationPipeline.from_pretrained(copy)
