"""The whole demo, small: every step is a command that users call, and the page shows what came out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoImageProcessor, AutoModel

from stedfm_hf.cli import main
from stedfm_hf.demo.figures import Embedded, one_of_each, project
from stedfm_hf.demo.run import demo
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.runs import EXIT_USAGE, Manifest, UserError
from tests.models import tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:.*each epoch drops")


def write_images(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(folder.name))
    for number in range(count):
        np.save(folder / f"{number}.npy", rng.poisson(20, (70, 65 + number)).astype(np.uint16))
    return folder


def test_the_demo_runs_from_simulation_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "demo"
    words = f"demo --output {output} --max-seconds 1 --per-structure 10 --device cpu --seed 1"
    assert main(words.split()) == 0
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5
    assert not re.search(r"https?://|src=\"(?!data:)", page)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["images"] == 4 * (5 + 2) and metrics["training"]["steps"] >= 1
    assert list(metrics["knn"]["methods"]) == ["network", "untrained", "log-spectrum", "histogram", "chance"]
    assert metrics["training"]["constant_loss"] > 0 and str(tmp_path) not in json.dumps(metrics["knn"]["methods"])
    assert isinstance(AutoModel.from_pretrained(output / "model"), StedFmModel)
    assert AutoImageProcessor.from_pretrained(output / "model").patch_size == 8
    manifest = Manifest.load(output / "manifest.json")
    assert (manifest.command, manifest.settings["seed"], manifest.counts()["done"]) == ("demo", 1, 28)
    assert "loss on held-out crops" in capsys.readouterr().out
    for command, folder in (("data simulate", "images"), ("data build", "data"), ("pretrain", "model")):
        assert Manifest.load(output / folder / "manifest.json").command == command


@pytest.mark.figures
def test_ones_own_images_and_weights_without_labels(tmp_path: Path) -> None:
    images = write_images(tmp_path / "mine")
    (images / "broken.tif").write_bytes(b"no tiff")
    StedFmModel(tiny_config()).save_pretrained(tmp_path / "weights")
    output = tmp_path / "demo"
    for _ in range(2):
        result = demo(output, images=images, model=str(tmp_path / "weights"), device="cpu")
        assert result.metrics["knn"] is None and result.metrics["training"] is None
        assert list(result.manifest.failures()) == ["broken.tif"] and result.exit_status == 1
        page = result.report.read_text(encoding="utf-8")
        assert "broken.tif" in page and "kNN accuracy" not in page
        assert {file.stem for file in (output / "figures").iterdir()} == {"map", "neighbours"}
        assert not (images / "manifest.json").exists() and (output / "notes.txt").exists() == bool(_)
        # A second demo replaces the first one and nothing else.
        (output / "figures" / "old.png").write_bytes(b"")
        (output / "notes.txt").write_text("mine", encoding="utf-8")


def test_ones_own_images_with_labels_are_trained_on_and_tested(tmp_path: Path) -> None:
    for label in ("cells", "dots"):
        write_images(tmp_path / "mine" / label, 20)
    result = demo(tmp_path / "demo", images=tmp_path / "mine", max_seconds=0.5, device="cpu")
    assert result.metrics["knn"]["methods"]["network"]["interval"] is not None
    assert result.metrics["training"]["steps"] >= 1 and result.exit_status == 0


def test_wrong_arguments_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--output", str(tmp_path / "demo"), "--images", "nowhere"]) == EXIT_USAGE
    assert "nowhere: is not a folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="is a file"):
        demo(tmp_path / "file")
    with pytest.raises(UserError, match="holds other files"):
        demo(tmp_path)


def test_shown_images_are_taken_in_turn_from_the_labels() -> None:
    labels = list("aaabbc")
    blank, queries = [np.zeros((2, 2))] * 6, np.array([False] + [True] * 5)
    shown = Embedded([f"{number}.tif" for number in range(6)], blank, labels, np.eye(6), queries)
    assert one_of_each(shown, most=4) == [1, 2, 3, 5]
    assert one_of_each(shown, most=9) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("count", "method"), [(1, "order"), (2, "order"), (5, "PCA"), (40, "t-SNE")])
def test_any_number_of_embeddings_has_a_map(count: int, method: str) -> None:
    positions, used = project(np.random.default_rng(0).normal(size=(count, 8)), seed=0)
    assert positions.shape == (count, 2) and np.isfinite(positions).all() and used == method
