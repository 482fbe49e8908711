from .direction import Direction, Score
from .fit import AttributeFitResult, fit_attribute
from .fitting import (
    cross_validate,
    difference_of_groups,
    fit_boundary,
    fit_regression,
    orthogonal_to,
    principal_direction,
)

__all__ = [
    "AttributeFitResult",
    "Direction",
    "Score",
    "cross_validate",
    "difference_of_groups",
    "fit_attribute",
    "fit_boundary",
    "fit_regression",
    "orthogonal_to",
    "principal_direction",
]
