"""The encoder `demo` that comes with the package."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from safetensors import safe_open
from transformers import AutoModel

from stedfm_hf.cli import main
from stedfm_hf.data.simulation.attributes import simulate_attributes
from stedfm_hf.inference import embed, load_encoder
from stedfm_hf.runs import Manifest, UserError, manifest_path
from stedfm_hf.weights.packaged import GENERATOR, PACKAGED, load_demo_generator, packaged_folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "cell.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, np.random.default_rng(0).poisson(20, (100, 90)).astype(np.uint16))
    return path


def dtypes_in(path: Path) -> set[torch.dtype]:
    # An open file of weights has keys(), and cannot be iterated itself.
    with safe_open(path, "pt") as weights:
        return {weights.get_tensor(name).dtype for name in weights.keys()}  # noqa: SIM118


def test_it_is_found_by_its_id_and_is_what_the_issue_allows(image: Path) -> None:
    encoder = load_encoder("demo", device="cpu")
    assert encoder.model.config.hidden_size == 128 and encoder.model.config.patch_size == 8
    assert next(encoder.model.parameters()).dtype == torch.float32
    assert packaged_folder("./demo") is None and packaged_folder("flclab/stedfm-vit-small") is None
    folder = packaged_folder("demo")
    assert folder is not None and sum(file.stat().st_size for file in folder.iterdir()) <= 4_000_000
    assert dtypes_in(folder / "model.safetensors") == {torch.float16}


def test_auto_classes_load_it_in_single_precision() -> None:
    folder = packaged_folder("demo")
    assert folder is not None
    model = AutoModel.from_pretrained(folder)
    assert {each.dtype for each in model.parameters()} == {torch.float32}


def test_it_says_everywhere_that_its_images_were_simulated(image: Path, tmp_path: Path) -> None:
    assert all("simulated images only" in note for note in PACKAGED.values())
    result = embed(image, model="demo", device="cpu")
    assert "simulated images only" in result.table["model"][0].as_py()
    assert result.manifest.model is not None and "simulated images only" in result.manifest.model
    folder = packaged_folder("demo")
    assert folder is not None
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert "simulated images only" in weights.metadata()["note"]
    assert "simulated images only" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_command_line_embeds_with_it_and_says_so(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "vectors.parquet"
    assert main(["embed", str(image), "--model", "demo", "--device", "cpu", "--output", str(output)]) == 0
    assert "demo: trained on simulated images only" in capsys.readouterr().err
    assert len(pq.read_table(output)["embedding"][0]) == 128


def test_a_folder_of_the_same_name_does_not_come_in_its_place(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_encoder("demo", device="cpu").model.config.hidden_size == 128


def test_another_way_to_write_it_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(UserError, match="did you mean demo"):
        load_encoder("Demo", device="cpu")


def test_the_packaged_pipeline_is_small_and_generates_images_of_its_embeddings() -> None:
    assert sum(file.stat().st_size for file in GENERATOR.rglob("*") if file.is_file()) <= 10_000_000
    with safe_open(GENERATOR / "unet" / "model.safetensors", "pt") as weights:
        assert "simulated images only" in weights.metadata()["note"]
    assert dtypes_in(GENERATOR / "unet" / "model.safetensors") == {torch.float16}
    assert "simulated images only" in (GENERATOR / "README.md").read_text(encoding="utf-8")
    texts = [file.read_text(encoding="utf-8") for file in GENERATOR.rglob("*.json")]
    assert not [text for text in texts if re.search(r'"/\w', text)], "no path of the machine of the training"
    pipeline = load_demo_generator()
    pipeline.set_progress_bar_config(disable=True)
    crops = [simulate_attributes(name, seed=9, index=0).image for name in ("actin", "puncta")]
    embeddings = pipeline.embed(crops)
    images = pipeline(embeddings=embeddings, num_inference_steps=5, generator=torch.Generator().manual_seed(0)).images
    again = torch.nn.functional.cosine_similarity(embeddings, pipeline.embed(list(images), normalization="none"))
    other = torch.nn.functional.cosine_similarity(embeddings, embeddings.flip(0))
    assert (again > other).all()


def test_the_commands_generate_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crop = simulate_attributes("puncta", seed=9, index=1).image
    tifffile.imwrite(tmp_path / "cell.tif", crop)
    words = ["generate", str(tmp_path / "cell.tif"), "--model", "demo", "--output", str(tmp_path / "out")]
    assert main([*words, "--number", "1", "--num-inference-steps", "2", "--device", "cpu"]) == 0
    assert "demo: trained on simulated images only" in capsys.readouterr().err
    manifest = Manifest.load(manifest_path(tmp_path / "out" / "generated.parquet", folder=False))
    assert manifest.model is not None and "simulated images only" in manifest.model
