"""The text of docs/benchmarks/interpretability.md, from the results of `tests.benchmarks.interpretability`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from stedfm_hf.metrics.statistics import bootstrap_interval
from tests.benchmarks.interpretability_scores import ATTENTION, LOGIT, METHODS, RANDOM
from tests.benchmarks.timing import machine, table

Found = dict[str, Any]
PAGE, FIGURE = Path("docs/benchmarks/interpretability.md"), Path("docs/images/planted-maps.png")
ORDER = ("probe", "penalised probe", "two blocks", "full", "two blocks, random head", "full, random head")
LABELS = ("true", "shuffled")
"""Classifiers, and the labels that they are trained on, in the order of the columns."""
GRADIENT = "attention, gradient"
DELETION_TARGETS = {
    (RANDOM,): "random patches",
    tuple(name for name in ATTENTION if name != GRADIENT): "those of attention maps without gradients",
    (GRADIENT,): "those of gradient-weighted attention",
}
"""Methods that deletion by the logit map is compared with, and their names."""
HIT, NO_HIT, SUM_ERROR = 0.8, 0.5, 1e-5
"""Targets: hits with true labels, with shuffled labels, and largest difference of a logit and the sum of its map."""


def runs_of(results: dict[str, Found], part: str) -> dict[str, list[Found]]:
    """Return the results of all seeds of a part, by the other words of their names, in the order of `ORDER`."""
    found: dict[str, list[Found]] = {}
    for name, result in sorted(results.items(), key=lambda each: each[0][-1]):
        first, *words, _ = name.split(" ")
        if first == part:
            found.setdefault(" ".join(words), []).append(result)
    return {
        name: found[name]
        for name in (*ORDER, *(f"{mode} {each}" for each in LABELS for mode in ORDER))
        if name in found
    }


def more_than(runs: list[Found], other: str, kind: str = "logit") -> int:
    """Count the seeds in which deletion by the logit map lowers the predicted class more than by another method."""
    return sum(mean(run["drops"][LOGIT][kind]) > mean(run["drops"][other][kind]) for run in runs)


def deletion_table(results: dict[str, Found], kind: str) -> str:
    """Table of the mean decrease by method and classifier."""
    runs = runs_of(results, "deletion")
    rows = [
        [method, *(_of_seeds([mean(run["drops"][method][kind]) for run in each]) for each in runs.values())]
        for method in METHODS
    ]
    return table(["patches ranked by", *runs], [*rows, ["seeds", *(str(len(each)) for each in runs.values())]])


def lead_table(results: dict[str, Found]) -> str:
    """Table of the decrease by the logit map minus that by another method, and the seeds in which it is positive."""
    runs = runs_of(results, "deletion")
    return table(
        ["logit map minus", *runs], [[other, *(_lead(each, other) for each in runs.values())] for other in METHODS[1:]]
    )


def _lead(runs: list[Found], other: str) -> str:
    lead = np.concatenate([np.subtract(run["drops"][LOGIT]["logit"], run["drops"][other]["logit"]) for run in runs])
    low, high = bootstrap_interval(lead)
    return f"{lead.mean():+.2f} [{low:+.2f}, {high:+.2f}], {more_than(runs, other)} of {len(runs)}"


def pointing_table(results: dict[str, Found], kind: str) -> str:
    """Table of the fraction of hits by method and classifier."""
    runs = runs_of(results, "pointing")
    rows = [
        [method, *(_of_seeds([mean(run["hits"][method][kind]) for run in each]) for each in runs.values())]
        for method in METHODS
    ]
    position = ("touches", "inside").index(kind)
    chance = [f"{mean(run['chance'][position] for run in each):.2f}" for each in runs.values()]
    heads = [name.removesuffix(" true").replace(" shuffled", ", shuffled labels") for name in runs]
    seeds = [str(len(each)) for each in runs.values()]
    return table(
        ["largest patch of", *heads], [*rows, ["chance: fraction of the patches", *chance], ["seeds", *seeds]]
    )


def accuracy_rows(results: dict[str, Found]) -> list[list[str]]:
    """Rows of the table of accuracies and sums."""
    rows = []
    for part, task in {"deletion": "four structures", "pointing": "grid"}.items():
        for name, runs in runs_of(results, part).items():
            accuracy = _of_seeds([run["accuracy"] for run in runs])
            rows.append([task, name, accuracy, f"{max(run['sum error'] for run in runs):.1e}"])
    return rows


def target_rows(results: dict[str, Found]) -> list[list[str]]:
    """Rows of the table of targets."""
    deletions, pointings = runs_of(results, "deletion"), runs_of(results, "pointing")
    rows = []
    for names, title in DELETION_TARGETS.items():
        counts = {mode: min(more_than(runs, name) for name in names) for mode, runs in deletions.items()}
        met = {mode: count == len(deletions[mode]) for mode, count in counts.items()}
        seeds = "; ".join(f"{mode}: {count} of {len(deletions[mode])}" for mode, count in counts.items())
        rows.append(
            [f"without the top patches of the logit map, the logit falls more than without {title}", seeds, _met(met)]
        )
    titles = {
        "true": f"{HIT} of the images or more",
        "shuffled": f"less than {NO_HIT} after training on shuffled labels",
    }
    for labels, title in titles.items():
        for method, name in {LOGIT: LOGIT, GRADIENT: "map of gradient-weighted attention"}.items():
            points = {
                each.removesuffix(f" {labels}"): [mean(run["hits"][method]["touches"]) for run in runs]
                for each, runs in pointings.items()
                if each.endswith(f" {labels}")
            }
            listed = "; ".join(
                f"{mode}: {mean(values):.2f} ({' '.join(f'{each:.2f}' for each in values)})"
                for mode, values in points.items()
            )
            met = {
                mode: mean(values) >= HIT if labels == "true" else mean(values) < NO_HIT
                for mode, values in points.items()
            }
            rows.append([f"the largest patch of the {name} touches the grid: {title}", listed, _met(met)])
    error = max(run["sum error"] for run in results.values())
    rows.append(
        [f"maps sum to the logit within {SUM_ERROR:.0e}", f"{error:.1e}", "met" if error <= SUM_ERROR else "missed"]
    )
    return rows


def _met(met: dict[str, bool]) -> str:
    if all(met.values()) or not any(met.values()):
        return "met" if all(met.values()) else "missed"
    return "; ".join(f"{mode}: {'met' if each else 'missed'}" for mode, each in met.items())


def _of_seeds(values: list[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def page(results: dict[str, Found], facts: Mapping[str, object]) -> str:
    """Write the page from the results and the sizes of the measurements."""
    deletions = runs_of(results, "deletion")
    images = len(next(iter(deletions.values()))[0]["drops"][LOGIT]["logit"])
    hits = len(next(iter(runs_of(results, "pointing").values()))[0]["hits"][LOGIT]["touches"])
    return TEXT.format(
        **facts,
        machine=machine(),
        minutes=f"{sum(run['seconds'] for run in results.values()) / 60:.0f}",
        figure=FIGURE.name,
        images=images,
        hits=hits,
        targets=table(["target", "measured", ""], target_rows(results)),
        **{f"deletion_{kind}": deletion_table(results, kind) for kind in ("logit", "probability", "tokens")},
        lead=lead_table(results),
        **{f"pointing_{kind}": pointing_table(results, kind) for kind in ("touches", "inside")},
        accuracy=table(
            ["task", "classifier", "test accuracy", "largest difference of sum and logit"], accuracy_rows(results)
        ),
    )


TEXT = """# Maps of classifiers

Do the maps of `stedfm explain` show what a classifier uses? Two tests on **simulated images**, with the packaged
encoder `demo`: delete the patches that a map ranks first, and look for a planted grid with its largest patch.

- **Deletion**: gradient-weighted attention finds the patches that matter most, with every classifier. The logit map is
  better than the other attention maps if the head is a probe or starts from one, which is the default of
  `stedfm finetune classification`. It is better than chance with every classifier.
- **Pointing**: the logit map points at the grid if the head is a probe with a strong penalty, or starts from a probe
  before all weights are trained. With a head that starts at random, gradient-weighted attention points at it, and the
  logit map does not.
- That the head starts from a probe was decided on two other seeds.
- Other attention maps also point there after training on shuffled labels: they are not evidence of what is used.

{targets}

Fractions of hits are the mean and, in brackets, every seed.

Measured on {machine}, with `make bench-interpretability` ({minutes} minutes of processor time). Simulated images
show how the maps behave. They do not predict how well the maps explain a classifier of images from a microscope.

## Deleted patches

Decrease of the logit of the predicted class if 6 of 64 patches are filled with the median of the image; larger is
better. Mean ± standard deviation (n - 1) over the seeds of the last row, each with {images} test images of other
source images.

{deletion_logit}

Difference of the decreases, with a 95 % interval, and number of seeds in which the logit falls more without the top
patches of the logit map. The interval is a bootstrap over the test images of all seeds, which are separate source
images; it does not include the variation over trainings.

{lead}

Decrease of the probability of the predicted class:

{deletion_probability}

Decrease of its logit if the encoder does not get the tokens of these patches, as in pretraining, instead of filled
pixels:

{deletion_tokens}

## A planted grid

![Simulated images with a planted grid, and three maps of each](../images/{figure})

*Test images of the first seed, in their order. The frame is the box of the grid; high values are bright.*

A classifier is trained on images with and without a grid of 5 x 5 spots among puncta. Fraction of the {hits} test
images with a grid in which the largest patch of a map touches the box of the grid:

{pointing_touches}

The same, if the centre of this patch must be inside the box:

{pointing_inside}

Attention maps without gradients show what stands out. With a frozen encoder, they do not depend on the head at all.
The logit map shows where the head reads the evidence: in an encoder that is fine-tuned, this can be any patch, because
tokens mix by attention. With a ring of 16 pixels instead of the grid (one seed, another training, a head that starts
at random), the logit map of a fully fine-tuned classifier hit the ring in 40 % of the images, and gradient-weighted
attention in 89 %.

## The first weights of the head

A short fine-tuning changes the weights of the head little. If they are random, the encoder learns to fit them, and the
evidence gets to patches that they happen to read. If they are those of a linear probe, the evidence stays where the
encoder had it. The default was selected on two other seeds. All weights are trained, with a learning rate of 6e-4.
*Decrease*: that of the logit without the top patches of the logit map, and without those of the best attention map
without gradients. *Hits*: images in which the largest patch of the logit map touches the grid.

| first weights of the head | decrease | hits | accuracy, structures | accuracy, grid |
| --- | --- | --- | --- | --- |
| random | 0.17, 0.23 (one seed) | 0.55 and 0.59 | 0.92 (one seed) | 0.99 and 0.99 |
| 0 (one seed) | 0.00, 0.08 | 0.73 | 0.92 | 0.99 |
| probe with C = 0.01 (one seed) | 0.09, 0.22 | 0.95 | 0.91 | 0.98 |
| probe with C = 0.1, the default | 0.26, 0.28 and 0.34, 0.20 | 0.79 and 0.96 | 0.91 and 0.94 | 0.98 and 1.00 |
| the same, with the default learning rate of 2e-4 | 0.34, 0.20 and 0.43, 0.26 | – | 0.92 and 0.90 | – |

## Accuracy, and sums of maps

{accuracy}

Test images keep their true labels.

## How it was measured

| part | how |
| --- | --- |
| classifiers | mean pooling and a linear head on the encoder `demo` |
| probe | the head is a logistic regression on the frozen encoder, as in `stedfm evaluate probe` |
| penalised probe | the same with C = 0.01, instead of the C with the smallest loss on the validation images |
| two blocks | `stedfm finetune classification`: the head, which starts from a probe, and the last two blocks |
| full | the same with all weights |
| random head | the same with `--head-init random --learning-rate 6e-4` |
| structures | `simulate_image` of {structures}; 64 x 64 pixels of 20 nm |
| grid | spots 100 nm apart in a box of 24 pixels, at a random position among puncta, with 0.4 to 0.6 of their peak |
| training images | {train_structures} of each structure; {train_grid} with a grid and {train_grid} without it |
| samples of a fine-tuning | {samples_structures} for the structures, {samples_grid} for the grid |
| selection | the grid, its size and C = 0.01 were selected in trials with another seed and other structures |
| seeds | other images, order, head and augmentation |
| class of the maps | the predicted class in the deletion test, the class with the grid in the other test |
| attention | of the class token; *gradient*: of the patches that the classifier pools |
| attention, reference | averaged over the pixels of each patch |
| brightness | mean of the pixels of a patch |
| random | a random order of the patches for each image |
| shuffled labels | of the training and validation images |
"""
