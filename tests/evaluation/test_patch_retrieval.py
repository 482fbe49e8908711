"""Runs of `evaluate retrieval --patches`: classes of patches, excluded patches, and metrics of each query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from stedfm_hf import StedFmModel
from stedfm_hf.evaluation import RetrievalResult, evaluate_retrieval
from stedfm_hf.evaluation.patches import block_means, patches_of, sample_queries
from stedfm_hf.inference import embed
from stedfm_hf.labels.annotated import AnnotatedImages, from_arrays, read_annotated
from stedfm_hf.runs import UserError
from tests.models import tiny_config

PATCH = tiny_config().patch_size
GRID = 6
COUNT = 5


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image with one bright and one striped rectangle of patches, and its mask."""
    rng = np.random.default_rng(number)
    image = rng.poisson(5, (GRID * PATCH, GRID * PATCH)).astype(np.uint16)
    mask = np.zeros(image.shape, np.uint8)
    first, second = (np.s_[top * PATCH : (top + 2) * PATCH, PATCH : 3 * PATCH] for top in (0, 3))
    image[first] += 60
    image[second] += np.where(np.arange(2 * PATCH) % 2, 120, 0).astype(np.uint16)
    mask[first], mask[second] = 1, 2
    return image, mask


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    StedFmModel(tiny_config()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("annotated")
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number in range(COUNT):
        image, mask = scene(number)
        tifffile.imwrite(root / "images" / f"cell{number // 2}_{number}.tif", image)
        tifffile.imwrite(root / "masks" / f"cell{number // 2}_{number}.tif", mask)
    return root


def retrieve(data: Path, model: str, report: Path, **options: Any) -> RetrievalResult:
    given: dict[str, Any] = {"baselines": ["untrained", "histogram", "pixels", "texture", "chance"], "device": "cpu"}
    given |= {"patches": True, "queries_per_class": 6, "k": [1, 5], "source_pattern": r"cell\d"}
    return evaluate_retrieval(data, report, model=[model], **given | options)


def queries(report: Path, method: str, setting: str) -> list[dict[str, Any]]:
    rows = pq.read_table(report / "queries.parquet").to_pylist()
    return [row for row in rows if (row["method"], row["setting"]) == (method, setting)]


def tokens(folder: Path, model: str) -> list[np.ndarray]:
    """Unit patch tokens (rows, cols, D) of each image."""
    table = embed(folder / "images", model=model, device="cpu", pooling="patch").table
    found = np.array(table["embedding"].to_pylist())
    return [*(found / np.linalg.norm(found, axis=1, keepdims=True)).reshape(COUNT, GRID, GRID, -1)]


def annotated() -> AnnotatedImages:
    images, masks = zip(*(scene(number) for number in range(2)), strict=True)
    return from_arrays("cells", [*images], [*masks], classes=["bright", "striped"])


def test_a_class_covers_the_patches_with_half_of_their_pixels() -> None:
    mask = np.zeros((2 * PATCH, 2 * PATCH + 1))
    mask[: PATCH // 2, :PATCH] = 1.0
    mask[0, -1] = 1.0
    found = block_means(mask[None], PATCH)[..., 0]
    assert found.shape == (2, 3) and found[0, 0] == 0.5 and found[1].tolist() == [0, 0, 0]
    assert found[0, 2] == 1 / PATCH, "pixels beyond the border do not count"


def test_patches_of_the_default_and_of_the_reference_protocol() -> None:
    data = annotated()
    found = patches_of(data, PATCH)
    bright = data.classes.index("bright")
    assert len(found) == 2 * GRID**2 and found.image.tolist() == [0] * 36 + [1] * 36
    covered = {(row, col) for row, col in zip(found.row, found.col, strict=True) if row < 2 and 1 <= col < 3}
    marked = found.query[:, bright]
    assert {(r, c) for r, c in zip(found.row[marked], found.col[marked], strict=True)} == covered
    np.testing.assert_array_equal(found.query, found.relevant)
    inner = patches_of(data, PATCH, reference=True)
    assert len(inner) == 2 * (GRID - 2) ** 2 and inner.row.min() == 1 and inner.col.max() == GRID - 2
    relevant = inner.relevant[:, bright] & (inner.image == 0)
    near = {(row, col) for row in range(1, 3) for col in range(1, 4)}
    assert {(r, c) for r, c in zip(inner.row[relevant], inner.col[relevant], strict=True)} == near


def test_queries_are_sampled_for_each_class() -> None:
    data = annotated()
    patches, classes = patches_of(data, PATCH), [1, 2]
    numbers, labels = sample_queries(patches, classes, 3, seed=0)
    assert np.bincount(labels).tolist() == [3, 3]
    assert all(patches.query[number, classes[label]] for number, label in zip(numbers, labels, strict=True))
    again, other = (sample_queries(patches, classes, 3, seed=seed)[0] for seed in (0, 1))
    assert numbers.tolist() == again.tolist() != other.tolist()
    assert len(sample_queries(patches, classes, 100, seed=0)[0]) == 16


def test_every_query_equals_scikit_learn(folder: Path, model: str, tmp_path: Path) -> None:
    result = retrieve(folder, model, tmp_path / "out")
    record = result.record
    assert [each["key"] for each in record["methods"]] == [model, "untrained", "histogram", "pixels", "chance"]
    grids, data = tokens(folder, model), read_annotated(folder)["all"]
    names = data.image_ids.tolist()
    masks = [data.target(number)[::PATCH, ::PATCH] for number in range(COUNT)]
    for setting in ("other sources", "other images"):
        rows = queries(tmp_path / "out", model, setting)
        assert len(rows) == 12
        for row in rows:
            own = names.index(row["image_id"])
            others = [number for number in range(COUNT) if number != own]
            if setting == "other sources":
                others = [number for number in others if number // 2 != own // 2]
            score = np.concatenate([(grids[number] @ grids[own][row["row"], row["col"]]).ravel() for number in others])
            truth = np.concatenate([(masks[each] == data.classes.index(row["label"])).ravel() for each in others])
            assert (row["ranked"], row["relevant"]) == (len(truth), truth.sum())
            assert row["aupr"] == pytest.approx(average_precision_score(truth, score), abs=1e-4)
            assert row["auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-4)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Ranked: other images" in page and "patch tokens" in page
    summary = {row["method"]: row for row in record["summary"] if row["setting"] == "other sources"}
    assert summary["histogram"]["aupr"]["mean"] > summary["chance"]["aupr"]["mean"]
    assert summary["chance"]["auroc"]["mean"] == 0.5
    assert result.manifest.counts()["done"] == COUNT


def test_the_reference_protocol_excludes_the_patches_around_the_query(
    folder: Path, model: str, tmp_path: Path
) -> None:
    record = retrieve(folder, model, tmp_path / "out", protocol="reference").record
    assert record["primary_metric"] == "auroc"
    rows = queries(tmp_path / "out", model, "all but 3 x 3 (reference)")
    inner = (GRID - 2) ** 2
    for row in rows:
        edges = (row["row"] in (1, GRID - 2)) + (row["col"] in (1, GRID - 2))
        assert 1 <= row["row"] <= GRID - 2 and row["ranked"] == COUNT * inner - {0: 9, 1: 6, 2: 4}[edges]


def test_invalid_arguments_raise_errors(folder: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out one of them"):
        retrieve(folder, model, tmp_path / "out", target="label")
    with pytest.raises(UserError, match="add --patches"):
        retrieve(folder, model, tmp_path / "out", patches=False, classes=["a", "b"])
    torch.manual_seed(0)
    StedFmModel(tiny_config(patch_size=2 * PATCH)).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="patches of different sizes"):
        evaluate_retrieval(folder, tmp_path / "out", model=[model, str(tmp_path / "other")], patches=True)


def test_a_corrupt_image_is_skipped_and_listed(folder: Path, model: str, tmp_path: Path) -> None:
    import shutil

    data = shutil.copytree(folder, tmp_path / "set")
    (data / "images" / "cell0_0.tif").write_bytes(b"II*\0no image")
    result = retrieve(data, model, tmp_path / "out", baselines=["none"])
    assert len(result.record["data"]["failed"]) == 1 and result.manifest.exit_status == 1
    assert result.manifest.counts()["done"] == COUNT - 1
