"""What the demo works on and how it scores: labels from folders, splits by file, fair baselines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.data.building.labels import folder_labels
from stedfm_hf.demo.material import Picture, Sizes, load_pixels, simulate
from stedfm_hf.demo.pictures import one_of_each, place_on_map
from stedfm_hf.demo.scores import score, standardised
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor


def test_labels_are_folders_only_where_they_could_be_classes() -> None:
    assert folder_labels(["a/x/1.tif", "a/2.tif", "b/1.tif", "b/2.tif"]) == ["a", "a", "b", "b"]
    assert folder_labels(["a/1.tif", "a/2.tif"]) == [None, None]
    assert folder_labels(["a/1.tif", "a/2.tif", "b/1.tif"]) == [None] * 3
    assert folder_labels(["a/1.tif", "a/2.tif", "b/1.tif", "2.tif"]) == [None] * 4
    assert folder_labels(["a/1.msr", "a/1.msr", "b/1.msr", "b/1.msr"]) == [None] * 4  # series of one file each
    assert folder_labels(["query/a/1.tif", "gallery/b/1.tif"] * 1 + ["query/a/2.tif", "query/b/2.tif"], simulated=True)
    assert folder_labels([]) == []


def test_the_simulated_sets_share_no_field(tmp_path: Path) -> None:
    train, test = simulate(tmp_path, sizes=Sizes(2, 2, 1), seed=3)
    names = [file.name for folder in (train, test) for file in sorted(folder.rglob("*.tif"))]
    assert len(names) == len(set(names)) == 20
    pixels, failed = load_pixels(test, StedFmImageProcessor(patch_size=8))
    assert not failed
    assert {path.split("/")[0] for path, _, _ in pixels} == {"gallery", "query"}
    for plane, size in pixels.values():
        assert size == pytest.approx(20.0)
        assert plane.shape == (128, 128)
        assert plane.dtype == np.float32
        assert 0.0 <= plane.min() <= plane.max() <= 1.0


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_used(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", np.arange(100.0).reshape(10, 10))
    (tmp_path / "bad.tif").write_bytes(b"no tiff")
    pixels, failed = load_pixels(tmp_path, StedFmImageProcessor(patch_size=8))
    assert [path for path, _, _ in pixels] == ["good.npy"]
    assert list(failed) == ["bad.tif"]


def _pictures(parts: tuple[str, ...], label_count: int = 2, each: int = 6) -> tuple[list[Picture], np.ndarray]:
    """Pictures whose vectors point along their label; pixels are noise, so that no baseline can know it."""
    rng = np.random.default_rng(0)
    pictures, vectors = [], []
    for part in parts:
        for label in range(label_count):
            for number in range(each):
                path = f"{part}/{label}/{number}.tif"
                pictures.append(Picture(path, rng.random((20, 24)), None, f"class {label}", part))
                vectors.append(np.eye(label_count)[label] + rng.normal(0, 0.05, label_count))
    return pictures, np.array(vectors)


def test_a_gallery_and_queries_are_kept_apart_and_every_method_is_scored_on_the_same_queries() -> None:
    pictures, vectors = _pictures(("gallery", "query"), each=20)
    blind = np.random.default_rng(1).normal(size=vectors.shape)
    scores = score(pictures, vectors, blind, window=16, network="net")
    assert scores is not None
    assert [method.key for method in scores.methods] == [
        "network",
        "untrained",
        "log_spectrum_pca",
        "intensity_histogram",
    ]
    assert scores.methods[0].result.accuracy == 1.0
    assert {method.result.images for method in scores.methods} == {40}
    assert all(source.startswith("query/") for source in scores.sources)
    assert (scores.gallery, scores.chance, scores.left_out) == (40, 0.5, False)
    assert scores.verdict("untrained") == "better than"
    assert scores.per_label() == {"class 0": 1.0, "class 1": 1.0}
    assert scores.to_json()["network_over"]["untrained"]["gain"] > 0
    swapped = score(pictures, blind, vectors, window=16, network="net")
    assert swapped is not None
    assert swapped.verdict("untrained") == "worse than"


def test_ones_own_images_are_compared_with_those_of_other_files() -> None:
    pictures, vectors = _pictures(("all",), each=3)
    scores = score(pictures, vectors, vectors, window=16, network="net")
    assert scores is not None
    assert (scores.left_out, scores.methods[0].result.k, scores.methods[0].result.images) == (True, 2, 6)
    assert scores.verdict("untrained") == "not clearly different from"


def test_without_labels_there_is_no_score() -> None:
    pictures = [Picture("a.tif", np.zeros((4, 4)), None, None, "all")] * 3
    assert score(pictures, np.eye(3), np.eye(3), window=8, network="net") is None


def test_vectors_are_standardised_by_the_gallery() -> None:
    pictures, vectors = _pictures(("gallery", "query"))
    scaled = standardised(pictures, vectors)
    np.testing.assert_allclose(scaled[:12].mean(axis=0), 0.0, atol=1e-12)
    assert np.abs(scaled[12:].mean(axis=0)).max() > 1e-6


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.integers(1, 6))
def test_shown_images_are_taken_in_turn_from_the_labels(labels: list[str], most: int) -> None:
    blank = np.zeros((2, 2))
    pictures = [Picture(f"{number}.tif", blank, None, label, "all") for number, label in enumerate(labels)]
    places = one_of_each(pictures, most=most)
    assert len(set(places)) == len(places) == min(most, len(labels))
    assert len({labels[place] for place in places}) == min(most, len(labels), len(set(labels)))


@pytest.mark.parametrize(("count", "method"), [(1, "order"), (2, "order"), (5, "PCA"), (40, "t-SNE")])
def test_any_number_of_vectors_has_a_map(count: int, method: str) -> None:
    places, how = place_on_map(np.random.default_rng(0).normal(size=(count, 8)), seed=0)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert how == method
