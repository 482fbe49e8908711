"""`stedfm data COMMAND ...`: build, import, simulate, describe and publish data sets."""

from __future__ import annotations

import typer

from stedfm_hf.data import settings
from stedfm_hf.runs.command_line import add_command

data = typer.Typer(
    name="data",
    help="Build, import, simulate, describe and publish data sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
add_command(
    data,
    "build",
    "stedfm_hf.data.building.build:build",
    settings=settings.BuildSettings,
    example="stedfm data build images/ --labels folder --output my-crops",
)
add_command(
    data,
    "import-archive",
    "stedfm_hf.data.archives.import_archive:import_archive",
    settings=settings.ImportArchiveSettings,
    example="stedfm data import-archive STED-FM-dataset-crops.zip --output crops",
)
add_command(
    data,
    "import-set",
    "stedfm_hf.data.official.import_set:import_set",
    settings=settings.ImportSetSettings,
    example="stedfm data import-set optim optim-data.zip --output optim",
)
add_command(
    data,
    "list",
    "stedfm_hf.data.official.registry:list_sets",
    settings=settings.ListSettings,
    example="stedfm data list --json",
)
add_command(
    data,
    "push",
    "stedfm_hf.data.publishing.push:push",
    settings=settings.PushSettings,
    example="stedfm data push my-crops my-lab/my-crops",
)
add_command(
    data,
    "simulate",
    "stedfm_hf.data.simulation.simulate:simulate",
    settings=settings.SimulateSettings,
    example="stedfm data simulate --preset benchmark-v1 --format dataset --output benchmark-v1",
)
add_command(
    data,
    "stats",
    "stedfm_hf.data.publishing.stats:dataset_stats",
    settings=settings.StatsSettings,
    example="stedfm data stats my-crops --output my-crops-stats",
)
