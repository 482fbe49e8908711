from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stedfm_hf.generation.direction import FACTS, WEIGHTS, Direction, Score
from stedfm_hf.runs import UserError

D = 5
NUMBERS = st.floats(-100, 100)
NORMALS = arrays(np.float64, D, elements=NUMBERS).filter(lambda v: np.linalg.norm(v) > 1e-3)


@given(
    NORMALS,
    NUMBERS,
    arrays(np.float64, D, elements=NUMBERS),
    arrays(np.float64, D, elements=st.floats(0.1, 10)),
    arrays(np.float64, (3, D), elements=NUMBERS),
    arrays(np.float64, 3, elements=NUMBERS),
)
def test_moved_embeddings_have_the_distance_and_moved_straight(
    normal: np.ndarray, offset: float, mean: np.ndarray, scale: np.ndarray, Z: np.ndarray, to: np.ndarray
) -> None:
    direction = Direction(normal, offset, mean, scale)
    moved = direction.move(Z, to)
    np.testing.assert_allclose(direction.signed_distance(moved), to, atol=1e-6)
    step = (moved - Z) / scale
    np.testing.assert_allclose(np.linalg.norm(step, axis=1), np.abs(to - direction.signed_distance(Z)), atol=1e-6)
    np.testing.assert_allclose(step, (step @ direction.normal)[:, None] * direction.normal, atol=1e-6)


def test_a_saved_direction_is_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    direction = Direction(
        rng.normal(size=D),
        0.3,
        rng.normal(size=D),
        rng.uniform(1, 2, D),
        name="activity",
        classes=("rest", "active"),
        percentiles={"rest": [-1.0] * 21},
        score=Score("AUROC", 0.9, 0.8, 0.95, 0.5),
        orthogonal_to=("brightness",),
        model="demo",
        spread=rng.normal(size=(D, 2)).astype(np.float32),
    )
    direction = direction.with_facts(path=direction.normal + 0.1 * rng.normal(size=D))
    direction.save(tmp_path / "one")
    loaded = Direction.load(tmp_path / "one")
    Z = rng.normal(size=(4, D))
    np.testing.assert_array_equal(loaded.signed_distance(Z), direction.signed_distance(Z))
    np.testing.assert_array_equal(loaded.move(Z, 2.0), direction.move(Z, 2.0))
    np.testing.assert_array_equal(loaded.spread, direction.spread)
    assert (loaded.classes, loaded.score, loaded.orthogonal_to) == (
        direction.classes,
        direction.score,
        direction.orthogonal_to,
    )
    assert loaded.at_percentile(50, "rest") == -1.0


def test_percentiles_are_interpolated() -> None:
    direction = Direction(np.ones(D), percentiles={"all": list(range(0, 101, 5))})
    assert direction.at_percentile(52.5) == pytest.approx(52.5)
    with pytest.raises(UserError, match="no percentiles of 'rest'; there are: all"):
        direction.at_percentile(5, "rest")
    with pytest.raises(UserError, match="not in"):
        direction.at_percentile(101)


@pytest.mark.parametrize("damage", ["missing", "text", "bytes", "zero"])
def test_a_damaged_direction_is_refused(tmp_path: Path, damage: str) -> None:
    Direction(np.ones(D)).save(tmp_path)
    if damage == "missing":
        (tmp_path / FACTS).unlink()
    elif damage == "text":
        (tmp_path / FACTS).write_text("{}")
    elif damage == "bytes":
        (tmp_path / WEIGHTS).write_bytes(b"\x80\x04.")
    else:
        from safetensors.numpy import save_file

        arrays_ = {name: np.zeros(D) for name in ("normal", "mean", "scale")}
        save_file({**arrays_, "offset": np.zeros(1)}, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match="direction"):
        Direction.load(tmp_path)


@pytest.mark.parametrize(
    ("normal", "scale"), [(np.zeros(D), np.ones(D)), (np.full(D, np.nan), np.ones(D)), (np.ones(D), np.zeros(D))]
)
def test_undefined_directions_are_refused(normal: np.ndarray, scale: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        Direction(normal, scale=scale)


def test_embeddings_of_another_encoder_are_refused() -> None:
    with pytest.raises(ValueError, match="length 3.*has 5"):
        Direction(np.ones(D)).signed_distance(np.zeros((2, 3)))
