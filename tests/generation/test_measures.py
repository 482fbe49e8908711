from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from matplotlib.figure import Figure

from stedfm_hf.generation.measure_report import write_measure_report
from stedfm_hf.generation.measured import MeasuredWalks, largest_change, measure_real, read_real, summarise
from stedfm_hf.generation.measures import MEASURES, change_along, drift, measure_images
from stedfm_hf.generation.settings import AttributeMeasureSettings
from stedfm_hf.reports.figures import save_figure
from stedfm_hf.runs import UserError


def test_more_spots_and_brighter_images_are_measured() -> None:
    y, x = np.mgrid[:96, :96]
    images = np.zeros((2, 96, 96))
    for number, centres in enumerate([[(20, 20)], [(20, 20), (20, 70), (70, 20), (70, 70)]]):
        for row, col in centres:
            images[number] += np.exp(-((y - row) ** 2 + (x - col) ** 2) / 40)
    found = {name: values for name, values in zip(MEASURES, measure_images(images).T, strict=True)}
    assert found["objects"].tolist() == [1, 4]
    assert found["brightness"][1] == pytest.approx(4 * found["brightness"][0], rel=0.01)


def test_drift_is_zero_for_equal_images_only() -> None:
    image = np.random.default_rng(0).random((32, 32))
    found = drift(np.stack([np.stack([image, image, image[::-1]])]))
    assert found.shape == (1, 2) and found[0, 0] == pytest.approx(0, abs=1e-9) and found[0, 1] > 0.1


def test_changes_count_source_images_and_undefined_values() -> None:
    rng = np.random.default_rng(1)
    values = np.arange(5.0) + rng.normal(0, 0.1, (12, 5))
    values[0, 4] = np.nan
    change = change_along("density", values, np.repeat(np.arange(6).astype(str), 2))
    assert change.walks == 11 and change.rank_correlation == pytest.approx(1)
    assert change.total_low < change.total < change.total_high
    assert change.total == pytest.approx(4, abs=0.2)
    assert (change.low <= change.mean).all() and (change.mean <= change.high).all()


def test_opposite_random_directions_do_not_cancel() -> None:
    rows = [
        {
            "file": f"{path}{name}",
            "path": path,
            "direction": name,
            "step": step,
            **dict.fromkeys(MEASURES, step * factor),
        }
        for path in "ab"
        for name, factor in (("activity", 1.0), ("random 0", 2.0), ("random 1", -3.0))
        for step in range(3)
    ]
    changes, random = summarise(MeasuredWalks(pd.DataFrame(rows), "activity"))
    assert changes[0].total == 2 and [each.total for each in random["brightness"]] == [4, -6]
    assert largest_change(random["brightness"]) == 6


def test_real_images_are_measured_with_their_pixel_size(tmp_path: Path) -> None:
    image = np.random.default_rng(0).poisson(30, (40, 40)).astype(np.uint16)
    for name, per_um in (("fine", 50), ("coarse", 25)):
        (tmp_path / "real" / name).mkdir(parents=True)
        path = tmp_path / "real" / name / "0.tif"
        tifffile.imwrite(path, image, imagej=True, resolution=(per_um, per_um), metadata={"unit": "um"})
    settings = AttributeMeasureSettings(tmp_path, output=tmp_path / "out", dataset=tmp_path / "real")
    real, failed = measure_real(read_real(settings), 32)
    assert failed == {}
    resolution = {name: values[0, MEASURES.index("resolution_nm")] for name, values in real.items()}
    assert resolution["coarse"] == pytest.approx(2 * resolution["fine"])


def test_an_attribute_that_is_never_defined_has_no_change() -> None:
    change = change_along("resolution_nm", np.full((3, 4), np.nan), np.array(list("abc")))
    assert change.walks == 0 and np.isnan(change.total) and change.rank_correlation == 0


def three_classes(root: Path) -> Path:
    """Write images of three classes; those of the last one are small."""
    for name, size in (("rest", 40), ("active", 40), ("other", 20)):
        (root / name).mkdir(parents=True)
        for number in range(2):
            image = np.random.default_rng(number).poisson(30, (size, size)).astype(np.uint16)
            tifffile.imwrite(root / name / f"{number}.tif", image)
    return root


def test_the_classes_of_the_direction_are_shown(tmp_path: Path) -> None:
    settings = AttributeMeasureSettings(tmp_path, output=tmp_path / "out", dataset=three_classes(tmp_path / "real"))
    assert list(read_real(settings, ("rest", "active"))) == ["rest", "active"]
    assert list(read_real(settings, ("one", "two"))) == list(read_real(settings)) == ["active", "other", "rest"]
    assert list(read_real(replace(settings, classes=["other"]), ("rest", "active"))) == ["other"]
    with pytest.raises(UserError, match="--classes bright: is not a class of .*; there are: active, other, rest"):
        read_real(replace(settings, classes=["bright"]))


def test_real_images_that_are_too_small_are_named(tmp_path: Path) -> None:
    settings = AttributeMeasureSettings(tmp_path, output=tmp_path / "out", dataset=three_classes(tmp_path / "real"))
    real, failed = measure_real(read_real(settings), 32)
    assert sorted(real) == ["active", "rest"]
    assert len(failed) == 2 and "is 20 x 20 pixels, smaller than the 32 x 32 pixels of the walks" in str(failed)
    with pytest.raises(UserError, match="none of 2 real images can be measured; give other images"):
        measure_real(read_real(replace(settings, classes=["other"])), 32)


def test_the_legend_covers_no_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame(
        {
            "file": path,
            "path": path,
            "direction": name,
            "step": step,
            "wanted": step - 1.0,
            "reached": 0.2 * step,
            **dict.fromkeys(MEASURES, 1.0),
        }
        for path in "ab"
        for name in ("activity", "random 0")
        for step in range(3)
    )
    changes, random = summarise(measured := MeasuredWalks(frame, "activity"))
    plotted = []

    def save(figure: Figure, folder: Path, name: str) -> Path:
        plotted.append(figure)
        figure.draw_without_rendering()  # lays it out
        return save_figure(figure, folder, name)

    monkeypatch.setattr("stedfm_hf.generation.measure_report.save_figure", save)
    real = {name: np.ones((3, len(MEASURES))) for name in ("rest", "active")}
    write_measure_report(tmp_path, measured, changes, random, real)
    assert "do not follow the direction" in (tmp_path / "report.html").read_text(encoding="utf-8")
    (figure,) = plotted
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["along the direction", "along random directions", "real rest", "real active"]
    box = legend.get_window_extent()
    assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert figure.axes[0].get_xticks().max() <= 1
