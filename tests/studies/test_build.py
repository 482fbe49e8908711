"""Studies that are built from the results of other commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from stedfm_hf import StedFmModel
from stedfm_hf.cli import main
from stedfm_hf.data.simulation.simulate import simulate
from stedfm_hf.discovery.index import index
from stedfm_hf.discovery.search import search
from stedfm_hf.generation import generate
from stedfm_hf.interpretability import explain
from stedfm_hf.runs import sha256_file
from stedfm_hf.studies.study import GENERATED, RANK, REAL, read_study
from tests.generation_models import tiny_pipeline
from tests.models import tiny_config

NAMES = ("fibres/a.tif", "fibres/b.tif", "rings/a.tif")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with images, maps of two models, generated images and search results."""
    place = tmp_path_factory.mktemp("build")
    for number, name in enumerate(NAMES):
        (place / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 4000, (64, 64)).astype(np.uint16)
        tifffile.imwrite(place / "images" / name, pixels)
    for seed in (0, 1):
        StedFmModel(tiny_config()).save_pretrained(place / f"model{seed}")
        explain(place / "images", output=place / f"maps{seed}", model=place / f"model{seed}", device="cpu")
    tiny_pipeline().save_pretrained(place / "pipeline")
    generate(place / "images", output=place / "generated", model=place / "pipeline", number=2, num_inference_steps=2)
    index(place / "images", output=place / "index", model=place / "model0", device="cpu")
    search(place / "index", place / "images" / NAMES[0], output=place / "found")
    return place


def build(place: Path, output: Path, *words: str) -> int:
    return main(["study", "build", *(word.format(place) for word in words), "--output", str(output)])


def test_maps_of_models_are_shown_with_their_image(place: Path, tmp_path: Path) -> None:
    words = ("A={}/maps0", "B={}/maps1", "--type", "choose", "--images", "{}/images", "--title", "Maps")
    assert build(place, tmp_path / "study", *words) == 0
    study = read_study(tmp_path / "study" / "study.yaml")
    assert study.groups == ("A", "B") and len(study.stimuli) == 3 and study.title == "Maps"
    files = [name for each in study.stimuli for name in (each.image, *each.options.values())]
    assert len(set(files)) == 9
    assert all(Image.open(tmp_path / "study" / str(name)).size == (64, 64) for name in files)
    rows = pq.read_table(tmp_path / "study" / "stimuli.parquet").to_pylist()
    assert {row["file"] for row in rows} == set(files)
    maps = [row for row in rows if row["role"] == "B"]
    assert [row["path"] for row in maps] == list(NAMES) and {row["command"] for row in maps} == {"explain"}
    assert maps[0]["source_sha256"] == sha256_file(place / "maps1" / "fibres" / "a.tif.map1.tif")
    assert not any(Path(row["source_file"]).is_absolute() for row in rows)


def test_real_and_generated_images_are_shown_alone_or_in_pairs(place: Path, tmp_path: Path) -> None:
    assert build(place, tmp_path / "one", "M={}/generated", "--type", "real-or-generated") == 0
    study = read_study(tmp_path / "one" / "study.yaml")
    assert [each.truth for each in study.stimuli] == [REAL] * 3 + [GENERATED] * 6 and study.groups == ("M",)
    stack = tifffile.imread(place / "generated" / "fibres" / "a.tif.generated1.tif")
    shown = [np.asarray(Image.open(tmp_path / "one" / str(study.stimuli[place].image))) for place in (0, 3, 4)]
    assert all(
        np.array_equal(plane, np.rint(values.clip(0, 1) * 255)) for plane, values in zip(shown, stack, strict=True)
    )
    words = ("M={}/generated", "--type", "real-or-generated", "--paired", "--per-image", "1", "--max-images", "2")
    assert build(place, tmp_path / "two", *words) == 0
    study = read_study(tmp_path / "two" / "study.yaml")
    assert study.is_paired and len(study.stimuli) == 2 and study.question == "Which image is real?"


def test_structures_are_named(place: Path, tmp_path: Path) -> None:
    assert build(place, tmp_path / "study", "real={}/images", "M={}/generated", "--type", "classify") == 0
    study = read_study(tmp_path / "study" / "study.yaml")
    assert study.classes == ("fibres", "rings") and study.groups == ("real", "M")
    assert [each.truth for each in study.stimuli[:3]] == ["fibres", "fibres", "rings"]


def test_search_results_are_ranked(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = f"{place}/images/{NAMES[0]}"
    words = ("A={}/found", "B={}/found", "--type", "rank", "--images", "{}/images", "--example", example)
    assert build(place, tmp_path / "study", *words) == 0
    assert "note: 2 images in more than one group" in capsys.readouterr().err
    study = read_study(tmp_path / "study" / "study.yaml")
    assert study.type == RANK and study.groups == ("A", "B") and len(study.stimuli) == 4
    assert (tmp_path / "study" / str(study.example)).is_file()


def test_images_of_a_data_set_are_shown_and_its_splits_are_not_answers(tmp_path: Path) -> None:
    simulate(tmp_path / "set", structures=["rings"], splits={"train": 2, "test": 1}, format="dataset", workers=1)
    assert build(tmp_path, tmp_path / "ranked", "A={}/set", "--type", "rank") == 0
    assert len(read_study(tmp_path / "ranked" / "study.yaml").stimuli) == 3
    words = ("A={}/set", "--type", "classify", "--classes", "train", "--classes", "test")
    assert build(tmp_path, tmp_path / "named", *words) == 0
    assert not any(each.truth for each in read_study(tmp_path / "named" / "study.yaml").stimuli)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("A={}/maps0", "B={}/maps1", "--type", "choose"), "give their folder with --images"),
        (("A={}/maps0", "--type", "choose"), "give at least two"),
        (("A={}/maps0", "A={}/maps1", "--type", "choose"), "two groups have the same name"),
        (("A={}/maps0", "B={}/generated", "--type", "choose"), "A: has no picture of 3 images of the other groups"),
        (("A={}/maps0", "--type", "real-or-generated"), "A: holds no generated images"),
        (("A={}/nothing", "--type", "classify"), "nothing: no such folder"),
        (("A={}/found", "--type", "rank"), "the images that the search found are needed"),
        (("A={}/images/rings", "--type", "classify"), "classify needs at least two answers"),
        (("A={}/images/rings", "--type", "rank"), "rank compares images; give at least two"),
        (("={}/found", "--type", "rank"), "is not GROUP=FOLDER"),
        (("A={}/images", "--type", "rank", "--paired"), "--paired belongs to real-or-generated, not to rank"),
    ],
)
def test_what_does_not_suit_the_task_is_named_and_nothing_is_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert build(place, tmp_path / "study", *words) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "study").exists()


def test_a_missing_file_of_the_results_is_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = place / "maps1" / "rings" / "a.tif.map1.tif"
    lost.rename(tmp_path / "kept.tif")
    try:
        assert build(place, tmp_path / "study", "A={}/maps0", "B={}/maps1", "--type", "choose") == 2
        assert "rings/a.tif.map1.tif: no such file; make the results" in capsys.readouterr().err
    finally:
        (tmp_path / "kept.tif").rename(lost)
