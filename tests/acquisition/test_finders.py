"""Labels of patches, and the four kinds of finders."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.acquisition.annotations import click_masks
from stedfm_hf.acquisition.examples import Examples, join, label_patches
from stedfm_hf.acquisition.finders import ARRAYS, FINDERS, FOREST, Finder, ForestFinder, TemplateFinder, unit
from stedfm_hf.acquisition.validation import cross_validate
from stedfm_hf.runs import UserError

DIM = 12
METHODS = sorted(FINDERS)


def examples(images: int = 3, per_class: int = 40) -> Examples:
    """Background and two classes, as clouds around different tokens."""
    rng = np.random.default_rng(0)
    parts = []
    for source in range(images):
        labels = np.repeat([0, 1, 2], per_class)
        tokens = rng.normal(size=(len(labels), DIM)).astype(np.float32)
        tokens[np.arange(len(labels)), labels] += 6
        objects = np.where(labels > 0, 1 + np.arange(len(labels)) // 10, 0)
        parts.append(Examples(("rings", "fibres"), tokens, labels, objects, np.full(len(labels), source)))
    return join(parts)


@pytest.mark.parametrize("method", METHODS)
def test_a_finder_scores_its_classes_and_survives_storage(method: str, tmp_path: Path) -> None:
    known = examples()
    finder = FINDERS[method].fit(known)
    scores = finder.scores(known.tokens)
    assert scores.shape == (len(known), 2) and scores.dtype == np.float32
    for number in (1, 2):
        inside, outside = scores[known.labels == number, number - 1], scores[known.labels == 0, number - 1]
        assert np.quantile(inside, 0.1) > np.quantile(outside, 0.9)
    found = np.asarray(scores >= finder.min_scores)
    assert found[known.labels > 0].any(axis=1).mean() > 0.9 and found[known.labels == 0].mean() < 0.06
    finder.save(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {FOREST if method == "forest" else ARRAYS}
    again = FINDERS[method].load(tmp_path, finder.classes, finder.min_scores)
    assert np.array_equal(again.scores(known.tokens), scores)


def test_the_logistic_finder_separates_one_class_from_the_background() -> None:
    known = examples()
    one = replace(known.take(known.labels < 2), classes=("rings",))
    scores = FINDERS["logistic"].fit(one).scores(one.tokens)[:, 0]
    assert scores[one.labels == 1].min() > 0.5 > scores[one.labels == 0].max()


def test_a_template_is_the_mean_of_an_object() -> None:
    tokens = np.eye(3, dtype=np.float32)
    vectors = unit(tokens[:2].mean(axis=0, keepdims=True))
    finder = TemplateFinder(("rings",), (-1.0,), vectors, np.array([1]))
    assert finder.scores(tokens)[:, 0] == pytest.approx([0.5**0.5, 0.5**0.5, 0.0])


def test_validation_leaves_source_images_out() -> None:
    known = examples()
    seen: list[set[int]] = []

    def fit(part: Examples) -> Finder:
        seen.append(set(part.sources.tolist()))
        return FINDERS["logistic"].fit(part)

    found = cross_validate(known, fit)
    assert found is not None and seen == [{1, 2}, {0, 2}, {0, 1}]
    assert found["folds"] == 3 and found["fraction_of_patches"]["rings"] == pytest.approx(1 / 3)
    assert min(found["average_precision"].values()) > 0.95
    assert cross_validate(known.take(known.sources == 0), partial(FINDERS["logistic"].fit)) is None


@pytest.mark.parametrize("method", ["prototypes", "logistic", "forest"])
def test_these_methods_need_a_background(method: str) -> None:
    known = examples()
    with pytest.raises(UserError, match="no patch is background"):
        FINDERS[method].fit(known.take(known.labels > 0))
    with pytest.raises(UserError, match="class fibres: covers no patch"):
        FINDERS[method].fit(known.take(known.labels < 2))


def test_objects_have_the_patches_that_they_cover_most() -> None:
    planes = np.zeros((2, 16, 16), bool)
    planes[0, 0:8, 0:8] = True  # covers a patch
    planes[0, 6:8, 8:10] = True  # touches the next one
    planes[1, 9:11, 9:11] = True  # an object smaller than a patch
    annotated = np.ones((16, 16), bool)
    labels, objects = label_patches(planes, annotated, 8)
    assert labels.tolist() == [[1, -1], [0, 2]] and objects.tolist() == [[1, 0], [0, 2]]
    annotated[:, :8] = False
    assert label_patches(planes, annotated, 8)[0].tolist() == [[-1, 1], [-1, 2]]


@pytest.mark.parametrize("corner", [(32, 32), (33, 31), (36, 36), (32, 36)])
@pytest.mark.parametrize("shape", [(64, 80), (61, 75)])
def test_a_click_of_the_background_marks_its_patch_wherever_it_is(
    corner: tuple[int, int], shape: tuple[int, int]
) -> None:
    planes, annotated = click_masks([(1, 12, 12), (0, *corner)], 1, shape, 4, marks_background=True)
    for number in range(4):
        rotated, known = np.rot90(planes, number, axes=(1, 2)), np.rot90(annotated, number)
        labels, _ = label_patches(rotated, known, 8)
        clicked = np.zeros(shape, bool)
        clicked[corner] = True
        ((y, x),) = np.argwhere(np.rot90(clicked, number))
        assert labels[y // 8, x // 8] == 0 and 1 <= (labels == 0).sum() <= 4 and (labels == 1).any()


def test_a_part_keeps_the_background_next_to_many_patches_of_a_class() -> None:
    labels = np.repeat([1, 0, -1], [900, 50, 50])
    columns = np.zeros((1000, 3), np.float32), labels, np.zeros(1000, np.int64), np.zeros(1000, np.int64)
    part = Examples(("rings",), *columns).part(100, np.random.default_rng(0))
    assert [int((part.labels == number).sum()) for number in (1, 0, -1)] == [50, 50, 0]
    few = Examples(("rings",), *columns).take(labels < 1).part(80, np.random.default_rng(0))
    assert [int((few.labels == number).sum()) for number in (0, -1)] == [50, 30]


def test_a_forest_with_nodes_out_of_range_is_refused(tmp_path: Path) -> None:
    finder = FINDERS["forest"].fit(examples(1))
    assert isinstance(finder, ForestFinder)
    tree = finder.forest.estimators_[0].tree_
    state = tree.__getstate__()
    state["nodes"]["left_child"][0] = 10**6
    tree.__setstate__(state)
    finder.save(tmp_path)
    with pytest.raises(UserError, match="has a tree with a node out of range"):
        ForestFinder.load(tmp_path, finder.classes, finder.min_scores)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / ARRAYS).write_bytes(b"damaged")
    (tmp_path / FOREST).write_bytes(b"damaged")
    for method in ("logistic", "forest"):
        with pytest.raises(UserError, match="fit the finder again"):
            FINDERS[method].load(tmp_path, ("rings",), (0.5,))
