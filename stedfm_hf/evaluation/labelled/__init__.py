"""Labelled images, from data sets and folders alike, and the sides of an evaluation they are dealt out to."""

from stedfm_hf.evaluation.labelled.images import LabelledImages, Task, from_arrays, read_labelled
from stedfm_hf.evaluation.labelled.parts import Parts, doubts_about, make_parts, without_failed
from stedfm_hf.evaluation.labelled.sourced import SourcedImages
from stedfm_hf.evaluation.labelled.splits import check_no_leakage, draw_fraction, draw_per_class, split_by_source
from stedfm_hf.evaluation.labelled.targets import read_targets

__all__ = [
    "LabelledImages",
    "Parts",
    "SourcedImages",
    "Task",
    "check_no_leakage",
    "doubts_about",
    "draw_fraction",
    "draw_per_class",
    "from_arrays",
    "make_parts",
    "read_labelled",
    "read_targets",
    "split_by_source",
    "without_failed",
]
