"""`python -m tests.benchmarks.retrieval`: how features group simulated structures; writes a page of docs.

The images have the physics of the frozen preset `benchmark-v1` and new seeds. Features are cached in the working
folder: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from stedfm_hf.data.simulation.benchmark_v1 import BENCHMARK_V1
from stedfm_hf.data.simulation.fields import simulate_image
from stedfm_hf.discovery.clustering import cluster_tree
from stedfm_hf.evaluation import knn_accuracy
from stedfm_hf.evaluation.extractors import Extractor, load_extractors
from stedfm_hf.evaluation.features import compute_features, prepare_for_search
from stedfm_hf.evaluation.rankings import ALL_OTHERS, rank_images
from stedfm_hf.labels.labelled import LabelledImages, from_arrays
from stedfm_hf.runs import counted
from tests.benchmarks.timing import machine, table

PAGE = Path("docs/benchmarks/retrieval.md")
SEEDS = (101, 102, 103)
PER_STRUCTURE = 25
K = 5
MODEL = "demo"
BASELINES = ("untrained", "texture", "log-spectrum", "histogram", "morphology", "chance")
METRICS = {
    "map": "mAP",
    "map_z": "mAP, z-scored",
    "knn": f"{K}-NN accuracy",
    "knn_z": f"{K}-NN accuracy, z-scored",
    "ari": "ARI of k-means",
}
Found = dict[str, float]
HEAD = """# Retrieval and groups of simulated structures

How well do features find images of the same structure, without labels? `demo`, the packaged encoder, compared with
features that need no training. {lead}

{table}

Mean ± standard deviation (n − 1) over {seeds} sets. The encoder `demo` was trained on simulated images only, so this
page compares features on simulated images. It does not predict results on images from a microscope.

Measured on {machine}, with `python -m tests.benchmarks.retrieval`.

## Groups without labels

Recursive consensus clustering (`cluster_tree`) of the z-scored features, with its default rule. Purity is the fraction
of the images that show the most frequent structure of their leaf; with one leaf it is that of the whole set.

{leaves}

## mAP of each structure

{structures}

## How it was measured

| part | how |
| --- | --- |
| images | {sets} sets of {images} images of {size} x {size} pixels: {per} of each of {classes} structures |
| simulation | the physics of the frozen preset `benchmark-v1`, with the seeds {seed_list}, which no training used |
| sources | every image is a separate source image |
| mAP | mean average precision over all queries; the query is not ranked |
| {k}-NN accuracy | leave-one-out majority vote of the {k} most similar images |
| z-scored | every feature is standardised over the set |
| not z-scored | texture and morphology features, whose units differ, are always z-scored; principal components never |
| ARI | adjusted Rand index of k-means with the true number of groups, 10 starts, on the z-scored features |
"""


def images_of(seed: int, per_structure: int) -> LabelledImages:
    """Simulate a set with the physics of the preset."""
    labels = [name for name in BENCHMARK_V1.structures for _ in range(per_structure)]
    images = [
        simulate_image(name, seed=seed, index=index, settings=BENCHMARK_V1.settings)
        for name in BENCHMARK_V1.structures
        for index in range(per_structure)
    ]
    return from_arrays(f"seed {seed}", images, labels)


def features_of(data: LabelledImages, extractor: Extractor | None, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features as the commands compare them, without and with standardisation; equal ones for chance."""
    if extractor is None:
        return (np.ones((len(data), 1)),) * 2
    values = compute_features(data, extractor, cache=cache).values
    raw, standardised = (prepare_for_search(values, extractor, zscore=zscore)[0] for zscore in (False, True))
    return raw, standardised


def score(data: LabelledImages, raw: np.ndarray, standardised: np.ndarray, seed: int) -> tuple[Found, np.ndarray]:
    """Score the features of a set, and return the average precision of every query by the raw features."""
    found: Found = {}
    queries = np.zeros(len(data))
    for suffix, values in (("", raw), ("_z", standardised)):
        precision = rank_images(values, data.labels, data.sources, ks=[])[ALL_OTHERS].values["aupr"]
        found["map" + suffix] = float(precision.mean())
        voted = knn_accuracy(
            values,
            data.labels,
            values,
            data.labels,
            k=K,
            zscore=False,
            gallery_sources=data.sources,
            query_sources=data.sources,
        )
        found["knn" + suffix] = voted.accuracy
        queries = queries if suffix else precision
    if not np.ptp(standardised):  # chance: one group, whose ARI is 0
        return found | {"ari": 0.0}, queries
    groups = KMeans(len(data.classes), n_init=10, random_state=seed).fit_predict(standardised)
    found["ari"] = float(adjusted_rand_score(data.labels, groups))
    leaves = cluster_tree(standardised, seed=seed).labels
    found["leaves"] = float(len(np.unique(leaves)))
    found["purity"] = float(
        sum(np.bincount(data.labels[leaves == leaf]).max() for leaf in np.unique(leaves)) / len(data)
    )
    return found, queries


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/retrieval"), help="folder of the cached features")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--per-structure", type=int, default=PER_STRUCTURE)
    arguments = parser.parse_args(argv)
    names: dict[str, str] = {}
    scores: dict[str, list[Found]] = {}
    precision: dict[str, list[np.ndarray]] = {}
    for seed in SEEDS:
        data = images_of(seed, arguments.per_structure)
        extractors = load_extractors([MODEL], BASELINES, data=data, device="cpu", seed=seed)
        named: list[tuple[str, str, Extractor | None]] = [(each.key, each.name, each) for each in extractors]
        for key, name, extractor in [*named, ("chance", "Chance", None)]:
            raw, standardised = features_of(data, extractor, arguments.work)
            found, queries = score(data, raw, standardised, seed)
            names[key] = name
            scores.setdefault(key, []).append(found)
            precision.setdefault(key, []).append(queries)
            print(f"seed {seed}, {name}: {found}", flush=True)
    arguments.page.write_text(_page(names, scores, precision, arguments.per_structure), encoding="utf-8")
    print(arguments.page)


def _page(
    names: Mapping[str, str],
    scores: Mapping[str, Sequence[Found]],
    precision: Mapping[str, Sequence[np.ndarray]],
    per_structure: int,
) -> str:
    structures = BENCHMARK_V1.structures
    rows = [[name, *(_mean_sd(scores[key], metric) for metric in METRICS)] for key, name in names.items()]
    by_structure = {
        key: np.mean([each.reshape(len(structures), per_structure).mean(axis=1) for each in found], axis=0)
        for key, found in precision.items()
    }
    leaves = [
        [name, ", ".join(f"{each['leaves']:.0f}" for each in scores[key]), _mean_sd(scores[key], "purity")]
        for key, name in names.items()
        if key != "chance"
    ]
    return HEAD.format(
        lead=_lead(names, scores),
        table=table(["", *METRICS.values()], rows),
        leaves=table(["", "leaves in each set", "purity"], leaves),
        structures=table(
            ["", *structures],
            [[names[key], *(f"{value:.2f}" for value in means)] for key, means in by_structure.items()],
        ),
        seeds=len(SEEDS),
        sets=len(SEEDS),
        seed_list=", ".join(map(str, SEEDS)),
        images=per_structure * len(structures),
        per=per_structure,
        classes=len(structures),
        size=BENCHMARK_V1.settings.height,
        k=K,
        machine=machine(),
    )


def _lead(names: Mapping[str, str], scores: Mapping[str, Sequence[Found]]) -> str:
    """Say where the encoder is better and where a baseline is."""
    ahead: list[str] = []
    behind: list[str] = []
    for metric, title in METRICS.items():
        means = {key: float(np.mean([each[metric] for each in found])) for key, found in scores.items()}
        best = max((key for key in means if key != MODEL), key=lambda key: means[key])
        text = f"{title} ({MODEL} {means[MODEL]:.3f}, {names[best]} {means[best]:.3f})"
        (ahead if means[MODEL] > means[best] else behind).append(text)
    lines = []
    if ahead:
        lines.append(
            f"`{MODEL}` is better than every baseline in {counted(len(ahead), 'metric')}: {'; '.join(ahead)}."
        )
    if behind:
        lines.append(f"A baseline is better in {counted(len(behind), 'metric')}: {'; '.join(behind)}.")
    return "\n".join(lines)


def _mean_sd(found: Sequence[Found], metric: str) -> str:
    values = [each[metric] for each in found]
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


if __name__ == "__main__":
    main()
