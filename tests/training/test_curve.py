"""The training curve: complete after any kill, and truncated at the checkpoint."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.runs import UserError
from stedfm_hf.training.curve import COLUMNS, Curve, CurveRow
from stedfm_hf.training.figures import plot_curve, save_figures

measured = st.none() | st.floats(allow_nan=False)
rows_of = st.builds(
    CurveRow,
    step=st.integers(0, 6),
    epoch=st.floats(0, 1e6),
    samples=st.integers(0, 2**50),
    **{name: measured for name in COLUMNS[3:]},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("curve")


@given(rows=st.lists(rows_of, max_size=8), step=st.integers(-1, 7), data=st.data())
def test_truncating_keeps_the_complete_rows_up_to_the_step(
    folder: Path, rows: list[CurveRow], step: int, data: st.DataObject
) -> None:
    path = folder / "curve.csv"
    path.unlink(missing_ok=True)
    curve = Curve(path)
    for row in rows:
        curve.append(row)
    assert curve.rows() == rows
    written = path.read_bytes() if path.exists() else b""
    left = written[: data.draw(st.integers(0, len(written)), label="bytes before the kill")]
    path.write_bytes(left)

    whole = rows[: max(left.count(b"\n") - 1, 0)]
    again = Curve(path)
    assert again.rows() == whole
    again.truncate(step)
    kept = [row for row in whole if row.step <= step]
    assert again.rows() == kept
    again.append(CurveRow(step=50, epoch=0.5, samples=9, loss=0.25))
    assert Curve(path).rows() == [*kept, CurveRow(step=50, epoch=0.5, samples=9, loss=0.25)]


def test_a_half_written_line_never_joins_the_next(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "curve.csv")
    curve.append(CurveRow(1, 0.1, 4, loss=0.5))
    with curve.path.open("a", encoding="utf-8") as file:
        file.write("2,0.2,8,0.")
    Curve(curve.path).append(CurveRow(2, 0.2, 8, loss=0.25))
    assert [(row.step, row.loss) for row in Curve(curve.path).rows()] == [(1, 0.5), (2, 0.25)]


def test_other_programs_read_the_table(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "runs" / "curve.csv")
    curve.append(CurveRow(10, 0.1, 40, loss=1 / 3, learning_rate=1e-4))
    curve.append(CurveRow(10, 0.1, 40, held_out_loss=0.5, psnr=20.0))
    with curve.path.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert float(first["loss"]) == 1 / 3 and first["psnr"] == "" and second["loss"] == ""
    assert float(second["held_out_loss"]) == 0.5 and int(second["samples"]) == 40
    assert b"\r" not in curve.path.read_bytes()


def test_values_that_are_not_finite_are_kept(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "curve.csv")
    curve.append(CurveRow(10, 0.1, 40, loss=math.nan, grad_norm=math.inf))
    (row,) = curve.rows()
    assert row.loss is not None and math.isnan(row.loss) and row.grad_norm == math.inf and row.knn is None


@pytest.mark.parametrize("text", ["hello\nworld\n", "step,epoch,samples\n1,2,many\n"])
def test_another_file_of_that_name_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curve.csv"
    path.write_text(text, encoding="utf-8")
    for call in (Curve(path).rows, lambda: Curve(path).append(CurveRow(1, 0.1, 4)), lambda: Curve(path).truncate(0)):
        with pytest.raises(UserError, match=r"curve\.csv: line 2 is not a row"):
            call()
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.figures
def test_the_figure_shows_what_was_measured(tmp_path: Path) -> None:
    training = [CurveRow(step, step / 10, step, loss=1 / (step + 1), learning_rate=1e-3) for step in range(1, 40, 4)]
    checks = [
        CurveRow(step, step / 10, step, held_out_loss=1 / (step + 1), constant_loss=0.5, psnr=20.0 + step, knn=0.5)
        for step in (0, 20, 40)
    ]
    panels = {1: [CurveRow(0, 0.0, 0, loss=math.nan)], 2: training, 4: training + checks}
    for count, rows in panels.items():
        figure = plot_curve(rows)
        assert len(figure.axes) == count
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == ["training loss", "held-out loss", "held-out loss of the best constant"]
    held = figure.axes[0].lines[1]
    assert np.asarray(held.get_xdata()).tolist() == [0, 20, 40]
    assert save_figures(tmp_path, training + checks) == [tmp_path / "figures" / "curve.png"]
    assert (tmp_path / "figures" / "curve.svg").is_file() and save_figures(tmp_path, []) == []
