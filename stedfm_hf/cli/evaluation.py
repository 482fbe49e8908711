"""`stedfm evaluate knn`, `probe`, `retrieval`, `robustness`, `segmentation` and `weights`."""

from __future__ import annotations

import typer

from stedfm_hf.evaluation.settings import (
    KnnSettings,
    MaskSettings,
    ProbeSettings,
    RetrievalSettings,
    RobustnessSettings,
    WeightsSettings,
)
from stedfm_hf.runs.command_line import add_command

evaluate = typer.Typer(
    name="evaluate",
    help="Compare models on labelled or annotated images.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
add_command(
    evaluate,
    "knn",
    "stedfm_hf.evaluation.commands:evaluate_knn",
    settings=KnnSettings,
    example="stedfm evaluate knn --model demo --dataset my-crops --output my-knn",
)
add_command(
    evaluate,
    "probe",
    "stedfm_hf.evaluation.commands:evaluate_probe",
    settings=ProbeSettings,
    example="stedfm evaluate probe --model demo --dataset my-crops --labels-per-class 10 all --output my-probe",
)
add_command(
    evaluate,
    "retrieval",
    "stedfm_hf.evaluation.commands:evaluate_retrieval",
    settings=RetrievalSettings,
    example="stedfm evaluate retrieval --model demo --dataset my-crops --output my-retrieval",
)
add_command(
    evaluate,
    "robustness",
    "stedfm_hf.evaluation.commands:evaluate_robustness",
    settings=RobustnessSettings,
    example="stedfm evaluate robustness --model demo --dataset my-crops --output my-robustness",
)
add_command(
    evaluate,
    "segmentation",
    "stedfm_hf.evaluation.commands:evaluate_segmentation",
    settings=MaskSettings,
    example="stedfm evaluate segmentation --model my-segmenter --dataset annotated/ --output my-masks",
)
add_command(
    evaluate,
    "weights",
    "stedfm_hf.evaluation.commands:evaluate_weights",
    settings=WeightsSettings,
    example="stedfm evaluate weights --model demo my-encoder --output my-weights",
)
