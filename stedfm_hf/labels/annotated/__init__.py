"""Annotated images, from data sets and folders alike: what segmentation is trained and scored on."""

from stedfm_hf.labels.annotated.images import AnnotatedImages, class_warnings, from_arrays, read_annotated
from stedfm_hf.labels.annotated.sampling import sample_fraction, sample_per_class
from stedfm_hf.labels.annotated.targets import parse_classes

__all__ = [
    "AnnotatedImages",
    "class_warnings",
    "sample_fraction",
    "sample_per_class",
    "from_arrays",
    "parse_classes",
    "read_annotated",
]
