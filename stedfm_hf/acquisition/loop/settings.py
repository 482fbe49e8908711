"""Settings of `evaluate acquisition`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs import options
from stedfm_hf.runs.settings import option, settings

COMMAND = "evaluate acquisition"
CURVES, POWER, RESULTS, REPORT = "curves.parquet", "power.parquet", "results.json", "report.html"
"""Files of the output."""
POLICY_NAMES = ("raster", "random", "intensity", "template", "classifier", "classifier-exploring")
"""Names of the policies, baselines first."""
SEEDS = (0, 1, 2, 3, 4)
"""Seeds of the published comparison. The settings were chosen with the seeds 100 to 102."""
ENGINES = ("pysted", "builtin")


@settings
class LoopSettings:
    """Compare ways to choose regions on a simulated microscope, by the structures that they find per dose.

    Each policy searches the same simulated samples for objects of one kind among others that are as bright: it takes
    an overview, scores it, chooses a region, acquires it, and learns from it. Bleaching is simulated. If interrupted,
    run the same command again to resume.
    """

    output: str | Path = option(affects_result=False, metavar="DIR", help="Folder to write.")
    model: str | Path | None = options.model()
    policies: list[str] = option(
        default_factory=lambda: list(POLICY_NAMES),
        choices=POLICY_NAMES,
        metavar="NAME ...",
        help="Policies to compare; by default all.",
    )
    targets: list[str] | None = option(
        None, metavar="NAME ...", help="Kinds of objects to find, each in a separate search; by default all seven."
    )
    seeds: list[int] = option(
        default_factory=lambda: list(SEEDS),
        metavar="N ...",
        help="Random seeds; each is a sample, an annotated overview and their noise.",
    )
    regions: int = option(
        16, minimum=1, help="Number of regions whose dose and time, with those of the overview, each policy may use."
    )
    region_size_um: float = option(1.6, minimum=0.2, help="Height and width of a region, in micrometres.")
    depletion_mw: float = option(
        100.0, minimum=0, maximum=350, help="Power of the depletion beam in regions, in milliwatts."
    )
    overview_depletion_mw: float = option(
        25.0,
        minimum=0,
        maximum=350,
        help="Power of the depletion beam in overviews, in milliwatts; 0 is a confocal overview.",
    )
    engine: str | None = option(
        None,
        choices=ENGINES,
        help="Physics: pysted (needs the extra `sim`) or builtin (Gaussian beams); by default pysted if installed.",
    )
    device: str = options.device()
    overwrite: bool = options.overwrite()
