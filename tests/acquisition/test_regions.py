"""Regions of score maps, and their positions on the stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from stedfm_hf.acquisition.figures import MOST_REGIONS, mark_regions
from stedfm_hf.acquisition.regions import Region, find_regions
from stedfm_hf.acquisition.stage import Stage, fit_stage_matrix
from stedfm_hf.discovery.search.regions import Box
from stedfm_hf.reports.figures import label_colours, show_image
from stedfm_hf.runs import UserError


@given(seed=st.integers(0, 99), size=st.integers(1, 70), count=st.integers(1, 9))
def test_regions_are_inside_ranked_and_do_not_overlap(seed: int, size: int, count: int) -> None:
    values = np.random.default_rng(seed).random((6, 9))
    found = find_regions(values, cell=(8, 8), shape=(45, 70), size=(size, size), min_score=0.3, count=count)
    assert found[0].score == values.max() and len(found) <= count
    assert all(each.score >= 0.3 for each in found)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    for number, each in enumerate(found):
        assert 0 <= each.box.y and each.box.y + each.box.height <= 45
        assert 0 <= each.box.x and each.box.x + each.box.width <= 70
        assert not any(each.box.overlaps(other.box) for other in found[:number])


def test_a_smaller_distance_keeps_neighbours() -> None:
    values = np.array([[0.0, 0.9, 0.0, 0.8, 0.0]])
    where: Any = {"cell": (8, 8), "shape": (8, 40), "size": (8, 24), "min_score": 0.5, "count": 9}
    assert len(find_regions(values, **where)) == 1
    assert len(find_regions(values, min_distance=(16, 16), **where)) == 2


def test_positions_are_in_pixels_and_micrometres() -> None:
    values = np.zeros((3, 4))
    values[1, 2] = 1
    (region,) = find_regions(values, cell=(8, 8), shape=(24, 32), size=(8, 8), min_score=0.5, count=9)
    columns = region.columns((20.0, 40.0))
    assert (columns["y_px"], columns["x_px"], columns["centre_y_px"], columns["centre_x_px"]) == (8, 16, 11.5, 19.5)
    assert columns["centre_y_um"] == pytest.approx(0.23) and columns["width_um"] == pytest.approx(0.32)
    assert region.columns(None)["y_um"] is None


def test_the_stage_maps_pixels_to_micrometres(tmp_path: Path) -> None:
    rotated = np.array([[0.0, -0.02, 10.0], [0.02, 0.0, -5.0]])
    points = np.random.default_rng(0).random((5, 2)) * 100
    fitted = fit_stage_matrix(points, points @ rotated[:, :2].T + rotated[:, 2])
    assert np.allclose(fitted, rotated)
    (tmp_path / "stage.json").write_text(json.dumps({"a.tif": rotated.tolist()}))
    stage = Stage.load(tmp_path / "stage.json")
    assert stage.position_um("a.tif", y=100, x=50) == pytest.approx((8.0, -4.0))
    with pytest.raises(ValueError, match=r"no matrix for it; add one with the key b\.tif"):
        stage.position_um("b.tif", y=0, x=0)


@pytest.mark.parametrize("value", [[1, 2], [[1, 2, 3], [2, 4, 3]], "matrix", [[1, 0, None], [0, 1, 0]], {"a": 3}])
def test_unusable_matrices_are_refused(value: Any, tmp_path: Path) -> None:
    (tmp_path / "stage.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match="is not an invertible 2 x 3 matrix"):
        Stage.load(tmp_path / "stage.json")


def test_positions_on_a_line_give_no_matrix() -> None:
    line = np.array([[0, 0], [1, 1], [2, 2]])
    with pytest.raises(UserError, match="not on one line"):
        fit_stage_matrix(line, line)


def test_the_figure_marks_the_best_regions_of_each_class() -> None:
    boxes = [Box(24 * (number // 4), 24 * (number % 4) - 4, 20, 20) for number in range(16)]
    regions = {
        name: {2 * number + first: Region(1.0, box, (0.0, 0.0)) for number, box in enumerate(boxes)}
        for first, name in enumerate(("rings", "fibres"), 1)
    }
    axes = Figure().subplots()
    show_image(axes, np.zeros((96, 96)))
    mark_regions(axes, regions, 1.0)
    for name, colour in label_colours(regions).items():
        marked = [patch for patch in axes.patches if same_color(patch.get_edgecolor(), colour)]
        assert len(marked) == MOST_REGIONS, name
    ranks = {text.get_text(): text for text in axes.texts if isinstance(text, Annotation)}
    assert set(ranks) == {str(rank) for rank in range(1, 2 * MOST_REGIONS + 1)}
    assert ranks["1"].xy == (-0.5, -0.5)  # the rectangle starts to the left of the image
    assert ranks["2"].xy == (15.5, 19.5)
