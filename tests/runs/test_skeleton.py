"""A toy command from its settings to its exit status: what every command gets from the skeleton."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml

from stedfm_hf.runs import Manifest, UserError
from stedfm_hf.runs.command_line import add_command, run_app
from tests.runs.toy_command import BrightnessSettings, brightness

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(3):
        np.save(tmp_path / "images" / f"{number}.npy", np.full((4, 4), number, np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "images"


def run(words: str) -> int:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    function = f"{brightness.__module__}:brightness"
    add_command(app, "brightness", function, settings=BrightnessSettings, example="stedfm brightness images")
    return run_app(app, words.split())


def test_a_command_needs_fewer_than_40_lines_and_the_docs_show_it() -> None:
    code = (Path(__file__).parent / "toy_command.py").read_text("utf-8")
    assert len(code.splitlines()) < 40
    page = Path(__file__).parents[2] / "docs" / "explanation" / "architecture.md"
    assert code in page.read_text("utf-8")


def test_settings_make_help_keywords_manifest_and_json(images: Path, capsys: Captured) -> None:
    assert run("brightness --help") == 0
    shown = capsys.readouterr().out
    assert "Measure the brightness of images." in shown and "Percentile of the intensities.  [default: 50.0]" in shown
    assert "percentile: Percentile of the intensities." in (brightness.__doc__ or "")
    assert run("brightness images --percentile 10 --json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["settings"] == {"percentile": 10.0} and answer["done"] == 3
    record = Manifest.load("brightness/manifest.json")
    assert record.settings == {"percentile": 10.0} and record.items["2.npy"].reason == "brightness 2"
    assert brightness("images", percentile=10).manifest.items == record.items


def test_a_command_resumes_is_finished_refuses_and_overwrites(images: Path, capsys: Captured) -> None:
    (images / "bad.npy").write_bytes(b"damaged")
    assert run("brightness images") == 1
    assert "stedfm: error: bad.npy: " in capsys.readouterr().err
    np.save(images / "bad.npy", np.zeros((4, 4)))
    assert run("brightness images") == 0, "what had failed is tried again"
    begun = Path("brightness/manifest.json").read_bytes()
    assert run("brightness images") == 0
    assert Path("brightness/manifest.json").read_bytes() == begun, "a finished output stays as it was"
    assert run("brightness images --percentile 20") == 2
    assert "other settings (percentile: 50.0 before, 20.0 now)" in capsys.readouterr().err
    assert run("brightness images --percentile 20 --overwrite") == 0
    with pytest.raises(UserError, match="holds other files, such as 0.npy"):
        brightness(images, output=images)


def test_a_recipe_gives_values_that_options_override(images: Path, capsys: Captured) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"percentile": 30, "output": "elsewhere"}), encoding="utf-8")
    assert run("brightness images --recipe mine.yaml --percentile 40 --json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["output"], answer["settings"]["percentile"]) == ("elsewhere", 40.0)
    Path("mine.yaml").write_text("percentil: 30", encoding="utf-8")
    assert run("brightness images --recipe mine.yaml") == 2
    assert "mine.yaml: percentil is not an option; did you mean percentile?" in capsys.readouterr().err


def test_wrong_values_are_told_by_name(images: Path, capsys: Captured) -> None:
    assert run("brightness images --percentile 101") == 2
    assert "percentile is 101.0; it must be 0 to 100" in capsys.readouterr().err
    with pytest.raises(TypeError, match="percentil"):
        brightness("images", percentil=3)  # type: ignore[call-arg]


def test_an_interrupted_run_is_recorded_as_such(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(item: str, value: float) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("tests.runs.toy_command._measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        brightness("images")
    record = Manifest.load("brightness/manifest.json")
    assert record.ended is None and not record.items
    monkeypatch.undo()
    assert brightness(images, output=images.parent / "brightness").manifest.counts()["done"] == 3
