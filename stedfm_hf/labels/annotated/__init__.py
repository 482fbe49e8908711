"""Annotated images of data sets and folders, which segmentation models are trained and scored on."""

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
