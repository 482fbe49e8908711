"""`python -m tests.benchmarks.acquisition`: policies on a simulated microscope; writes docs/benchmarks/acquisition.md.

The loop runs twice: with overviews of low depletion power (the default), and with confocal overviews.
"""

from __future__ import annotations

import argparse
import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from stedfm_hf.acquisition import evaluate_acquisition
from stedfm_hf.acquisition.loop.settings import POWER, RESULTS, SEEDS
from tests.benchmarks.timing import machine, table

ROOT = Path(__file__).parents[2]
OVERVIEWS = {"STED overview, 25 mW": 25.0, "confocal overview": 0.0}


def text(values: dict[str, Any], sign: str = "") -> str:
    """Return a mean with its interval."""
    mean = format(values["mean"], f"{sign}.2f")
    return mean if values["low"] is None else f"{mean} ({values['low']:.2f} to {values['high']:.2f})"


def policies(results: dict[str, Any]) -> str:
    """Return the table of policies."""
    rows = []
    for row in results["policies"]:
        ratio = row.get("over_random", {}).get("ratio")
        rows.append(
            [
                f"`{row['policy']}`",
                text(row["at_dose"]),
                text(row["in_time"]),
                "" if ratio is None else f"{ratio:.1f}",
                text(row["over_intensity"], "+") if "over_intensity" in row else "",
                f"{100 * row['bleached']:.1f} %",
            ]
        )
    head = ["policy", "at the same dose", "in the same time", "times random", "more than intensity", "bleached"]
    return table(head, rows)


def seeds(results: dict[str, Any]) -> str:
    """Return the table of seeds."""
    rows = [[f"`{row['policy']}`", *(f"{each:.2f}" for each in row["by_seed"])] for row in results["policies"]]
    return table(["policy", *(f"seed {each}" for each in results["seeds"])], rows)


def targets(results: dict[str, Any]) -> str:
    """Return the table of targets."""
    names = results["targets"]
    rows = [
        [f"`{row['policy']}`", *(f"{row['by_target'][each]:.1f}" for each in names)] for row in results["policies"]
    ]
    return table(["policy", *(each.replace("_", " ") for each in names)], rows)


def powers(folder: Path) -> str:
    """Return the table of resolution and bleaching."""
    frame = pq.read_table(folder / POWER).to_pandas()
    rows = [
        [
            f"{power:g} mW",
            f"{own['resolution_nm'].mean():.0f} ± {own['resolution_nm'].std():.0f} nm",
            f"{100 * own['bleached'].mean():.1f} %",
            f"{100 * own['signal_loss'].mean():.1f} ± {100 * own['signal_loss'].std():.1f} %",
        ]
        for power, own in frame.groupby("depletion_mw")
    ]
    return table(["depletion power", "resolution", "molecules bleached", "loss of confocal signal"], rows)


def verdict(results: dict[str, Any]) -> str:
    """Say whether template or classifier finds twice as much as random and more than intensity."""
    rows = {row["policy"]: row for row in results["policies"]}
    met = []
    for name in ("template", "classifier"):
        random, intensity = rows[name]["over_random"], rows[name]["over_intensity"]
        if random["ratio"] is not None and random["ratio"] >= 2 and intensity["mean"] > 0:
            met.append(f"`{name}`")
    return f"met by {' and '.join(met)}" if met else "**not met**"


def losses(results: dict[str, Any]) -> str:
    """Name the targets of which a baseline finds as many as template or classifier, or more."""
    rows = {row["policy"]: row["by_target"] for row in results["policies"]}
    lost = []
    for target in results["targets"]:
        best = max(("raster", "random", "intensity"), key=lambda name: rows[name][target])
        behind = [f"`{name}`" for name in ("template", "classifier") if rows[name][target] <= rows[best][target]]
        if behind:
            lost.append(f"{target.replace('_', ' ')} ({' and '.join(behind)}: not more than `{best}`)")
    return f"A baseline wins for {', '.join(lost)}." if lost else "No baseline wins for any target."


def page(found: dict[str, dict[str, Any]], folder: Path) -> str:
    """Return the page."""
    first = next(iter(found.values()))
    rows = {row["policy"]: row for row in first["policies"]}
    means = ", ".join(f"{name} {rows[name]['at_dose']['mean']:.1f}" for name in rows)
    sections = "\n\n".join(
        f"""## With a {name}

The overview takes {results["overview_mj"]:.3g} mJ and {results["overview_s"]:.2f} s; the budget is
{results["budget_mj"]:.3g} mJ and {results["budget_s"]:.2f} s. Required of `template` or `classifier` are, at the same
dose, twice as many objects as of `random` and more than of `intensity`: {verdict(results)}.

{policies(results)}

Each seed, at the same dose:

{seeds(results)}

Each target, at the same dose. {losses(results)}

{targets(results)}"""
        for name, results in found.items()
    )
    count = len(first["seeds"])
    return f"""# Simulated acquisition

Objects of one kind that policies find at the same dose, of {first["objects"]:g} in each sample, mean over {count}
seeds and {len(first["targets"])} targets: {means}. The encoder is `demo`; all images are simulated.

Measured on {machine()}, pySTED {metadata.version("pysted")}, with `python -m tests.benchmarks.acquisition`.

![Objects found by each policy against the energy of the beams, with intervals](../images/acquisition.png)

![A search: the regions of each policy on its scores](../images/acquisition-search.png){{ width="560" }}

*The search for rings in the sample of seed {first["seeds"][0]}; in green regions an object was found.*

In brackets: 95 % intervals over seeds (Student's t). A difference is paired by seed.

{sections}

## Resolution and bleaching

One simulated STED image at each power; mean ± standard deviation over three structures and {min(3, count)} seeds. The
loss of signal is that between two confocal images with independent noise.

{powers(folder)}

## How it was measured

| part | how |
| --- | --- |
| command | `stedfm evaluate acquisition --model demo`, with the defaults, and with `--overview-depletion-mw 0` |
| samples, dose and time | [What is simulated](../how-to/simulate-acquisition.md#what-is-simulated) |
| `intensity` | each region holds an object of any kind, the same ones for all targets: {first["regions"]} objects |
| seeds | {", ".join(map(str, first["seeds"]))}; the power of overviews was chosen with the seeds 100 to 102 |
| encoder | `demo` was trained on other simulated images of these structures, which were sharper |
| truth | the classifiers know the true kind of each object in an acquired image, as if an expert looked at it |
"""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "acquisition")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "acquisition.md")
    given = parser.parse_args()
    found, folders = {}, []
    for name, power in OVERVIEWS.items():
        folder = given.folder / f"overview-{power:g}-mw"
        evaluate_acquisition(folder, model="demo", engine="pysted", seeds=given.seeds, overview_depletion_mw=power)
        found[name] = json.loads((folder / RESULTS).read_text())
        folders.append(folder)
    assert np.isfinite([row["at_dose"]["mean"] for each in found.values() for row in each["policies"]]).all()
    given.output.write_text(page(found, folders[0]), encoding="utf-8")
    images = ROOT / "docs" / "images"
    shutil.copy(folders[0] / "figures" / "found_by_dose.png", images / "acquisition.png")
    # A palette that covers all colours has the same view of the search in a quarter of the bytes.
    with Image.open(folders[0] / "figures" / f"seed-{given.seeds[0]:06d}.png") as search:
        small = search.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(images / "acquisition-search.png", optimize=True)


if __name__ == "__main__":
    main()
