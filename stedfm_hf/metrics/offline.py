"""What our metrics share: they keep what they are given in memory."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

CITATION = "No paper: the definitions are in the description."


class OfflineMetric(evaluate.Metric):
    """A metric that writes nothing: no cache folder, no lock to wait for when several run at once.

    Args:
        keep_in_memory: False goes back to cache files, as `num_process` above 1 needs them; then give `cache_dir`.
        **options: those of `evaluate.Metric`.
    """

    def __init__(self, *, keep_in_memory: bool = True, **options: Any) -> None:
        super().__init__(keep_in_memory=keep_in_memory, **options)

    def _build_data_dir(self) -> str:
        # Called by the constructor, which would make the folder even where nothing is ever written to it.
        return "" if self.keep_in_memory else super()._build_data_dir()

    def info_of(self, description: str, inputs: str, features: dict[str, Any]) -> evaluate.MetricInfo:
        """The description that `evaluate` asks for."""
        return evaluate.MetricInfo(
            description=description,
            citation=CITATION,
            inputs_description=inputs,
            features=datasets.Features(features),
        )


NUMBER = datasets.Value("float64")
"""Of class numbers, too: `evaluate` would cut 0.7 down to 0 without a word where it expects integers."""
NUMBERS = datasets.Sequence(NUMBER)


def class_numbers(name: str, values: Any, num_classes: int | None = None) -> np.ndarray:
    """Class numbers as integers; refuses none, fractions and numbers of no class."""
    numbers = np.asarray(values, float)
    if not numbers.size:
        raise ValueError(f"there are no {name}")
    if not (numbers == np.floor(numbers)).all() or numbers.min() < 0 or numbers.max() >= (num_classes or np.inf):
        known = (
            "numbers 0, 1, 2, ... of classes" if num_classes is None else f"numbers 0 to {num_classes - 1} of classes"
        )
        raise ValueError(f"{name} must be {known}; there are {numbers.min():g} to {numbers.max():g}")
    return numbers.astype(np.int64)


def check_finite(name: str, values: np.ndarray) -> None:
    """Refuses values that are not numbers: a metric of them would be one no more than they are."""
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ValueError(f"{bad} of {values.size} {name} are not finite numbers; nothing can be said about them")


def or_none(values: np.ndarray) -> list[float | None]:
    """Numbers as plain data, those that are undefined (NaN) as None."""
    return [None if np.isnan(value) else float(value) for value in values]
