"""Precision-recall curves of scores and of regions, folds, and maps of baselines."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from stedfm_hf.acquisition.collecting import AnnotatedField
from stedfm_hf.acquisition.evaluation.fitted import assign_folds
from stedfm_hf.acquisition.evaluation.maps import Baseline, Maps, make_baselines
from stedfm_hf.acquisition.evaluation.precision import (
    REFERENCE_RECALLS,
    REPEATED,
    RankedRegions,
    rank_regions,
    region_curve,
    score_curve,
)
from stedfm_hf.acquisition.evaluation.scoring import Scorer, pooled_precision
from stedfm_hf.acquisition.settings import FIND_BASELINES
from stedfm_hf.runs import UserError

PATCH = 4
SHAPE = (32, 40)


def field(*squares: tuple[int, int, int], seed: int = 0) -> AnnotatedField:
    """A noisy image with bright annotated squares, each given as row, column and size."""
    pixels = np.random.default_rng(seed).random((1, *SHAPE)) * 0.2
    mask = np.zeros((1, *SHAPE), bool)
    for y, x, size in squares:
        mask[0, y : y + size, x : x + size] = True
    return AnnotatedField(pixels + 0.7 * mask, mask, np.ones(SHAPE, bool), PATCH)


def test_curves_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.2
    scores = np.round(rng.random(400) + truth, 1)  # with ties
    curve = score_curve(scores, truth)
    assert curve is not None
    assert curve.average_precision == pytest.approx(average_precision_score(truth, scores))
    ends = [truth[scores >= level].mean() for level in (scores.max(), scores[truth].min())]
    assert curve.at(np.array([0.0, 1.0])) == pytest.approx(ends)
    assert score_curve(scores, np.zeros(400, bool)) is None


def test_the_published_interpolation_begins_at_one() -> None:
    curve = score_curve(np.array([3.0, 2.0, 1.0]), np.array([False, True, True]))
    assert curve is not None
    found = curve.interpolated_at(REFERENCE_RECALLS)
    assert len(found) == 100 and found[-1] == pytest.approx(2 / 3)
    assert found[0] in (0.0, 1.0)


def test_regions_of_equal_score_have_no_order() -> None:
    one = region_curve(RankedRegions(np.array([2.0, 1.0, 1.0]), np.array([1, 0, 1]), 2))
    other = region_curve(RankedRegions(np.array([2.0, 1.0, 1.0]), np.array([1, 1, 0]), 2))
    assert one is not None and other is not None
    assert one.average_precision == other.average_precision == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_regions_show_objects_once() -> None:
    image = field((4, 4, 4), (20, 28, 4))
    scores = np.zeros((8, 10))
    scores[1, 1], scores[5, 7], scores[1, 8] = 3.0, 2.0, 2.5
    found = rank_regions(scores, image.planes[0], image.annotated, patch_size=PATCH, size=8)
    assert found.objects == 2 and found.outcomes[:3].tolist() == [1, 0, 1]
    near = scores.copy()
    near[1, 8], near[3, 1] = 0.0, 2.5  # shows half of the object that the best region shows
    found = rank_regions(near, image.planes[0], image.annotated, patch_size=PATCH, size=12)
    assert found.outcomes[0] == 1 and REPEATED not in found.outcomes[:1]


def test_a_region_shows_a_part_of_an_object_that_is_larger_than_it() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[14:18] = True  # a line through the whole image
    scores = np.zeros((8, 10))
    scores[3, 5], scores[3, 1] = 2.0, 1.0
    found = rank_regions(scores, mask, np.ones(SHAPE, bool), patch_size=PATCH, size=12)
    assert found.objects == 1 and found.outcomes[0] == 1 and found.outcomes[1] == REPEATED


def test_regions_outside_of_the_annotated_part_do_not_count() -> None:
    image = field((4, 4, 4))
    annotated = np.zeros(SHAPE, bool)
    annotated[:, :20] = True
    scores = np.zeros((8, 10))
    scores[6, 8] = 9.0
    found = rank_regions(scores, image.planes[0], annotated, patch_size=PATCH, size=8)
    assert 9.0 not in found.scores


def test_folds_spread_the_images_of_rare_classes() -> None:
    presence = np.zeros((12, 2), bool)
    presence[:, 0] = True
    presence[[0, 1, 7], 1] = True
    sources = np.array([f"s{number // 2}" for number in range(12)])
    fold = assign_folds(presence, sources, None, 0)
    assert len(set(fold.tolist())) == 5
    assert all(len(set(fold[sources == source].tolist())) == 1 for source in sources)
    assert fold[0] != fold[7]
    with pytest.raises(UserError, match="choose 2 to 6"):
        assign_folds(presence, sources, 7, 0)
    with pytest.raises(UserError, match="from one source image"):
        assign_folds(presence, np.full(12, "a"), None, 0)


@pytest.mark.parametrize("name", [name for name in FIND_BASELINES if name != "untrained"])
def test_baselines_score_every_patch_and_pixel(name: str) -> None:
    image = field((4, 4, 4), (20, 28, 4))
    (baseline,) = make_baselines([name], 2, 0, reference=False).values()
    baseline.fit([(field((8, 8, 4), seed=1), 1, "b"), (image, 0, "a")])
    maps = baseline.maps(image, "a", 0)
    assert all(each.pixels.shape == (1, *SHAPE) and each.patches is not None for each in maps)
    rows = {row["level"]: row for row in Scorer(8.0)(image, maps, ["squares"])}
    found = rows["patches"]["average_precision"]
    chance = rows["patches"]["positive_fraction"]
    assert found == 1.0 if name == "coarsened" else found > 0.8 if name != "chance" else found < 5 * chance
    assert rows["regions"]["objects"] == 2
    again = baseline.maps(image, "a", 0)
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(maps, again, strict=True))


def test_random_patches_of_the_reference_permute_the_annotation() -> None:
    image = field((4, 4, 8), (20, 28, 8))
    (baseline,) = make_baselines(["random-patches"], 2, 0, reference=True).values()
    maps = baseline.maps(image, "a", 0)
    assert len(maps) == 10
    assert all(each.patches is not None and each.patches.sum() == 8 for each in maps)


def test_the_reference_scores_pixels_only() -> None:
    image = field((4, 4, 4))
    (baseline,) = make_baselines(["coarsened"], 2, 0, reference=True).values()
    (row,) = Scorer(8.0, reference=True)(image, baseline.maps(image, "a", 0), ["squares"])
    assert row["level"] == "pixels" and len(row["curve"]) == 100 and row["average_precision"] == 1.0


def test_pooling_counts_false_positives_in_images_without_the_class() -> None:
    scorer = Scorer(8.0)

    class Fixed(Baseline):
        name = "fixed"

        def maps(self, field: AnnotatedField, image_id: str, fold: int) -> list[Maps]:
            scores = np.zeros((1, 8, 10))
            scores[0, 1, 1] = 1.0
            return [Maps.of_patches(scores, field)]

    images = [
        [row | {"image_id": name} for row in scorer(image, Fixed().maps(image, name, 0), ["squares"])]
        for name, image in (("a", field((4, 4, 4))), ("b", field()))
    ]
    assert images[0][0]["average_precision"] == 1.0 and images[1][0]["average_precision"] is None
    assert pooled_precision(images, "patches", "squares") == pytest.approx(0.5)
    assert pooled_precision(images, "regions", "squares") == pytest.approx(0.5)
