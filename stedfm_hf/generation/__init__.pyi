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
from .generate import GenerateResult, generate
from .measure import AttributeMeasureResult, measure_attribute
from .measures import measure_images
from .walk import AttributeWalkResult, walk_attribute
from .walks import Start, Walk, start_walks, walk_images

__all__ = [
    "AttributeFitResult",
    "AttributeMeasureResult",
    "AttributeWalkResult",
    "Direction",
    "GenerateResult",
    "Score",
    "Start",
    "Walk",
    "cross_validate",
    "difference_of_groups",
    "fit_attribute",
    "fit_boundary",
    "fit_regression",
    "generate",
    "measure_attribute",
    "measure_images",
    "orthogonal_to",
    "principal_direction",
    "start_walks",
    "walk_attribute",
    "walk_images",
]
