"""`python -m tests.benchmarks.clustering`: measure the valley rule; writes docs/benchmarks/clustering.md.

The results are kept in JSON files, one for each part: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from sklearn.metrics import adjusted_rand_score

from stedfm_hf.discovery.clustering import cluster_tree
from stedfm_hf.runs import atomic_path
from tests.benchmarks.timing import machine, own_peak, table
from tests.discovery import generators as made
from tests.discovery.generators import Cloud, Made

Found = dict[str, Any]
N = 600
GROUPS: dict[str, Made] = {
    **{f"{k} blobs": partial(made.blobs, k=k) for k in (2, 3, 4, 6, 8)},
    "4 blobs in the widest axes": partial(made.scattered, k=4),
    "3 blobs, 20 dimensions": partial(made.blobs, k=3, dimensions=20),
    "anisotropic, 4 groups": made.anisotropic,
    "unbalanced 5:1:1": made.unbalanced,
    "nested 2 x 3": partial(made.nested, counts=(2, 3)),
    "nested 3 x 3": partial(made.nested, counts=(3, 3)),
    "nested 2 x 2 x 2": partial(made.nested, counts=(2, 2, 2)),
    "3 blobs, separation 3": partial(made.blobs, k=3, separation=3),
    "3 blobs, separation 2.5": partial(made.blobs, k=3, separation=2.5),
    "planted 5 %, separation 3": made.planted,
}
OVERLAPPING: dict[str, Made] = {
    "2 groups along the widest axis, separation 5": partial(made.shifted, separation=5),
    "2 groups along the widest axis, separation 4": partial(made.shifted, separation=4),
    "2 groups along the 10th axis, separation 6": partial(made.shifted, separation=6, axis=9),
    "planted 10 %, separation 2": partial(made.planted, fraction=0.1, separation=2),
    "2 parallel cigars": made.cigars,
    "3 parallel cigars": partial(made.cigars, k=3),
    "2 moons": partial(made.moons, noise=0.3),
}
CURVES: dict[str, Made] = {
    "spiral of one turn": made.spiral,
    **{f"S curve, arms of {each}°": partial(made.s_curve, degrees=each) for each in (45, 60, 90, 135)},
    "thick S curve, arms of 90°": partial(made.s_curve, degrees=90, thickness=1.1),
}
MORE_NOISE: dict[str, Made] = {
    "isotropic Gaussian": made.isotropic,
    "z-score flattens the spectrum": made.flat_spectrum,
    "log-normal columns": made.log_normal,
    "correlated columns": made.correlated,
    "ball, 10 dimensions": partial(made.ball, dimensions=10),
    "overlapping balls": made.balls,
    "thick arc": partial(made.arc, thickness=1.0),
}


def crops(n: int, seed: int, *, times: int, jitter: float, known: bool = True) -> tuple[Cloud, np.ndarray | None]:
    """Make crops of n/times sources without groups; copies have no sources."""
    cloud, sources = made.repeated(made.gaussian(n // times, seed), times, jitter, seed)
    return cloud, sources if jitter and known else None


def displaced(n: int, seed: int, *, fraction: float) -> tuple[Cloud, np.ndarray | None]:
    """Make 5 crops each of n sources, of which a fraction is displaced by 3 standard deviations."""
    return made.repeated(made.planted(n // 3, seed, fraction=fraction), 5, 0.3, seed)


SOURCES: dict[str, partial[tuple[Cloud, np.ndarray | None]]] = {
    "10 of 200 sources displaced, 5 crops each": partial(displaced, fraction=0.05),
    "20 of 200 sources displaced, 5 crops each": partial(displaced, fraction=0.1),
}
REPEATED: dict[str, partial[tuple[Cloud, np.ndarray | None]]] = {
    "every item twice": partial(crops, times=2, jitter=0.0),
    "every item 10 times": partial(crops, times=10, jitter=0.0),
    "5 crops per source, 120 sources": partial(crops, times=5, jitter=0.1),
    "20 crops per source, 30 sources": partial(crops, times=20, jitter=0.1),
    "20 crops per source, 30 sources, a third of the variance inside": partial(crops, times=20, jitter=0.7),
    "5 crops per source, sources not given": partial(crops, times=5, jitter=0.1, known=False),
}


def one(cloud: Cloud, seed: int, sources: np.ndarray | None = None) -> Found:
    """Cluster, and score."""
    began = time.process_time()
    tree = cluster_tree(cloud.X, seed=seed, sources=sources)
    seconds = time.process_time() - began
    return {
        "ari": float(adjusted_rand_score(cloud.labels, tree.labels)),
        "shape": tree.root.shape,
        "right": not cloud.tree or tree.root.shape == cloud.tree,
        "leaves": len(tree.leaves),
        "seconds": seconds,
    }


def measured(kind: str, seed: int) -> Found:
    """Cluster one data set; kinds in `COSTS`, such as "6000 nested", in a new process."""
    with_sources = {**REPEATED, **SOURCES}
    if kind in with_sources:
        cloud, sources = with_sources[kind](N, seed)
        return one(cloud, seed, sources)
    if kind in COSTS:
        words = [sys.executable, "-m", "tests.benchmarks.clustering", "--one", *kind.split()]
        return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return one(CLOUDS[kind](N, seed), seed)


def measure_one(n: int, kind: str) -> Found:
    """Cluster once in this process, and return its peak memory in MB too."""
    cloud = made.gaussian(n, 0) if kind == "noise" else made.nested(n, 0, counts=(3, 3))
    before = own_peak()
    return {**one(cloud, 0), "before": before, "peak": own_peak()}


COSTS = [f"{n} {kind}" for n in (1000, 6000, 20_000, 100_000) for kind in ("noise", "nested")]
CLOUDS = {**GROUPS, **OVERLAPPING, **CURVES, **made.NOISE, **MORE_NOISE}
PARTS: dict[str, tuple[list[str], int]] = {
    "groups": (list(GROUPS), 10),
    "noise": (list(made.NOISE), 100),
    "cost": (COSTS, 1),
    "curves": (list(CURVES), 20),
    "sources": (list(SOURCES), 20),
    "overlapping": (list(OVERLAPPING), 10),
    "repeated": (list(REPEATED), 20),
    "more": (list(MORE_NOISE), 20),
}
"""Part to its kinds of data and their number of runs."""


def extend(part: str, file: Path, until: float) -> None:
    """Run what is missing of a part, seed by seed, until a time."""
    kinds, repeats = PARTS[part]
    found: dict[str, list[Found]] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for seed in range(repeats):
        for kind in kinds:
            runs = found.setdefault(kind, [])
            if len(runs) == seed and time.monotonic() < until:
                runs.append(measured(kind, seed))
                with atomic_path(file) as temporary:
                    temporary.write_text(json.dumps(found), encoding="utf-8")
    print(part, {kind: len(runs) for kind, runs in found.items()}, file=sys.stderr, flush=True)


def group_rows(found: dict[str, list[Found]]) -> list[list[str]]:
    """Rows of the tables of groups."""
    return [
        [
            name,
            f"{np.mean([each['ari'] for each in runs]):.3f} ({min(each['ari'] for each in runs):.3f})",
            f"{sum(each['ari'] >= 0.95 for each in runs)} of {len(runs)}",
            f"{sum(each['right'] for each in runs)} of {len(runs)}",
        ]
        for name, runs in found.items()
    ]


def noise_rows(found: dict[str, list[Found]]) -> list[list[str]]:
    """Rows of the tables of noise."""
    return [
        [
            name,
            f"{sum(each['leaves'] == 1 for each in runs)} of {len(runs)}",
            f"{max(each['leaves'] for each in runs)}",
            f"{np.median([each['seconds'] for each in runs]):.2f}",
        ]
        for name, runs in found.items()
    ]


def cost_cells(runs: list[Found]) -> list[str]:
    """Cells of the runs of one size: tree, median of the CPU times and all of them, and memory."""
    seconds = [each["seconds"] for each in runs]
    shown = f"{np.median(seconds):.1f}" + (
        f" ({' '.join(f'{each:.1f}' for each in seconds)})" if len(runs) > 1 else ""
    )
    return [runs[0]["shape"], shown, f"{runs[0]['before']:.0f}", f"{max(each['peak'] for each in runs):.0f}"]


def page(results: dict[str, dict[str, list[Found]]]) -> str:
    """Write the page from the results of all parts."""
    noise, groups, cost = results["noise"], results["groups"], results["cost"]
    good = all(each["ari"] >= 0.95 and each["right"] for runs in groups.values() for each in runs)
    kept = min(sum(each["leaves"] == 1 for each in runs) / len(runs) for runs in noise.values())
    six = cost["6000 nested"]
    counts = sorted({len(runs) for runs in noise.values()})
    of_groups = ["groups", "ARI, mean (lowest)", "ARI >= 0.95", "right tree"]
    of_noise = ["data", "one leaf", "most leaves", "CPU s, median"]
    costs = [[*kind.split(), *cost_cells(cost[kind])] for kind in COSTS if kind in cost]
    return PAGE.format(
        machine=f"{machine()}, scikit-learn {sklearn.__version__}, SciPy {scipy.__version__}",
        groups="in every run" if good else "**not in every run**",
        kept="all" if kept == 1 else f"at least {100 * kept:.0f} %",
        runs=counts[0] if len(counts) == 1 else f"{counts[0]} to {counts[-1]}",
        seconds=float(np.median([each["seconds"] for each in six])),
        peak=max(each["peak"] for each in six),
        known=table(of_groups, group_rows(groups)),
        sources=table(of_groups, group_rows(results["sources"])),
        noise=table(of_noise, noise_rows(noise)),
        more=table(of_noise, noise_rows(results["more"])),
        overlapping=table(of_groups, group_rows(results["overlapping"])),
        curves=table(of_noise, noise_rows(results["curves"])),
        repeated=table(of_noise, noise_rows(results["repeated"])),
        cost=table(["items", "data", "tree", "CPU s", "MB before", "peak MB"], costs),
    )


PAGE = """# Clustering

The valley rule of `cluster_tree` on simulated clouds of {n} items in 384 dimensions, with known groups or without any.
Known groups are found {groups} (ARI at least 0.95 and the right tree). Every kind of noise stays one leaf in {kept} of
{runs} runs; required are 95 %. 6,000 items in nine nested groups take {seconds:.1f} CPU s and {peak:.0f} MB; required
are at most 15 s and 1,024 MB.

Measured on {machine}, with `make bench-clustering`. Other programs used the machine at the same time.

## Known groups

Separations are distances between centres, in standard deviations of the widest axis of the noise.

{known}

Sources of which a few are displaced by 3 standard deviations in a random direction, with 5 crops each. Ten sources are
near the smallest group that can be found:

{sources}

## Noise

{noise}

Further kinds:

{more}

## Where it fails

Groups that overlap, and long parallel groups. The default finds a group only where the valley is at most 0.6 times as
dense as both sides.

{overlapping}

Curves without groups: one leaf is right. A bent, thin curve can show a valley where there is none.

{curves}

## Copies, and crops of the same source

There are no groups: one leaf is right. Crops count as one source only if `sources` are given.

{repeated}

## Cost

One thread, each in a new process; the memory before holds the data and the libraries. Where there are several runs,
the median and, in brackets, all of them; those were made while no other program ran. Next to other programs, the CPU
time is longer, because they share caches and the core.

{cost}

## How it was measured

| part | how |
| --- | --- |
| noise | Gaussian, variance of axis i proportional to i^-1.2, randomly rotated (`tests/discovery/generators.py`) |
| seeds | 0, 1, 2, ... for the data and for the rule |
| groups | 10 seeds; the right tree has the right number of children at every node |
| CPU s | CPU time of the process, user and system |
"""
PAGE = PAGE.replace("{n}", str(N))


def main() -> None:
    """Measure what is missing, and write the page when nothing is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after this time, and go on in the next call")
    parser.add_argument("--results", type=Path, default=Path("build/clustering"))
    parser.add_argument("--output", type=Path, help="page to write, from the results so far")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_one(int(arguments.one[0]), arguments.one[1])))
        return
    arguments.results.mkdir(parents=True, exist_ok=True)
    files = {part: arguments.results / f"{part}.json" for part in PARTS}
    until = time.monotonic() + 60 * arguments.minutes
    for part in arguments.parts:
        extend(part, files[part], until)
    if arguments.output:
        results = {part: json.loads(file.read_text("utf-8")) for part, file in files.items()}
        text = page({part: {kind: runs for kind, runs in found.items() if runs} for part, found in results.items()})
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
