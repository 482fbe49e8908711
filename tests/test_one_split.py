"""One split for all commands: nothing is tested on what a model was trained or selected on.

On folders without splits, while files are added, removed and renamed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stedfm_hf.cli import main
from stedfm_hf.data import build
from stedfm_hf.evaluation import evaluate_knn, evaluate_probe, evaluate_segmentation, protocol
from stedfm_hf.evaluation.segmentation import protocol as segmentation
from stedfm_hf.evaluation.settings import MaskSettings, ProbeSettings
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import UserError
from stedfm_hf.training import classify, segment
from stedfm_hf.training.finetuning.settings import ClassificationSettings, SegmentationSettings
from tests.training.classification import small_runs
from tests.training.finetuning.small import write_encoder
from tests.training.segmentation import small_segmentations

PATTERN = r"cell\d+"
REPORT = Path("unused")


class Folder:
    """Image files whose pixels nothing else has, with a class, or a mask, for each."""

    def __init__(self, root: Path, seed: int, masks: bool) -> None:
        self.root, self.masks, self.rng = root, masks, np.random.default_rng(seed)
        self.count = 0

    def files(self) -> list[Path]:
        return sorted(self.root.glob("images/*.npy" if self.masks else "?/*.npy"))

    def name(self) -> str:
        return f"cell{self.rng.integers(300)}_{self.rng.integers(10**9)}.npy"

    def add(self, count: int) -> None:
        for _ in range(count):
            self.count += 1
            file = self.root / ("images" if self.masks else "ab"[self.count % 2]) / self.name()
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, self.rng.integers(1, 60_000, (8, 8)).astype(np.uint16))
            if self.masks:
                mask = self.root / "masks" / file.name
                mask.parent.mkdir(exist_ok=True)
                np.save(mask, np.eye(8, dtype=np.uint8))

    def change(self) -> None:
        """Remove some files, rename some, copy one and add some."""
        files = self.files()
        self.rng.shuffle(files)
        for file in files[:6]:
            file.unlink()
        for file in files[6:20]:
            # The source that a pattern finds stays.
            self.move(file, file.with_name(f"{file.stem.partition('_')[0]}_{self.rng.integers(10**9)}.npy"))
        shutil.copyfile(files[20], files[20].with_name(f"{files[20].stem}0.npy"))
        if self.masks:
            mask = self.root / "masks" / files[20].name
            shutil.copyfile(mask, mask.with_name(f"{files[20].stem}0.npy"))
        self.add(10)

    def move(self, file: Path, target: Path) -> None:
        file.rename(target)
        if self.masks:
            (self.root / "masks" / file.name).rename(self.root / "masks" / target.name)


def trained(root: Path, masks: bool, pattern: str | None) -> Splits[Any]:
    """The splits of `stedfm finetune`."""
    if masks:
        masked = SegmentationSettings("demo", str(root), output=REPORT, source_pattern=pattern)
        return segment.read_splits(masked, image_size=8)
    return classify.read_splits(ClassificationSettings("demo", str(root), output=REPORT, source_pattern=pattern))


def scored(root: Path, masks: bool, pattern: str | None, seed: int) -> list[Splits[Any]]:
    """The splits of `stedfm evaluate`."""
    if masks:
        return [
            segmentation.read_splits(
                MaskSettings(root, REPORT, folds=None, model=["any"], seed=seed, source_pattern=pattern)
            )
        ]
    return [protocol.read_splits(ProbeSettings(root, REPORT, seed=seed, source_pattern=pattern))]


@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(4, 20), marks=pytest.mark.slow)])
@pytest.mark.parametrize(("masks", "pattern"), [(False, None), (False, PATTERN), (True, None)])
def test_no_command_tests_on_what_another_trains_or_selects_on(
    masks: bool, pattern: str | None, seeds: range, tmp_path: Path
) -> None:
    for seed in seeds:
        folder = Folder(tmp_path / str(seed), seed, masks)
        folder.add(40)
        used, asked = set[str](), set[str]()
        for _ in range(2):
            splits = trained(folder.root, masks, pattern)
            for images in (splits.train, splits.validation):
                used |= {*images.sources.tolist(), *images.contents.tolist()}
            assert len(splits.test), "these folders are large enough to have a test"
            for other in scored(folder.root, masks, pattern, seed):
                assert len(other.test)
                asked |= {*other.test.sources.tolist(), *other.test.contents.tolist()}
            folder.change()
        assert not used & asked


def test_a_data_set_that_is_built_has_the_splits_of_its_folder(tmp_path: Path) -> None:
    for seed in (0,):
        folder = Folder(tmp_path / str(seed), seed, masks=False)
        folder.add(40)
        folder.change()
        splits = trained(folder.root, False, None)
        repo = tmp_path / f"repo{seed}"
        build(folder.root, repo, crop_size=8, min_foreground=0.0, labels="folder", workers=1, seed=seed)
        built: dict[str, set[str]] = {}
        for path in repo.glob("data/*.parquet"):
            built.setdefault(path.name.split("-")[0], set()).update(pq.read_table(path)["source"].to_pylist())
        assert built == {name: set(images.sources.tolist()) for name, images in splits.named().items()}
        assert trained(repo, False, None).facts() == protocol.read_splits(ProbeSettings(repo, REPORT)).facts()


# ------------------------------------------------------------------------------------- with models that are trained


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class folder without splits."""
    root = tmp_path_factory.mktemp("data") / "classes"
    for number in range(48):
        kind = ("rings", "dots")[number % 2]
        (root / kind).mkdir(parents=True, exist_ok=True)
        np.save(root / kind / f"cell{number}.npy", small_runs.draw_image(kind, 5.0, number))
    return root


@pytest.fixture(scope="module")
def classifier(classes: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "classifier"
    small_runs.run(encoder, classes, output, "--mode full --max_steps 2 --num-evaluations 1 --labels_per_class 4")
    return output


def resorted(splits: Splits[Any], root: Path, target: Path, place: Callable[[str, int], str]) -> Path:
    """The files of a folder in splits of their own, under other names.

    Args:
        splits: Of the folder.
        root: The folder.
        target: Folder to write.
        place: Gives the new split of a file from the old one and its number there; "" leaves it out.
    """
    for name, images in splits.named().items():
        for number, path in enumerate(images.image_ids.tolist()):
            if split := place(name, number):
                file = target / split / path.split("/")[0] / f"other-{name}-{number}.npy"
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / path, file)
    return target


def mixed(split: str, number: int) -> str:
    """Some images of each split are now in the test, and all that were there."""
    return "test" if split == "test" or number < 4 else "train" if split == "train" else ""


def test_a_report_leaves_out_what_a_model_was_trained_on(
    classes: Path, classifier: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"baselines": ["histogram"], "device": "cpu", "cache": None}
    models = [str(classifier), str(encoder)]
    same = evaluate_probe(classes, tmp_path / "same", model=models, labels_per_class=["all"], **options).record
    count = same["split"]["splits"]["test"]["images"]
    assert f"None of {count} test images was used to train or select {classifier}." in same["notes"]
    assert f"It is unknown which images {encoder} was trained on." in same["notes"]

    data = resorted(trained(classes, False, None), classes, tmp_path / "mixed", mixed)
    line = f"8 of {8 + count} test images are excluded for all methods, because a model was trained or selected"
    words = ["evaluate", "knn", "--dataset", str(data), "--model", *models, "--baselines", "histogram"]
    for pattern in ([], ["--source-pattern", r"other-(\w+-\d+)"]):  # a pattern that renames the sources hides nothing
        report = tmp_path / f"knn{len(pattern)}"
        assert main([*words, *pattern, "--cache", "none", "--device", "cpu", "--output", str(report)]) == 0
        assert f"note: {line}" in capsys.readouterr().err
        record = json.loads((report / "results.json").read_text(encoding="utf-8"))
        assert record["split"]["splits"]["test"]["images"] == count
        assert line in (report / "report.html").read_text(encoding="utf-8")
        answers = pq.read_table(report / "predictions.parquet").to_pylist()
        assert {row["image_id"].rpartition("other-")[2].split("-")[0] for row in answers} == {"test"}
        assert len(answers) == count * len({(row["method"], row["setting"]) for row in answers})

    every = evaluate_knn(classes, tmp_path / "one-out", model=models, leave_one_out=True, **options).record
    assert every["split"]["splits"]["test"]["images"] == count
    assert every["split"]["splits"]["train"]["images"] == 48

    shutil.rmtree(data / "test")
    shutil.copytree(data / "train", data / "test", ignore=shutil.ignore_patterns("*[02468].npy"))
    shutil.copytree(data / "train", tmp_path / "seen" / "train", ignore=shutil.ignore_patterns("*[13579].npy"))
    (data / "test").rename(tmp_path / "seen" / "test")
    with pytest.raises(UserError, match="test images are from source images that a model was trained or selected on"):
        evaluate_probe(tmp_path / "seen", tmp_path / "none", model=models, **options)


def test_classify_reports_how_many_images_the_model_was_trained_on(
    classes: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = trained(classes, False, None)
    used = len(splits.train) + len(splits.validation)
    words = ["classify", str(classes), "--model", str(classifier), "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "out.parquet")]) == 0
    assert f"from 48 files; the model was trained or selected on {used} of them" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "out.parquet.manifest.json").read_text(encoding="utf-8"))
    assert manifest["options"]["trained_on"] == used
    foreign = shutil.copytree(classifier, tmp_path / "foreign")
    (foreign / "training_sources.json").unlink()
    assert main([*words[:2], "--model", str(foreign), "--device", "cpu", "--output", str(tmp_path / "b.parquet")]) == 0
    assert "the training images of the model are unknown" in capsys.readouterr().out


def test_the_record_goes_from_model_to_model_and_names_no_image(
    classes: Path, classifier: Path, tmp_path: Path
) -> None:
    record = json.loads((classifier / "training_sources.json").read_text(encoding="utf-8"))
    assert record == json.loads((classifier / "seed-42" / "training_sources.json").read_text(encoding="utf-8"))
    splits = trained(classes, False, None)
    assert len(record["ids"]) == len(splits.train) + len(splits.validation), "all, though few labels were drawn"
    text = json.dumps(record)
    assert not any(source in text for source in splits.train.sources.tolist()) and "cell" not in text
    other = tmp_path / "data"
    for number in range(48, 88):
        kind = ("rings", "dots")[number % 2]
        (other / kind).mkdir(parents=True, exist_ok=True)
        np.save(other / kind / f"cell{number}.npy", small_runs.draw_image(kind, 5.0, number))
    small_runs.run(classifier, other, tmp_path / "second", "--mode linear-probe --max_steps 2 --num-evaluations 1")
    second = json.loads((tmp_path / "second" / "training_sources.json").read_text(encoding="utf-8"))
    assert set(record["ids"]) < set(second["ids"])
    card = (tmp_path / "second" / "README.md").read_text(encoding="utf-8")
    assert "a hash of the id of each source image decides its split" in card and "training_sources.json" in card


def test_masks_that_a_segmenter_was_trained_on_are_not_scored(encoder: Path, tmp_path: Path) -> None:
    root = tmp_path / "scenes"
    for number in range(30):
        image, mask = small_segmentations.draw_scene(number)
        for kind, array in (("images", image), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            np.save(root / kind / f"cell{number}.npy", array)
    model = tmp_path / "segmenter"
    small_segmentations.run(encoder, root, model, "--max_steps 2 --num-evaluations 1")
    splits = trained(root, True, None)
    options: dict[str, Any] = {"baselines": ["constant"], "device": "cpu"}
    every = evaluate_segmentation(root, tmp_path / "all", model=[str(model)], split="all", **options)
    left = len(splits.train) + len(splits.validation)
    assert every.record["notes"][0].startswith(f"{left} of 30 test images are excluded for all methods")
    table = pq.read_table(tmp_path / "all" / "per_image.parquet").to_pylist()
    assert {row["image_id"] for row in table} == set(splits.test.image_ids.tolist())
    assert every.manifest.counts()["skipped"] == left
    only = evaluate_segmentation(root, tmp_path / "test", model=[str(model)], **options).record
    assert only["split"]["splits"]["test"]["images"] == len(splits.test)
    with pytest.raises(UserError, match="Too few remain: 0 source images"):
        evaluate_segmentation(root, tmp_path / "none", model=[str(model)], split="train", **options)
