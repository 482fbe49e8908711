"""The example script runs from end to end: server, client, simulated microscope, images."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import tifffile
import torch
from starlette.testclient import TestClient

from stedfm_hf import StedFmModel
from stedfm_hf.acquisition import Client
from stedfm_hf.acquisition.serving.application import make_app
from stedfm_hf.acquisition.serving.settings import ServeSettings
from stedfm_hf.images import read_image
from tests.models import tiny_config

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "acquire.py"


def test_the_example_acquires_what_the_server_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    StedFmModel(tiny_config()).save_pretrained(tmp_path / "model")
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) < 60
    main = runpy.run_path(str(SCRIPT))["main"]
    settings = ServeSettings(model=tmp_path / "model", state=tmp_path / "state", device="cpu")
    with TestClient(make_app(settings)) as http:
        main(Client(http=http), ["--output", str(tmp_path / "images"), "--count", "2"])
    files = sorted((tmp_path / "images").iterdir())
    assert [file.name for file in files] == ["region_01.tif", "region_02.tif"]
    assert [read_image(file).pixel_size_nm for file in files] == [pytest.approx((20, 20))] * 2
    assert not list((tmp_path / "state" / "clients").glob("*/*"))
    images = [tifffile.imread(file) for file in files]
    assert images[0].shape == (80, 80) and all(image.max() > 5 for image in images)
    assert capsys.readouterr().out.count("µm") == 4
