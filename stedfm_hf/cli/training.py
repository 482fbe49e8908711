"""`stedfm pretrain` and `stedfm finetune`."""

from __future__ import annotations

import typer

from stedfm_hf.runs.command_line import add_command
from stedfm_hf.training.finetuning.settings import ClassificationSettings, SegmentationSettings
from stedfm_hf.training.generation.settings import RECIPES as GENERATION_RECIPES
from stedfm_hf.training.generation.settings import GenerationSettings
from stedfm_hf.training.settings import RECIPES, PretrainSettings


def add_training(app: typer.Typer) -> None:
    """Add the commands that train."""
    add_command(
        app,
        "pretrain",
        "stedfm_hf.training.pretrain:pretrain",
        settings=PretrainSettings,
        example="stedfm pretrain --recipe small --dataset my-crops --output run",
        recipes=RECIPES,
    )
    add_command(
        app,
        "pretrain generation",
        "stedfm_hf.training.generate:pretrain_generation",
        settings=GenerationSettings,
        example="stedfm pretrain generation --recipe demo --model demo --dataset my-crops --output run",
        recipes=GENERATION_RECIPES,
    )
    finetune = typer.Typer(
        name="finetune", help="Train a model for a task.", no_args_is_help=True, rich_markup_mode=None
    )
    finetune.callback()(lambda: None)
    add_command(
        finetune,
        "classification",
        "stedfm_hf.training.classify:finetune_classification",
        settings=ClassificationSettings,
        example="stedfm finetune classification --model demo --dataset my-crops --output classifier",
    )
    add_command(
        finetune,
        "segmentation",
        "stedfm_hf.training.segment:finetune_segmentation",
        settings=SegmentationSettings,
        example="stedfm finetune segmentation --model demo --dataset annotated --output segmenter",
    )
    app.add_typer(finetune)
