"""The curve of a training, `curve.csv`: a row for every log and every check.

A table that every program reads, whole after a kill: what was written after the checkpoint a run goes on from is cut
off, so that the curve of a broken run is that of an unbroken one.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from stedfm_hf.runs import UserError, atomic_path

CURVE_FILE = "curve.csv"


@dataclass(frozen=True)
class CurvePoint:
    """When something was measured."""

    step: int
    epoch: float
    samples: int


@dataclass(frozen=True)
class CurveRow(CurvePoint):
    """A moment of a training; what was not measured then is None.

    Args:
        step: optimiser steps done.
        epoch: epochs of the data done.
        samples: crops seen, of all processes.
        loss: mean training loss since the row before.
        learning_rate: of the last step.
        grad_norm: norm of the gradient of the last step, before it was clipped.
        held_out_loss: loss on held-out crops with fixed masks.
        constant_loss: loss there of the best constant.
        psnr: of the hidden pixels of held-out crops, in dB.
        knn: nearest-neighbour accuracy of the encoder on held-out crops, 0 to 1.
        images_per_second: crops of all processes a second, without checks and savings.
    """

    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    held_out_loss: float | None = None
    constant_loss: float | None = None
    psnr: float | None = None
    knn: float | None = None
    images_per_second: float | None = None


@dataclass(frozen=True)
class FinetuneRow(CurvePoint):
    """A moment of a fine-tuning; what was not measured then is None.

    Attributes:
        loss: Mean training loss since the row before.
        learning_rate: Learning rate of the last step.
        grad_norm: Norm of the gradient of the last step, before it was clipped.
        validation_loss: Loss on the validation images, unweighted.
        validation_metric: Metric that the best model is chosen by.
        images_per_second: Images of all processes a second, without evaluations and checkpoints.
    """

    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    validation_loss: float | None = None
    validation_metric: float | None = None
    images_per_second: float | None = None


COLUMNS = tuple(field.name for field in fields(CurveRow))
_WHOLE = ("step", "samples")
Row = TypeVar("Row", bound=CurvePoint)


class CurveFile(Generic[Row]):
    """Rows of one kind in a file. One process writes it: the first.

    Args:
        path: the CSV file; made with the first row.
        kind: dataclass of a row; beside those of a moment its fields are numbers or None.
    """

    def __init__(self, path: str | os.PathLike[str], kind: type[Row]) -> None:
        self.path, self.kind = Path(path), kind
        self.columns = tuple(field.name for field in fields(kind))
        self._tidy = False

    def append(self, row: Row) -> None:
        """Writes a row, at once.

        Raises:
            UserError: the file cannot be written.
        """
        if not self._tidy:
            self.truncate(math.inf)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_lines([row]))
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); make room and go on") from error

    def truncate(self, step: float) -> None:
        """Drops the rows after a step, and a last line that was not written to its end.

        Raises:
            UserError: the file is no curve, or cannot be written.
        """
        kept = [row for row in self.rows() if row.step <= step]
        try:
            with atomic_path(self.path) as temporary:
                temporary.write_text(",".join(self.columns) + "\n" + _lines(kept), encoding="utf-8", newline="")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); make room and go on") from error
        self._tidy = True

    def rows(self) -> list[Row]:
        """The rows as they are in the file now; none where there is no file.

        Raises:
            UserError: the file is no curve.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be read ({error}); move it away") from error
        whole = text[: text.rfind("\n") + 1]  # a line without an end was being written when the run was killed
        lines = csv.DictReader(io.StringIO(whole))
        rows = []
        for cells in lines:
            try:
                rows.append(self.kind(**{name: _number(name, cells.get(name)) for name in self.columns}))
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"{self.path}: line {lines.line_num} is no row of a curve; mend it or move the file away"
                ) from error
        return rows


class Curve(CurveFile[CurveRow]):
    """The curve of a pretraining.

    Example:
        >>> curve = Curve("curve.csv")
        >>> for step in (0, 10, 20):
        ...     curve.append(CurveRow(step, epoch=step / 10, samples=4 * step, loss=1.0 / (1 + step)))
        >>> curve.truncate(10)
        >>> [row.step for row in curve.rows()]
        [0, 10]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, CurveRow)


def _lines(rows: Iterable[CurvePoint]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(astuple(row) for row in rows)
    return text.getvalue()


def _number(name: str, cell: str | None) -> Any:
    if name in _WHOLE:
        return int(cell or "")
    if name == "epoch":
        return float(cell or "")
    return float(cell) if cell else None
