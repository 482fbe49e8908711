"""`python -m tests.benchmarks.phenotype`: plant a phenotype, and look for it; writes docs/benchmarks/phenotype.md.

The results are kept in a JSON file: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import hypergeom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stedfm_hf.discovery.clustering import cluster_tree
from stedfm_hf.discovery.groups.enrichment import enrichments
from stedfm_hf.inference import load_encoder
from stedfm_hf.runs import atomic_path
from tests.benchmarks.phenotype_images import IMAGE_CROPS, KINDS, PROPERTIES, crops_of, image_features
from tests.benchmarks.timing import machine, table
from tests.discovery import generators as made

Found = dict[str, Any]
PER_CONDITION, DISPLACED, CROPS, SHIFT = 100, 10, 5, 3.0
LEVEL = 0.01
DATA_SETS, MORE_DATA_SETS, IMAGE_DATA_SETS = 20, 10, 2


@dataclass(frozen=True)
class Planted:
    """Crops of sources, some of which are displaced.

    Attributes:
        X: Features of the crops (n, d).
        sources: Source of each crop (n,).
        displaced: Whether each source is displaced (sources,).
        condition: Condition of each source (sources,), "drug" or "control".
    """

    X: np.ndarray
    sources: np.ndarray
    displaced: np.ndarray
    condition: np.ndarray


def search(data: Planted, seed: int) -> Found:
    """Cluster the crops, and test the condition in every node."""
    tree = cluster_tree(data.X, sources=data.sources, seed=seed)
    names = data.sources.astype(str)
    tests = enrichments(tree, data.condition[data.sources], names, seed=seed)
    return {"leaves": len(tree.leaves), "p": min((each.p_corrected for each in tests), default=None)}


def search_made(make: Callable[[int], Planted], seed: int) -> Found:
    """Make a data set, and search in it."""
    return search(make(seed), seed)


def conditions() -> np.ndarray:
    """Return the condition of each source; the first ones are treated."""
    return np.repeat(["drug", "control"], PER_CONDITION)


def embeddings(
    seed: int,
    *,
    dimensions: int = made.DIMENSIONS,
    direction: str = "random",
    displaced: int = DISPLACED,
    jitter: float = 0.3,
    mixed: bool = False,
    per_condition: int = PER_CONDITION,
) -> Planted:
    """Make crops in the axes of a power-law spectrum, and rotate them.

    Args:
        seed: Random seed.
        dimensions: Number of dimensions.
        direction: Displacement: "random" is `SHIFT` times the SD of the widest axis in a random direction, "widest"
            the same along the widest axis, and "own" is `SHIFT` times the SD of the sources in that random direction.
        displaced: Number of displaced sources.
        jitter: SD of the crops around their source, divided by that of the sources, on every axis.
        mixed: Whether half of the displaced sources are of the other condition.
        per_condition: Number of sources of a condition.
    """
    rng = np.random.default_rng(seed)
    sources = made.power_law(2 * per_condition, rng, dimensions)
    towards = made.directions(1, rng, dimensions)[0] if direction != "widest" else np.eye(dimensions)[0]
    sd = float(np.linalg.norm(towards * made.deviations(dimensions))) if direction == "own" else 1.0
    is_displaced = np.arange(2 * per_condition) < displaced
    if mixed:
        is_displaced = np.isin(np.arange(2 * per_condition) % per_condition, np.arange(displaced // 2))
    sources[is_displaced] += SHIFT * sd * towards
    source = np.repeat(np.arange(2 * per_condition), CROPS)
    crops = sources[source] + jitter * made.power_law(len(source), rng, dimensions)
    condition = np.repeat(["drug", "control"], per_condition)
    return Planted(made.rotated(crops, rng), source, is_displaced, condition)


def measured_features(seed: int, *, displaced: int = DISPLACED, columns: int = 1) -> Planted:
    """Make 13 correlated columns of sources; in some sources, a few columns are displaced by `SHIFT` of their SD."""
    rng = np.random.default_rng(seed)
    sources = rng.standard_normal((2 * PER_CONDITION, 13)) @ rng.standard_normal((13, 13))
    sources /= sources.std(axis=0)
    is_displaced = np.arange(2 * PER_CONDITION) < displaced
    sources[is_displaced, :columns] += SHIFT
    source = np.repeat(np.arange(2 * PER_CONDITION), CROPS)
    crops = sources[source] + 0.3 * rng.standard_normal((len(source), 13))
    return Planted(crops.astype(np.float32), source, is_displaced, conditions())


SPECTRUM = "384 dimensions, power law"
EMBEDDINGS: dict[str, Callable[[int], Planted]] = {
    f"{SPECTRUM}; random direction, 3 SD of the widest axis": embeddings,
    f"{SPECTRUM}; the same, a third of the variance inside of sources": partial(embeddings, jitter=0.7),
    f"{SPECTRUM}; the same, 20 of 200 sources of a condition": partial(embeddings, per_condition=200, displaced=20),
    f"{SPECTRUM}; along the widest axis, 3 of its SD": partial(embeddings, direction="widest"),
    f"{SPECTRUM}; random direction, 3 SD of that direction": partial(embeddings, direction="own"),
    "13 dimensions, power law; random direction, 3 SD of the widest axis": partial(embeddings, dimensions=13),
    "13 correlated columns; one column, 3 of its SD": measured_features,
    "13 correlated columns; four columns, 3 of their SD": partial(measured_features, columns=4),
}
NONE: dict[str, Callable[[int], Planted]] = {
    f"{SPECTRUM}; nothing displaced": partial(embeddings, displaced=0),
    f"{SPECTRUM}; 10 sources displaced, 5 of each condition": partial(embeddings, mixed=True),
    "13 correlated columns; nothing displaced": partial(measured_features, displaced=0),
}


def recognised(data: Planted) -> float:
    """Return the AUROC of a classifier that knows the displaced sources, on held-out source means."""
    means = np.stack([data.X[data.sources == source].mean(axis=0) for source in np.unique(data.sources)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    score = cross_val_predict(model, means, data.displaced, cv=folds, method="decision_function")
    return float(roc_auc_score(data.displaced, score))


def search_images(name: str, seed: int) -> Found:
    """Simulate the images of one data set, and search in each kind of features, with and without the change."""
    structure, change = PROPERTIES[name]
    encoder = load_encoder("demo", device="cpu").model
    plain = image_features(crops_of(structure, seed, range(2 * PER_CONDITION)), encoder)
    with change():
        changed = image_features(crops_of(structure, seed, range(DISPLACED)), encoder)
    is_displaced = np.arange(2 * PER_CONDITION) < DISPLACED
    source = np.repeat(np.arange(2 * PER_CONDITION), IMAGE_CROPS)
    found: Found = {}
    for kind, X in plain.items():
        without = Planted(X, source, np.zeros_like(is_displaced), conditions())
        with_it = replace(without, X=np.concatenate([changed[kind], X[len(changed[kind]) :]]), displaced=is_displaced)
        found[kind] = {
            "with": search(with_it, seed),
            "without": search(without, seed),
            "auroc": recognised(with_it),
        }
    return found


EVERY: dict[str, Callable[[int], Found]] = {
    name: partial(search_made, make) for name, make in {**EMBEDDINGS, **NONE}.items()
}
"""Search of each kind of data."""
MAIN = (next(iter(EMBEDDINGS)), next(iter(NONE)))
PARTS: dict[str, tuple[dict[str, Callable[[int], Found]], int]] = {
    "main": ({name: EVERY[name] for name in MAIN}, DATA_SETS),
    "images": ({name: partial(search_images, name) for name in PROPERTIES}, IMAGE_DATA_SETS),
    "more": ({name: each for name, each in EVERY.items() if name not in MAIN}, MORE_DATA_SETS),
}
"""Part to its kinds of data and their number of data sets."""


def extend(file: Path, parts: list[str], until: float) -> None:
    """Run what is missing, seed by seed, until a time."""
    found: dict[str, list[Found]] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for part in parts:
        kinds, repeats = PARTS[part]
        for seed in range(repeats):
            for name, measure in kinds.items():
                runs = found.setdefault(name, [])
                if len(runs) == seed and time.monotonic() < until:
                    began = time.process_time()
                    runs.append({**measure(seed), "seconds": time.process_time() - began})
                    with atomic_path(file) as temporary:
                        temporary.write_text(json.dumps(found), encoding="utf-8")
    print({name: len(runs) for name, runs in found.items()}, file=sys.stderr)


def called(found: Found) -> bool:
    """Whether a node is called enriched."""
    return found["p"] is not None and found["p"] < LEVEL


def rate(runs: list[Found]) -> list[str]:
    """Cells: how often a node is enriched, how often the tree splits, and the median p of the trees that split."""
    p = [each["p"] for each in runs if each["p"] is not None]
    return [
        f"{sum(map(called, runs))} of {len(runs)}",
        f"{sum(each['leaves'] > 1 for each in runs)} of {len(runs)}",
        f"{np.median(p):.2g}" if p else "no test",
    ]


def exact_p(inside: int, other: int) -> float:
    """Return the exact p value, corrected for two nodes, of a node with some sources of each condition."""
    return min(1.0, 2 * 2 * float(hypergeom.sf(inside - 1, 2 * PER_CONDITION, PER_CONDITION, inside + other)))


def page(found: dict[str, list[Found]]) -> str:
    """Write the page from the results."""
    head = ["data", f"enriched node, p < {LEVEL}", "split", "median p where split"]
    main = found[next(iter(EMBEDDINGS))]
    none = [each for name in NONE for each in found.get(name, [])]
    images = [
        [
            name,
            kind,
            *rate([run[kind]["with"] for run in runs])[:2],
            rate([run[kind]["without"] for run in runs])[0],
            f"{np.mean([run[kind]['auroc'] for run in runs]):.2f}",
        ]
        for name in PROPERTIES
        if (runs := found.get(name, []))
        for kind in KINDS
    ]
    limits = [(10, 0), (9, 0), (8, 0), (10, 1), (10, 2)]
    return PAGE.format(
        machine=machine(),
        first=rate(main)[0],
        false=f"{sum(map(called, none))} of {len(none)}",
        planted=table(head, [[name, *rate(found[name])] for name in EMBEDDINGS if name in found]),
        none=table(head, [[name, *rate(found[name])] for name in NONE if name in found]),
        limits=table(
            ["treated sources in the node", "others", "p, corrected for 2 nodes"],
            [[str(inside), str(other), f"{exact_p(inside, other):.4f}"] for inside, other in limits],
        ),
        found=sum(called(run[kind]["with"]) for name in PROPERTIES for run in found.get(name, []) for kind in KINDS),
        searches=sum(len(found.get(name, [])) * len(KINDS) for name in PROPERTIES),
        images=table(
            [
                "changed in 10 % of the treated sources",
                "features",
                "enriched node",
                "split",
                "without the change",
                "AUROC with labels",
            ],
            images,
        ),
    )


PAGE = """# Planted phenotype

Does `stedfm cluster` find a phenotype that 10 of 100 treated source images have, and none of 100 others? In simulated
embeddings with a displacement of 3 SD of the widest axis: in {first} data sets a node is called enriched (corrected
p < 0.01); required are 90 % of 20. Without a phenotype, or with one in both conditions, a node is called enriched in
{false} data sets; required are at most 5 %.

Measured on {machine}, with `make bench-phenotype`. Other programs used the machine at the same time.

## In embeddings

{planted}

Without a difference between the conditions:

{none}

Each row states its number of data sets; rows of a few data sets only show what to expect.

Which SD the displacement is measured in decides everything. A random direction crosses all 384 axes: the SD of the
sources along it is a tenth of the widest, so that 3 widest SD are about 30 SD there. Along the widest axis, or in
units of that direction, 3 SD are 3 SD of the data themselves: the two groups overlap, 190 to 10, and the rule sees no
valley. In 13 dimensions a random direction is no longer empty. There, and with 13 columns such as morphology features,
**the phenotype is not found**, also where 3 SD of four columns are changed.

## What the test can reach

The exact permutation test over source images has a smallest p value. It leaves no room for error: two displaced
sources that are missed, or one other source in the node, are the difference between found and not found.

{limits}

## In simulated images

One property is changed in 10 of 100 treated sources; each source is a field of 128 x 256 pixels of 20 nm, cut in two
crops. The AUROC is that of logistic regression that is *told* which sources changed, on the means of held-out sources:
it shows whether the features see the change at all. A high AUROC without a split means: visible, but without a valley.
With 10 changed sources the AUROC is uncertain by about 0.1. {found} of {searches} searches found the change; this is
too few data sets for a rate.

{images}

## How it was measured

| part | how |
| --- | --- |
| sources | 200: 100 treated, 100 others; 10 of the treated ones displaced |
| power law | Gaussian; variance of axis i proportional to i^-1.2, widest SD 1; randomly rotated |
| columns | 13 Gaussian columns with a random covariance (product of two Gaussian matrices), crops vary by 0.3 SD |
| crops | 5 per source; their SD is 0.3 of that of the sources on each axis (0.7: a third of the variance) |
| clustering | z-scored, valley rule, sources given; seeds 0, 1, 2, ... for the data and the rule |
| test | permutation test over source images, Holm's method for all nodes; see [Find groups](../how-to/cluster.md) |
| images | `simulate_image`, intensities of the same structure, scaled as a whole field by the default processor |
"""


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after this time, and go on in the next call")
    parser.add_argument("--results", type=Path, default=Path("build/phenotype.json"))
    parser.add_argument("--output", type=Path, help="page to write, from the results so far")
    arguments = parser.parse_args()
    extend(arguments.results, arguments.parts, time.monotonic() + 60 * arguments.minutes)
    if arguments.output:
        arguments.output.write_text(page(json.loads(arguments.results.read_text("utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
