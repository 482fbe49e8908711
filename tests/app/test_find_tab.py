"""The tab `Find structures` gives the regions of `stedfm find`, with a finder or with clicked places."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch

from stedfm_hf import StedFmForPreTraining
from stedfm_hf.acquisition import find, fit_finder
from stedfm_hf.app.tabs.find import CLICKED
from stedfm_hf.runs import UserError
from tests.app.pages import RecordedPage, make_page
from tests.models import tiny_config

PLACES = "20, 28; 52, 60"
SHARED = ["rank", "label", "score", "y_px", "x_px", "height_px", "width_px", "centre_y_um"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("find-tab")
    (made / "images").mkdir()
    pixels = np.random.default_rng(0).poisson(3, (72, 88)).astype(np.uint16)
    for y, x in ((20, 28), (52, 60), (28, 68)):
        pixels[y - 4 : y + 4, x - 4 : x + 4] += 200
    facts: dict[str, Any] = {"imagej": True, "resolution": (20, 20), "metadata": {"unit": "um"}}
    tifffile.imwrite(made / "images" / "cell.tif", pixels, **facts)
    torch.manual_seed(0)
    StedFmForPreTraining(tiny_config()).save_pretrained(made / "model")
    rows = "".join(f"cell.tif,{place.strip().replace(' ', '')}\n" for place in PLACES.split(";"))
    (made / "clicks.csv").write_text(f"path,y_px,x_px\n{rows}")
    fit_finder(
        made / "images",
        made / "my-finder",
        clicks=made / "clicks.csv",
        model=made / "model",
        device="cpu",
        batch_size=32,
    )
    shutil.copytree(made / "my-finder", made / "strict")
    record = json.loads((made / "strict" / "finder.json").read_text())
    (made / "strict" / "finder.json").write_text(json.dumps(record | {"min_scores": [7.5]}))
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[RecordedPage]:
    made = make_page(
        folder / "work", model=str(folder / "model"), finder=[str(folder / each) for each in ("my-finder", "strict")]
    )
    yield made
    made.visits.close()


@pytest.mark.parametrize("chosen", ["my-finder", CLICKED])
def test_regions_are_those_of_the_command(page: RecordedPage, folder: Path, tmp_path: Path, chosen: str) -> None:
    visit = page.open(folder / "images" / "cell.tif")
    shown = page.press("Find structures", visit, chosen, PLACES, 16, 3)
    expected = find(
        folder / "images",
        folder / "my-finder",
        tmp_path / "found",
        device="cpu",
        region_size_px=16,
        count=3,
        batch_size=32,
    ).table.to_pylist()
    written = pq.read_table(next(file for file in shown["Downloads"] if file.endswith(".parquet"))).to_pylist()
    assert len(written) == len(expected) > 0
    for row, other in zip(written, expected, strict=True):
        assert {name: row[name] for name in SHARED} == pytest.approx({name: other[name] for name in SHARED}, abs=1e-5)
    assert {Path(file).suffix for file in shown["Downloads"]} >= {".csv", ".parquet", ".tif", ".png"}
    assert Path(shown["find-regions"]).is_relative_to(visit.folder)
    assert f"{len(expected)} region" in shown["find-summary"]
    assert ("Templates: the patches at 2 places" in shown["find-summary"]) == (chosen == CLICKED)


def test_an_image_without_regions_says_why(page: RecordedPage, folder: Path) -> None:
    shown = page.press("Find structures", page.open(folder / "images" / "cell.tif"), "strict", PLACES, 16, 3)
    assert "0 regions" in shown["find-summary"]
    why = "No score reaches the smallest score of a region, which is 7.5 for structure; the highest is "
    assert why in shown["find-summary"]


@pytest.mark.parametrize(
    ("places", "message"),
    [("", "no place is clicked"), ("3", "3 is not a place"), ("3, 99", "outside of the image of 72 × 88 pixels")],
)
def test_wrong_places_are_refused(page: RecordedPage, folder: Path, places: str, message: str) -> None:
    visit = page.open(folder / "images" / "cell.tif")
    with pytest.raises(UserError, match=message):
        page.press("Find structures", visit, CLICKED, places, 16, 3)


def test_a_missing_finder_is_reported_at_the_start(folder: Path) -> None:
    with pytest.raises(UserError, match="finder nowhere: no such folder"):
        make_page(folder / "other", model=str(folder / "model"), finder=["nowhere"])
