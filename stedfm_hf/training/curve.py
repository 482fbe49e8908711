"""Training curve in `curve.csv`: one row for every log and every evaluation.

Resuming truncates the file at the checkpoint, so that a resumed run has the same curve as an uninterrupted one.
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
    """Columns of every training curve; values that were not measured are None.

    Attributes:
        step: Number of optimiser steps so far.
        epoch: Number of epochs so far.
        samples: Number of samples seen so far, of all processes together.
        loss: Mean training loss since the previous row.
        learning_rate: Learning rate of the last step.
        grad_norm: Gradient norm of the last step, before clipping.
    """

    step: int
    epoch: float
    samples: int
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None


@dataclass(frozen=True)
class CurveRow(CurvePoint):
    """Row of the curve of a pretraining (see `CurvePoint`).

    Attributes:
        held_out_loss: Loss on held-out crops with fixed masks.
        constant_loss: Loss of the best constant prediction on the held-out crops.
        psnr: Peak signal-to-noise ratio of the masked pixels of held-out crops, in dB.
        knn: k-nearest-neighbour accuracy of the encoder on held-out crops, in [0, 1].
        images_per_second: Crops per second of all processes together, without evaluations and checkpoints.
    """

    held_out_loss: float | None = None
    constant_loss: float | None = None
    psnr: float | None = None
    knn: float | None = None
    images_per_second: float | None = None


@dataclass(frozen=True)
class FinetuneRow(CurvePoint):
    """Row of the curve of a fine-tuning (see `CurvePoint`).

    Attributes:
        validation_loss: Unweighted loss on the validation images.
        validation_metric: Validation metric that selects the best model.
        images_per_second: Images per second of all processes together, without evaluations and checkpoints.
    """

    validation_loss: float | None = None
    validation_metric: float | None = None
    images_per_second: float | None = None


COLUMNS = tuple(field.name for field in fields(CurveRow))
_INTEGERS = ("step", "samples")
Row = TypeVar("Row", bound=CurvePoint)


class CurveFile(Generic[Row]):
    """CSV file of a training curve, written by the first process only.

    Args:
        path: CSV file; created with the first row.
        kind: Dataclass of the rows; its fields, except `step`, `epoch` and `samples`, are numbers or None.
    """

    def __init__(self, path: str | os.PathLike[str], kind: type[Row]) -> None:
        self.path, self.kind = Path(path), kind
        self.columns = tuple(field.name for field in fields(kind))
        self._is_complete = False

    def append(self, row: Row) -> None:
        """Append a row to the file.

        Args:
            row: Row to append.

        Raises:
            UserError: The file cannot be written.
        """
        if not self._is_complete:
            self.truncate(math.inf)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_lines([row]))
        except OSError as error:
            raise self._not_written(error) from error

    def truncate(self, step: float) -> None:
        """Remove the rows after a step, and an incomplete last line.

        Args:
            step: Last step to keep; infinity keeps all complete rows.

        Raises:
            UserError: The file is not a training curve, or cannot be written.
        """
        kept = [row for row in self.rows() if row.step <= step]
        try:
            with atomic_path(self.path) as temporary:
                temporary.write_text(",".join(self.columns) + "\n" + _lines(kept), encoding="utf-8", newline="")
        except OSError as error:
            raise self._not_written(error) from error
        self._is_complete = True

    def rows(self) -> list[Row]:
        """Return the complete rows of the file; none if the file does not exist.

        Raises:
            UserError: The file is not a training curve.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be read ({error}); move the file away") from error
        complete = text[: text.rfind("\n") + 1]  # the last line is incomplete if the run was killed
        lines = csv.DictReader(io.StringIO(complete))
        rows = []
        for cells in lines:
            try:
                rows.append(self.kind(**{name: _number(name, cells.get(name)) for name in self.columns}))
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"{self.path}: line {lines.line_num} is not a row of a training curve; correct it, or move the "
                    "file away"
                ) from error
        return rows

    def _not_written(self, error: OSError) -> UserError:
        return UserError(
            f"{self.path}: cannot be written ({error.strerror}); free some disk space and run the same command again"
        )


class Curve(CurveFile[CurveRow]):
    """Training curve of a pretraining.

    Args:
        path: CSV file.

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
    if name in _INTEGERS:
        return int(cell or "")
    if name == "epoch":
        return float(cell or "")
    return float(cell) if cell else None
