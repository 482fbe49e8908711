"""`stedfm index`, `search` and `cluster`."""

from __future__ import annotations

import typer

from stedfm_hf.discovery.groups.settings import ClusterSettings
from stedfm_hf.discovery.settings import IndexSettings, SearchSettings
from stedfm_hf.runs.command_line import add_command


def add_discovery(app: typer.Typer) -> None:
    """Add the commands that find structure in many images."""
    add_command(
        app,
        "index",
        "stedfm_hf.discovery.index.building:index",
        settings=IndexSettings,
        example="stedfm index images/ --model demo --output my-index",
    )
    add_command(
        app,
        "search",
        "stedfm_hf.discovery.search.searching:search",
        settings=SearchSettings,
        example="stedfm search my-index cell.tif --output similar",
    )
    add_command(
        app,
        "cluster",
        "stedfm_hf.discovery.cluster:cluster",
        settings=ClusterSettings,
        example="stedfm cluster my-index --annotations conditions.csv --output groups",
    )
