"""Settings of `explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.settings import option, settings

METHODS = ("logit", "attention", "pca", "similarity", "correspondence")
AGGREGATES = ("mean", "last", "rollout", "gradient")
FOREGROUNDS = ("none", "otsu")
"""Patches that `pca` uses: all, or those above the threshold of Otsu in each image."""
FITTING: dict[str, Sequence[str]] = {
    "label": ("logit", "attention"),
    "aggregate": ("attention",),
    "block": ("attention",),
    "head": ("attention",),
    "query": ("attention",),
    "protocol": ("attention",),
    "compare_with": ("similarity",),
    "reference_image": ("correspondence",),
    "components": ("pca",),
    "foreground": ("pca",),
}
"""Methods that an option fits; the other options fit all methods."""
NEEDED = {"similarity": "compare_with", "correspondence": "reference_image"}
"""Option that a method needs."""


@settings
class ExplainSettings:
    """Show what a model looks at, as maps and a report.

    If interrupted, run the same command again to resume. Unreadable files are skipped and listed; the exit status is
    then 1.
    """

    inputs: options.Inputs = options.inputs()
    output: str | Path = option(
        affects_result=False, cli_default=Path("explained"), metavar="DIR", help="Folder to write."
    )
    model: str | Path | None = options.model()
    method: str | None = option(
        None,
        choices=METHODS,
        help="Method: logit (evidence of each patch for a class), attention, pca (principal components of patch "
        "tokens), similarity (of the tokens of two models) or correspondence (nearest patches in another image); by "
        "default logit for classifiers that pool patches, else attention.",
    )
    label: str | int | None = option(
        None,
        parse=options.index_or_name,
        metavar="NAME|INDEX",
        help="Class to explain, for logit and gradient-weighted attention; by default the predicted one.",
    )
    aggregate: str | None = option(
        None,
        choices=AGGREGATES,
        help="Combination of the blocks, for attention: mean, last, rollout, or gradient (weighted by the gradient of "
        "a logit); by default mean.",
    )
    block: int | None = option(None, minimum=0, help="Block to show, from 0, for attention; by default all.")
    head: int | None = option(None, minimum=0, help="Head to show, from 0, for attention; by default the mean.")
    query: tuple[float, float] | None = option(
        None,
        metavar="Y X",
        help="Position in pixels of the patch whose attention is shown; by default the class token.",
    )
    protocol: str = options.protocol("sums the attention maps of all blocks, each scaled to its minimum and maximum")
    compare_with: str | Path | None = option(
        None, affects_result=False, metavar="MODEL", help="Second model, for similarity: folder, Hub id or `demo`."
    )
    reference_image: str | Path | None = option(
        None, affects_result=False, metavar="FILE", help="Image in which correspondence finds the nearest patches."
    )
    components: str | Path | None = option(
        None,
        affects_result=False,
        metavar="DIR",
        help="Folder of an earlier run, whose components pca uses; by default they are fitted to the images.",
    )
    foreground: str | None = option(
        None,
        choices=FOREGROUNDS,
        help="Patches that pca uses: none (all), or otsu (above the threshold of Otsu); by default none.",
    )
    tile_size: str | int | None = options.tile_size()
    tile_overlap: int | None = options.tile_overlap()
    batch_size: int = options.batch_size(8)
    precision: str = options.precision()
    device: str = options.device()
    workers: int | None = options.workers("threads that read images")
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    normalization: str | None = options.normalization()
    intensity_range: tuple[float, float] | None = options.intensity_range()
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse options that do not fit the method or each other."""
        if self.method is not None:
            check_method(self, self.method)
        if self.protocol == REFERENCE and (given := _given(self, ("aggregate", "block", "head", "query", "label"))):
            raise UserError(f"--protocol reference fixes {_flag(given[0])}; remove one of them")
        if self.components is not None and self.foreground is not None:
            raise UserError("--components were fitted to the foreground or to all patches; remove --foreground")
        if self.aggregate is not None and self.block is not None:
            raise UserError("--aggregate combines the blocks; remove it, or --block")
        if self.aggregate in ("rollout", "gradient") and self.head is not None:
            raise UserError(f"--aggregate {self.aggregate} combines the heads; remove it, or --head")


def check_method(settings: ExplainSettings, method: str) -> None:
    """Refuse options that do not fit a method, and a method without the option it needs.

    Args:
        settings: Settings.
        method: One of `METHODS`.

    Raises:
        UserError: If an option does not fit, or is missing.
    """
    for name in _given(settings, FITTING):
        if method not in FITTING[name]:
            fitting = " or ".join(FITTING[name])
            raise UserError(f"{_flag(name)} does not fit the method {method}; remove it, or use --method {fitting}")
    needed = NEEDED.get(method)
    if needed is not None and getattr(settings, needed) is None:
        what = "MODEL" if needed == "compare_with" else "FILE"
        raise UserError(f"the method {method} needs {_flag(needed)} {what}")
    if method == "attention" and settings.label is not None and settings.aggregate != "gradient":
        raise UserError(
            "--label needs --aggregate gradient or --method logit, and a classifier: other attention does not depend "
            "on the class"
        )


def _given(settings: ExplainSettings, names: Sequence[str] | dict[str, Any]) -> list[str]:
    """Return those of the options that are not at their default."""
    defaults = {each.name: each.default for each in fields(settings)}
    return [name for name in names if getattr(settings, name) != defaults[name]]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
