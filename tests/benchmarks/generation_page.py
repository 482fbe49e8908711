"""The text of docs/benchmarks/generation.md, computed from the results of `tests.benchmarks.generation`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from stedfm_hf.data.simulation.attributes import ATTRIBUTES, BLUR
from tests.benchmarks.timing import machine, table

Found = dict[str, Any]
SOLVERS = [("ddim", 5), ("ddim", 10), ("ddim", 20), ("ddim", 50), ("dpm-solver++", 10), ("dpm-solver++", 20)]
SOLVERS += [("dpm-solver++", 50), ("dpm-solver++", 60), ("dpm-solver++", 150), ("ddim", 100)]
SOLVERS += [
    ("sde-dpm-solver++", 60),
    ("sde-dpm-solver++", 125),
    ("sde-dpm-solver++", 150),
    ("ddpm", 20),
    ("ddpm", 50),
    ("ddpm", 150),
]
SOLVERS += [("ddpm", 1000)]
FAST = "sde-dpm-solver++", 150
"""Solver and steps that are timed next to the loop of the reference."""
SEEDS, WALKS, STEPS, RANDOM = 3, 12, 5, 2
WALKED = [("actin", "ring_visibility"), ("puncta", "density_per_um2"), ("actin", BLUR), ("puncta", BLUR)]
CURVES, PREDICTIONS = Path(__file__).parent / "curves", ("v_prediction", "epsilon")
"""Folder of the evaluations of the packaged training, and of one that differs in its prediction, from `curve.csv`."""
REAL_COLUMNS = {"embeddings": "embedding", "texture": "texture"}
"""Names of the features in the page and in `curve.csv`."""


def read_curves() -> tuple[dict[str, Found], Found]:
    """Read the Fréchet distances of the trainings by name and step, and those of two halves of the held-out images."""
    curves: dict[str, Found] = {}
    for name in PREDICTIONS:
        rows = pd.read_csv(CURVES / f"{name}.csv")
        columns = (rows[f"frechet_{each}"].map("{:.3g}".format) for each in REAL_COLUMNS.values())
        curves[name] = dict(zip(rows["step"].astype(str), map(list, zip(*columns, strict=True)), strict=True))
    real = {kind: f"{rows[f'frechet_{each}_real'].iloc[-1]:.3g}" for kind, each in REAL_COLUMNS.items()}
    return curves, real


@dataclass(frozen=True)
class Walked:
    """What the walks along one attribute of one structure changed, one number for each seed, in SD of real images."""

    rho: list[float]
    change: list[float]
    anywhere: list[float]
    random: list[float]
    unrelated: list[float]
    drift: float
    new_drift: float

    @classmethod
    def of(cls, results: dict[str, Found], structure: str, name: str, noise: str) -> Walked:
        """Collect the results of the seeds."""
        runs = [results[f"walk {structure} {name} {seed}"] for seed in range(SEEDS)]
        sign = float(np.sign(np.mean([run["real_rho"][name] for run in runs])))
        others = [each for each in runs[0]["real_sd"] if _unrelated(each, name, structure)]

        def mean_change(series: list[Found], run: Found) -> float:
            return float(np.mean([abs(_change(each, name, run)) for each in series]))

        return cls(
            [sign * float(spearmanr(range(STEPS), run[noise][name]).statistic) for run in runs],
            [sign * _change(run[noise], name, run) for run in runs],
            [
                mean_change(list(results[f"any {structure} {name} {seed}"].values()), run)
                for seed, run in enumerate(runs)
            ],
            [mean_change([run[f"random {noise} {number}"] for number in range(RANDOM)], run) for run in runs],
            [max(abs(_change(run[noise], each, run)) for each in others) for run in runs],
            float(np.mean([run[noise]["drift"] for run in runs])),
            float(np.mean([run["new"]["drift"] for run in runs])),
        )


def walk_rows(results: dict[str, Found]) -> list[list[str]]:
    """Rows of the table of walks."""
    rows = []
    for structure, name in WALKED:
        for noise in ("inverted", "shared"):
            walked = Walked.of(results, structure, name, noise)
            rows.append(
                [
                    f"{name}, {structure}",
                    noise,
                    " ".join(f"{each:.2f}" for each in walked.rho),
                    _of_seeds(walked.change),
                    _of_seeds(walked.anywhere) if noise == "inverted" else "",
                    _of_seeds(walked.random),
                    _of_seeds(walked.unrelated),
                    f"{walked.drift:.3f}",
                    f"{walked.new_drift:.3f}",
                ]
            )
    return rows


def target_rows(results: dict[str, Found]) -> list[list[str]]:
    """Rows of the table of targets."""
    full = results["solver ddpm 1000"]
    fast = [results[f"solver {FAST[0]} {FAST[1]}"], *results["seeds"]["distances"]]
    speed = results["speed"]
    ratio = median(loop / own for loop, own in zip(speed["loop"], speed["fast"], strict=True))
    walks = {f"{name}, {structure}": Walked.of(results, structure, name, "inverted") for structure, name in WALKED}
    return [
        [
            "15 times faster than the loop of the reference (1,000 steps of DDPM, one image at a time), at an equal "
            "or smaller Fréchet distance",
            f"{ratio:.1f} times ({FAST[0]}, {FAST[1]} steps, batches of 16); "
            + "; ".join(
                f"{kind}: {mean(each[kind] for each in fast):.3g} ({' '.join(f'{each[kind]:.3g}' for each in fast)}), "
                f"DDPM {full[kind]:.3g}"
                for kind in ("embeddings", "texture")
            ),
        ],
        ["walk: rank correlation of at least 0.9 with each seed", _each(walks, lambda each: min(each.rho))],
        [
            "walk: change at least 2 times that along any directions",
            _each(walks, lambda each: mean(each.change) / mean(each.anywhere)),
        ],
        [
            "the same, along directions that images have (stricter)",
            _each(walks, lambda each: mean(each.change) / mean(each.random)),
        ],
        [
            "walk: unrelated attributes change less than 0.5 times as much",
            _each(walks, lambda each: mean(each.unrelated) / mean(each.change)),
        ],
        [
            "the same, with attributes read by regression",
            "; ".join(f"{row[0]}: {other / own:.2f}" for row, own, other in _read(results)),
        ],
        ["walk: drift below that with new noise, as a ratio", _each(walks, lambda each: each.drift / each.new_drift)],
        [
            "a classifier tells generated from real images with an accuracy of at most 0.8",
            "; ".join(f"{name}: {value:.2f}" for name, value in results["classifier"].items()),
        ],
        ["inversion: structural similarity of at least 0.9", f"{results['inversion 50 5']['lowest']:.3f} (lowest)"],
    ]


def _read(results: dict[str, Found]) -> list[tuple[list[str], float, float]]:
    """Rows of the table of attributes read by regression, with the mean changes of the own and the other attribute."""
    rows = []
    for structure, name in WALKED:
        runs = [results[f"read {structure} {name} {seed}"] for seed in range(SEEDS)]
        other = next(each for each in runs[0]["walk"] if each != name)
        own, others = ([run["walk"][each] for run in runs] for each in (name, other))
        measured = runs[0]["alone, measured"]
        sd = results[f"walk {structure} {name} 0"]["real_sd"]
        correlation = runs[0]["correlation"]
        cells = [
            f"{name}, {structure}",
            f"{correlation[name]:.2f}",
            _of_seeds(own),
            f"{runs[0]['alone'][name]:.2f}",
            f"{other} ({correlation[other]:.2f})",
            _of_seeds(others),
            f"{runs[0]['alone'][other]:.2f}",
            f"{measured[other] / sd[other]:.2f}",
        ]
        rows.append((cells, mean(map(abs, own)), mean(map(abs, others))))
    return rows


def _each(walks: dict[str, Walked], number: Callable[[Walked], float]) -> str:
    return "; ".join(f"{name}: {number(walk):.2f}" for name, walk in walks.items())


def _of_seeds(values: list[Any]) -> str:
    """Return the mean, and the value of each seed in brackets."""
    return f"**{np.mean(values):.2f}** ({' '.join(f'{each:.2f}' for each in values)})"


def _unrelated(other: str, name: str, structure: str) -> bool:
    return other != name and other not in {ATTRIBUTES[each] for each in ATTRIBUTES if each != structure}


def _change(series: Found, name: str, run: Found) -> float:
    """Change from the first to the last step, in standard deviations of the real images."""
    return float((series[name][-1] - series[name][0]) / run["real_sd"][name])


def page(results: dict[str, Found], about: dict[str, Any]) -> str:
    """Write the page."""
    reference = results["solver ddpm 1000"]
    solvers = [
        [
            f"{name}, {steps} steps",
            f"{found['seconds']:.2f}",
            f"{reference['seconds'] / found['seconds']:.1f}",
            f"{found['embeddings']:.3f}",
            f"{found['texture']:.2f}",
        ]
        for name, steps in SOLVERS
        for found in [results[f"solver {name} {steps}"]]
    ]
    halves = results["real halves"]
    solvers.append(["real images", "", "", f"{halves['embeddings']:.3f}", f"{halves['texture']:.2f}"])
    inversions = [
        [*key.split()[1:], f"{found['mean']:.3f}", f"{found['lowest']:.3f}"]
        for key, found in results.items()
        if key.startswith("inversion")
    ]
    near, (curves, real) = results["nearest"], read_curves()
    steps = sorted({int(step) for curve in curves.values() for step in curve if step != "0"})
    return PAGE.format(
        curves=table(
            ["steps", *(f"{name}, {kind}" for name in curves for kind in ("embeddings", "texture"))],
            [
                [f"{step:,}", *(each for curve in curves.values() for each in curve.get(str(step), ["", ""]))]
                for step in steps
            ],
        ),
        real_embeddings=real["embeddings"],
        real_texture=real["texture"],
        machine=machine(),
        **about,
        targets="\n".join(f"| {target} | {reached} |" for target, reached in target_rows(results)),
        solvers=table(["solver", "CPU s per image", "times faster", "in embeddings", "in texture features"], solvers),
        alone=" ".join(f"{each:.1f}" for each in results["speed"]["loop"]),
        fast=" ".join(f"{each:.2f}" for each in results["speed"]["fast"]),
        fast_solver=FAST[0],
        fast_steps=FAST[1],
        seeds=", ".join(
            f"{found['embeddings']:.3f} and {found['texture']:.1f}" for found in results["seeds"]["distances"]
        ),
        walks=table(
            [
                "attribute, structure",
                "noise",
                "rank correlation",
                "change, SD",
                "along any directions, SD",
                "along directions that images have, SD",
                "largest unrelated change, SD",
                "drift",
                "drift with new noise",
            ],
            walk_rows(results),
        ),
        read=table(
            [
                "attribute, structure",
                "correlation with the truth",
                "change, SD",
                "if it alone changes, SD",
                "other attribute (correlation)",
                "its change, SD",
                "if the first alone changes, SD",
                "the same by the measure of the table above, SD",
            ],
            [row for row, _, _ in _read(results)],
        ),
        classifier=table(
            ["classifier", "accuracy"], [[key, f"{value:.3f}"] for key, value in results["classifier"].items()]
        ),
        nearest=table(
            ["images", "median", "95th percentile", "highest"],
            [[name, *(f"{each:.3f}" for each in values)] for name, values in near.items()],
        ),
        inversions=table(["steps", "iterations", "SSIM, mean", "lowest"], inversions),
    )


PAGE = """# Generation

How well a small generation pipeline does on **simulated** images with known attributes: actin with rings of varying
visibility, and puncta of varying density, both with a point spread function of varying width. The images are 64 pixels
wide; the condition is the embedding of the packaged encoder `demo`. The network has {parameters:.1f} million
parameters and was trained for {steps:,} steps of {batch} crops: {hours:.1f} hours on one CPU core.

Measured on {machine}, with `make bench-generation`. Other programs used the machine at the same time.

| target | reached |
| --- | --- |
{targets}

![Generated images above their nearest training images](../images/generation-nearest.png)

*Generated images, each above the most similar of 4,000 training images: similar at most, and not the same.*

## Training

Fréchet distances of samples to held-out images during two trainings on 2026-11-29 with version 0.1.0, which differ in
the prediction of the network. `v_prediction` is the packaged pipeline. It was trained in two stages: the learning rate
of the recipe for 6,000 steps, which falls to 0, and then that of a training of 12,000 steps from its middle on.
`epsilon` was stopped early. `make bench-generation` does not train. `python -m stedfm_hf.training.demo_generation
WORK` trains 12,000 steps in one stage, and writes such values to `WORK/run/curve.csv`. The distance between two halves
of the held-out images is {real_embeddings} in embeddings and {real_texture} in texture and morphology features.
One of the latter is the entropy of the grey levels, of which generated images have any number, so that distance cannot
become small.

{curves}

The distance in embeddings hardly falls over the last 2,000 steps. A forward pass of one image takes {gflop:.2f} GFLOP,
and the training took {pflop:.2f} PFLOP. Ten times the steps with four times the crops: {more_pflop:.1f} PFLOP, or
{minutes:.0f} minutes at 10 TFLOP/s. This is computed; no GPU was available.

## Speed and quality by solver

{images} images, each from the embedding of a held-out image, in batches of {batch_size}. The Fréchet distance to as
many other held-out images is lower for more similar sets; with so few images it is above 0 for real images, too.

{solvers}

"Times faster" compares equal batches. The reference generates one image at a time: such an image takes {alone} CPU s
with 1,000 steps of DDPM, next to {fast} CPU s with {fast_steps} steps of {fast_solver} in batches (in turn, all
rounds). With two other seeds of the noise, its distances are {seeds}.

Without noise in the steps (`ddim`, `dpm-solver++`), more steps do not bring the embeddings closer to those of real
images; with noise, 150 steps are as good as 1,000, within the spread of the seeds; 125 steps are not.

## Walks

Each walk has {walk_steps} steps, from the 5th to the 95th percentile of the distances along the direction of an
attribute, which is fitted to 500 images by regression. {walks_each} walks for each of 3 seeds: the mean, and in
brackets the seeds. Changes are in standard deviations over real images. The noise is
found by inversion of the image, or is one for all steps (shared). Random directions are as long: any direction of the
space of embeddings, or directions along which embeddings of images vary. The measure of rings is meaningless for
puncta, and that of density counts maxima in actin, too.

{walks}

The measures of the table are not independent: if only the rings of actin change in the simulation, the measured width
changes, too. So both attributes of each structure were also read from the power spectrum by ridge regressions. These
were fitted to 1,500 simulated images, in which the attributes vary independently. "Alone" is the change in 100
simulated images if only the attribute of the walk goes from its 5th to its 95th percentile: that of a perfect walk.

{read}

## Telling generated from real images

Accuracy of classifiers that are trained to tell generated from held-out images, on images that they have not seen; 0.5
is chance. Simulated images are whole counts of photons, with ties between neighbouring pixels; generated images are
not. "As counts": rounded to the counts of the image whose embedding was the condition.

{classifier}

## Nearest training image

Correlation of pixels with the most similar of 4,000 training images. Memorised images would be near 1, and above those
of held-out images.

{nearest}

## Inversion

Structural similarity (SSIM) of images and their reconstructions from the noise that inversion finds; iterations are
predictions for each step.

{inversions}
"""
