"""The whole demo, small: it trains, loads back, embeds through `embed`, scores and reports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoImageProcessor, AutoModel

from stedfm_hf.demo import Sizes, run_demo
from stedfm_hf.demo.material import Picture
from stedfm_hf.demo.pictures import reconstruct
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs import Manifest, UserError

TINY = StedFmConfig(
    image_size=32,
    patch_size=8,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    decoder_hidden_size=32,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=32,
)


@pytest.mark.figures
def test_the_demo_runs_from_simulation_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "demo"
    result = run_demo(output, sizes=Sizes(3, 3, 2), max_steps=2, seconds=1e6, device="cpu", seed=1)

    page = result.report.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 6
    assert not re.search(r"https?://|src=\"(?!data:)", page)
    for name in ("overview", "reconstructions", "map", "neighbours", "loss", "accuracy"):
        assert (output / "figures" / f"{name}.png").is_file()
        assert (output / "figures" / f"{name}.svg").is_file()

    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == result.metrics
    assert metrics["images"] == 20
    assert metrics["knn"]["queries"] == 8
    assert set(metrics["knn"]["methods"]) == {"network", "untrained", "log_spectrum_pca", "intensity_histogram"}
    assert metrics["training"]["steps"] == 2
    assert metrics["training"]["constant_loss"] > 0

    assert result.model is not None
    assert isinstance(AutoModel.from_pretrained(result.model), StedFmModel)
    assert AutoImageProcessor.from_pretrained(result.model).patch_size == 8
    manifest = Manifest.load(output / "manifest.json")
    assert (manifest.verb, manifest.seed, manifest.counts()["done"]) == ("demo", 1, 20)
    printed = capsys.readouterr().out
    assert "loaded it back: StedFmModel" in printed
    assert printed.rstrip().endswith(str(result.report))


def test_ones_own_images_and_weights_without_decoder_or_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = tmp_path / "mine"
    images.mkdir()
    for number in range(3):
        np.save(images / f"{number}.npy", rng.poisson(20, (50, 40 + number)).astype(np.uint16))
    (images / "broken.tif").write_bytes(b"no tiff")
    StedFmModel(TINY).save_pretrained(tmp_path / "weights")

    result = run_demo(tmp_path / "demo", images=images, model=tmp_path / "weights", device="cpu")
    assert result.model is None
    assert result.metrics["knn"] is None
    assert result.metrics["training"] is None
    assert list(result.manifest.failures()) == ["broken.tif"]
    page = result.report.read_text(encoding="utf-8")
    assert "broken.tif" in page
    assert "accuracy" not in page
    assert {file.stem for file in (tmp_path / "demo" / "figures").iterdir()} == {"map", "neighbours"}
    assert not (images / "manifest.json").exists()


def test_a_second_demo_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    images = tmp_path / "mine"
    images.mkdir()
    np.save(images / "one.npy", np.arange(1600.0).reshape(40, 40))
    StedFmForPreTraining(TINY).save_pretrained(tmp_path / "weights")
    output = tmp_path / "demo"
    run_demo(output, images=images, model=tmp_path / "weights", device="cpu")
    (output / "figures" / "old.png").write_bytes(b"")
    (output / "notes.txt").write_text("mine", encoding="utf-8")
    result = run_demo(output, images=images, model=tmp_path / "weights", device="cpu")
    assert not (output / "figures" / "old.png").exists()
    assert (output / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert (output / "figures" / "reconstructions.png").is_file()
    assert result.metrics["images"] == 1

    with pytest.raises(UserError, match="holds something else"):
        run_demo(images, model=tmp_path / "weights", device="cpu")
    assert (images / "one.npy").is_file()


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        run_demo(tmp_path / "demo", images=tmp_path / "nowhere")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="is a file"):
        run_demo(tmp_path / "file")
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "one.npy", np.ones((9, 9)))
    with pytest.raises(UserError, match="two or more"):
        run_demo(tmp_path / "demo", images=tmp_path / "mine")


@pytest.mark.parametrize(("shape", "side"), [((100, 90), 64), ((40, 200), 32), ((5, 90), 32)])
def test_reconstructions_keep_visible_pixels_and_fill_the_others(shape: tuple[int, int], side: int) -> None:
    pixels = np.random.default_rng(0).random(shape).astype(np.float32)
    model = StedFmForPreTraining(TINY).eval()
    (one,) = reconstruct(model, [Picture("a", pixels, None, None, "all")], side=64, seed=0)
    assert one.original.shape == one.seen.shape == one.predicted.shape == (side, side)
    hidden = np.ma.getmaskarray(one.seen)
    assert hidden.mean() == 0.75
    np.testing.assert_array_equal(one.predicted[~hidden], one.original[~hidden])
    assert not np.array_equal(one.predicted[hidden], one.original[hidden])
