"""Labelled images of data sets and folders, which classifiers are trained and tested on."""

from stedfm_hf.labels.labelled.images import LabelledImages, Task, from_arrays, read_labelled
from stedfm_hf.labels.labelled.sampling import sample_fraction, sample_per_class
from stedfm_hf.labels.labelled.targets import read_targets

__all__ = [
    "LabelledImages",
    "Task",
    "sample_fraction",
    "sample_per_class",
    "from_arrays",
    "read_labelled",
    "read_targets",
]
