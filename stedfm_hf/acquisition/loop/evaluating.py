"""`stedfm evaluate acquisition`: policies compared on a simulated microscope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stedfm_hf.acquisition.loop.settings import COMMAND, REPORT, LoopSettings
from stedfm_hf.data.simulation.optics import default_engine
from stedfm_hf.data.simulation.physics import check_structures
from stedfm_hf.data.simulation.pysted_engine import check_pysted
from stedfm_hf.runs import UserError
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.wording import text_table
from stedfm_hf.weights.models import find_model

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class LoopResult(OutputResult):
    """Result of `evaluate_acquisition`.

    Attributes:
        table: One row for each seed, target, policy and region: what was found, and dose and time so far.
        results: Content of `results.json`: the comparison of the policies.
    """

    table: pa.Table
    results: dict[str, Any]

    def summary(self) -> str:
        """Return what each policy finds at the same dose and in the same time."""
        cells = [
            [
                row["policy"],
                f"{row['at_dose']['mean']:.2f}",
                "-" if (low := row["at_dose"]["low"]) is None else f"{low:.2f} to {row['at_dose']['high']:.2f}",
                f"{row['in_time']['mean']:.2f}",
            ]
            for row in self.results["policies"]
        ]
        found = f"found of {self.results['objects']:g} at the same dose"
        table = text_table(["policy", found, "95 % interval", "in the same time"], cells)
        return f"{table}\nreport: {self.output / REPORT}"

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        return super().to_json() | {"results": self.results}


@takes_settings(LoopSettings)
def evaluate_acquisition(settings: LoopSettings) -> LoopResult:
    """Compare policies that choose regions, on a simulated microscope.

    A sample of each seed holds seven kinds of objects, equally many and equally bright. Each policy searches it for
    the objects of one target: raster and random without an overview; intensity in the brightest patches of the
    overview; template and classifier in the patches with the highest score of a finder, which is fitted to another
    annotated overview. The classifiers are fitted again after each region, to what the acquired image shows. All
    policies may use the energy and the time of an overview and `regions` regions. An object is found when a region
    contains at least half of the molecules that it had at the start.

    The folder receives `curves.parquet` (one row per region), `power.parquet` (resolution and bleaching against the
    depletion power), `results.json`, `figures/`, `report.html` and `manifest.json`.

    Returns:
        Folder, manifest, curves and comparison.

    Raises:
        UserError: For wrong arguments, a model that is not found, or an output made with other settings.

    Example:
        >>> evaluate_acquisition("loop", model="demo", seeds=[0], targets=["rings"])  # doctest: +SKIP
    """
    targets = settings.targets
    if targets is not None:
        check_structures(targets)
    for name, values in (("targets", targets or []), ("policies", settings.policies), ("seeds", settings.seeds)):
        if len(set(map(str, values))) < len(values):
            raise UserError(f"--{name} names one of them twice; remove it")
    if not settings.seeds or not settings.policies or targets == []:
        raise UserError("--seeds, --policies and --targets need at least one value each")
    if min(settings.seeds) < 0:
        raise UserError(f"--seeds {min(settings.seeds)}: must be at least 0")
    engine = default_engine() if settings.engine is None else settings.engine
    if engine == "pysted":
        check_pysted()
    check_output(settings.output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    model = find_model(settings.model)

    # Errors up to here are reported at once: these modules import torch, which takes seconds.
    from stedfm_hf.acquisition.loop.evaluation_run import run_evaluation

    output, table, results = run_evaluation(settings, engine, model)
    return LoopResult(output.path, output.manifest, table, results)
