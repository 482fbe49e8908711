"""The tab `Explain` shows and writes what `stedfm explain` computes for the same file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from stedfm_hf import StedFmForImageClassification
from stedfm_hf.app.tabs.explain import ATTENTION, CLASS_TOKEN, COLOURS, EVIDENCE, PATCH, PREDICTED
from stedfm_hf.app.visits import Visit
from stedfm_hf.data import simulate_image
from stedfm_hf.interpretability import explain
from stedfm_hf.runs import UserError
from tests.app.pages import RecordedPage, make_page
from tests.models import tiny_config

CLASSIFIER, MEAN = "classifier classifier", "mean of all blocks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("explain")
    image = simulate_image("rings", seed=5, index=0)[:75, :50]
    tifffile.imwrite(made / "cell.tif", image, imagej=True, resolution=(50, 50), metadata={"unit": "um"})
    torch.manual_seed(0)
    for name, pooling in (("classifier", "avg"), ("token", "token")):
        config = tiny_config(id2label={0: "rings", 1: "fibres"}, pooling=pooling)
        StedFmForImageClassification(config).save_pretrained(made / name)
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[RecordedPage]:
    made = make_page(folder / "work", classifier=folder / "classifier")
    yield made
    made.visits.close()


def press(page: RecordedPage, visit: Visit, chosen: str, **inputs: Any) -> dict[str, Any]:
    values = {
        "label": PREDICTED,
        "model": CLASSIFIER,
        "blocks": MEAN,
        "token": CLASS_TOKEN,
        "row": 0,
        "column": 0,
        "structures": False,
    }
    return page.press("Explain", visit, chosen, *(values | inputs).values())


def read(files: list[str]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the map and its resolution."""
    with tifffile.TiffFile(next(file for file in files if file.endswith(".map.tif"))) as tiff:
        return tiff.asarray(), tiff.pages.first.tags["XResolution"].value


@pytest.mark.parametrize(
    ("chosen", "inputs", "options"),
    [
        (EVIDENCE, {}, {"method": "logit"}),
        (EVIDENCE, {"label": "fibres"}, {"method": "logit", "label": "fibres"}),
        (ATTENTION, {"blocks": "last block"}, {"method": "attention", "aggregate": "last"}),
        (ATTENTION, {"token": PATCH, "row": 70, "column": 9}, {"method": "attention", "query": (70, 9)}),
        (COLOURS, {}, {"method": "pca"}),
        (COLOURS, {"structures": True}, {"method": "pca", "foreground": "otsu"}),
    ],
)
def test_maps_are_those_of_the_command(
    page: RecordedPage, folder: Path, tmp_path: Path, chosen: str, inputs: dict[str, Any], options: dict[str, Any]
) -> None:
    visit = page.open(folder / "cell.tif")
    shown = press(page, visit, chosen, **inputs)
    explain(folder / "cell.tif", tmp_path / "out", model=folder / "classifier", device="cpu", **options)
    with tifffile.TiffFile(tmp_path / "out" / "cell.tif.map1.tif") as tiff:
        expected, resolution = tiff.asarray(), tiff.pages.first.tags["XResolution"].value
    values, written = read(shown["Downloads"])
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert written == resolution
    assert {Path(file).name for file in shown["Downloads"]} == {"cell.map.tif", "cell.figure.png"}
    assert Path(shown["explained"]).is_relative_to(visit.folder)


def test_captions_say_what_the_maps_are(page: RecordedPage, folder: Path) -> None:
    visit = page.open(folder / "cell.tif")
    shown = press(page, visit, EVIDENCE, label="fibres")
    total = read(shown["Downloads"])[0].sum()
    assert f"fibres: logit {total:+.3g}." in shown["explain-summary"]
    assert "The image is larger than the crops" in shown["explain-summary"]
    shown = press(page, visit, ATTENTION)
    assert "Attention of the class token" in shown["explain-summary"]
    assert "does not use the class token" in shown["explain-summary"]
    shown = press(page, visit, ATTENTION, token=PATCH, row=17, column=9)
    assert "Attention of the marked patch" in shown["explain-summary"]
    assert "does not prove that they cause a result" in shown["explain-summary"]
    assert "colours of different images cannot be compared" in press(page, visit, COLOURS)["explain-summary"]


@pytest.mark.figures
def test_the_picture_shows_the_colours_over_the_image(page: RecordedPage, folder: Path) -> None:
    visit = page.open(folder / "cell.tif")
    grey = np.asarray(Image.open(press(page, visit, ATTENTION)["explained"]).convert("RGB")).astype(int)
    assert grey.shape == (75 * 6, 50 * 6, 3)
    colours = np.asarray(Image.open(press(page, visit, COLOURS)["explained"]).convert("RGB")).astype(int)
    assert np.ptp(colours, axis=2).mean() > 20  # opaque colours, and no grey image


def test_what_cannot_be_shown_is_said(page: RecordedPage, folder: Path, tmp_path: Path) -> None:
    visit = page.open(folder / "cell.tif")
    with pytest.raises(UserError, match="row 75, column 0 is outside of the image of 75 × 50 pixels"):
        press(page, visit, ATTENTION, token=PATCH, row=75)
    np.save(tmp_path / "small.npy", np.arange(64, dtype=np.uint16).reshape(8, 8))
    with pytest.raises(UserError, match="the image has 1 patches, and three colours need 3; choose a larger image"):
        press(page, page.open(tmp_path / "small.npy"), COLOURS)
    with pytest.raises(UserError, match="drop an image first"):
        press(page, page.visits.of("empty"), ATTENTION)


def test_without_an_exact_head_the_tab_has_attention_and_colours(folder: Path) -> None:
    for name, classifier in (("token", folder / "token"), ("bare", None)):
        page = make_page(folder / f"work-{name}", classifier=classifier)
        model = f"encoder {page.models.encoder.name}" if classifier is None else "classifier token"
        shown = press(page, page.open(folder / "cell.tif"), ATTENTION, label=None, model=model)
        assert "Attention of the class token" in shown["explain-summary"]
        page.visits.close()
