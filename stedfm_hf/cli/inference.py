"""`stedfm embed`, `classify`, `segment`, `explain` and `app`."""

from __future__ import annotations

import typer

from stedfm_hf.app.settings import AppSettings
from stedfm_hf.inference.settings import ClassifySettings, EmbedSettings, SegmentSettings
from stedfm_hf.interpretability.settings import ExplainSettings
from stedfm_hf.runs.command_line import add_command


def add_inference(app: typer.Typer) -> None:
    """Add the commands that apply models to images."""
    add_command(
        app,
        "embed",
        "stedfm_hf.inference.embedding:embed",
        settings=EmbedSettings,
        example="stedfm embed images/ --model ./stedfm-vit-small --output emb.parquet",
    )
    add_command(
        app,
        "classify",
        "stedfm_hf.inference.classification:classify",
        settings=ClassifySettings,
        example="stedfm classify images/ --model ./my-classifier --output classes.parquet --maps maps",
    )
    add_command(
        app,
        "segment",
        "stedfm_hf.inference.segmentation:segment",
        settings=SegmentSettings,
        example="stedfm segment images/ --model ./my-segmenter --output segmented",
    )
    add_command(
        app,
        "explain",
        "stedfm_hf.interpretability.explanation:explain",
        settings=ExplainSettings,
        example="stedfm explain images/ --model ./my-classifier --output explained",
    )
    add_command(
        app, "app", "stedfm_hf.app.application:launch_app", settings=AppSettings, example="stedfm app --port 7860"
    )
