"""Stage coordinates: affine calibration from pixels to micrometres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from skimage.transform import AffineTransform

from stedfm_hf.runs import UserError
from stedfm_hf.runs.files import read_json


@dataclass(frozen=True, eq=False)
class Stage:
    """Affine maps from pixels of fields to the stage.

    Attributes:
        matrices: Matrix (2, 3) of each path, in µm: its product with (x, y, 1) is (stage x, stage y). x and y are
            columns and rows in pixels; (0, 0) is the centre of the first pixel.
        common: Matrix of all other paths, or None.

    Example:
        >>> stage = Stage({}, np.array([[0.02, 0, 1000], [0, -0.02, 500]]))
        >>> stage.position_um("a.tif", y=100, x=50)
        (1001.0, 498.0)
    """

    matrices: Mapping[str, np.ndarray]
    common: np.ndarray | None = None

    @classmethod
    def load(cls, file: str | Path) -> Stage:
        """Read a JSON file with one matrix, or with an object of paths and their matrices.

        Raises:
            UserError: If the file cannot be read, or a matrix is not an invertible 2 x 3 matrix of numbers.
        """
        if not Path(file).is_file():
            raise UserError(f"--stage {file}: no such file; check the path")
        value = read_json(file)
        if isinstance(value, dict):
            return cls({str(path): check_matrix(each, f"--stage {file}: {path}") for path, each in value.items()})
        return cls({}, check_matrix(value, f"--stage {file}"))

    def position_um(self, path: str, y: float, x: float) -> tuple[float, float]:
        """Return the position x and y of a pixel on the stage, in µm.

        Args:
            path: Path of the field.
            y: Row, in pixels.
            x: Column, in pixels.

        Raises:
            ValueError: If there is no matrix for the field.
        """
        matrix = self.matrices.get(path, self.common)
        if matrix is None:
            raise ValueError(f"--stage has no matrix for it; add one with the key {path}")
        stage_x, stage_y = matrix @ (x, y, 1.0)
        return float(stage_x), float(stage_y)


def fit_stage_matrix(pixels: np.ndarray, stage_um: np.ndarray) -> np.ndarray:
    """Fit the matrix of a stage to positions that are known in both coordinates.

    Args:
        pixels: x and y of at least three positions in a field, not on one line (n, 2), in pixels.
        stage_um: x and y of the same positions on the stage (n, 2), in µm.

    Returns:
        Matrix (2, 3) float64 for `Stage`, by least squares.

    Raises:
        UserError: If the positions do not determine the matrix.

    Example:
        >>> fit_stage_matrix(np.array([[0, 0], [100, 0], [0, 100]]), np.array([[5, 5], [7, 6], [6, 3]])).round(3)
        array([[ 0.02,  0.01,  5.  ],
               [ 0.01, -0.02,  5.  ]])
    """
    points, positions = np.asarray(pixels, np.float64), np.asarray(stage_um, np.float64)
    if points.shape != positions.shape or points.ndim != 2 or points.shape[1] != 2:
        raise UserError(f"positions of shape {points.shape} and {positions.shape} do not match; give (n, 2) each")
    found = AffineTransform.from_estimate(points, positions) if len(points) >= 3 else None
    if not found or np.linalg.matrix_rank(points - points.mean(axis=0)) < 2:
        raise UserError("the positions do not determine the matrix; give at least three that are not on one line")
    return np.asarray(found.params[:2])


def check_matrix(value: Any, name: str) -> np.ndarray:
    """Check a matrix of a stage.

    Args:
        value: Rows of the matrix.
        name: Name for the message.

    Returns:
        Matrix (2, 3) float64.

    Raises:
        UserError: If it is not an invertible 2 x 3 matrix of finite numbers.
    """
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :2])) < 1e-12:
        raise UserError(f"{name}: is not an invertible 2 x 3 matrix; give [[a, b, x], [c, d, y]] in micrometres")
    return matrix
