"""`stedfm study`."""

from __future__ import annotations

import typer

from stedfm_hf.runs.command_line import add_command
from stedfm_hf.studies.settings import (
    StudyAnalyseSettings,
    StudyBuildSettings,
    StudyExportSettings,
    StudyInviteSettings,
    StudyServeSettings,
    StudySimulateSettings,
)

study = typer.Typer(
    name="study",
    help="Ask people about images, and analyse their answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
add_command(
    study,
    "build",
    "stedfm_hf.studies.build:build_study",
    settings=StudyBuildSettings,
    example="stedfm study build --type choose --images cells STED=maps-sted ImageNet=maps-imagenet --output study",
)
add_command(
    study,
    "simulate",
    "stedfm_hf.studies.simulate:simulate_study",
    settings=StudySimulateSettings,
    example="stedfm study simulate study.yaml --participants 5 10 20 --output simulated",
)
add_command(
    study,
    "serve",
    "stedfm_hf.studies.serving.serve:serve_study",
    settings=StudyServeSettings,
    example="stedfm study serve study.yaml --answers answers.sqlite",
)
add_command(
    study,
    "invite",
    "stedfm_hf.studies.serving.invite:invite_participants",
    settings=StudyInviteSettings,
    example="stedfm study invite answers.sqlite --participants 10",
)
add_command(
    study,
    "export",
    "stedfm_hf.studies.serving.export:export_answers",
    settings=StudyExportSettings,
    example="stedfm study export answers.sqlite --output answers.parquet",
)
add_command(
    study,
    "analyse",
    "stedfm_hf.studies.analyse:analyse_study",
    settings=StudyAnalyseSettings,
    example="stedfm study analyse study.yaml answers.parquet --output analysis",
)
