"""`python -m tests.benchmarks.interpretability`: what maps of simulated images point at; writes a page of docs.

The trained classifiers and the results of each seed are kept in the working folder: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stedfm_hf import StedFmForImageClassification, StedFmImageProcessor
from stedfm_hf.data.simulation.fields import simulate_image
from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.evaluation.probe import fit_layer, select_C
from stedfm_hf.labels.labelled import read_labelled
from stedfm_hf.reports.figures import show_image, style
from stedfm_hf.runs import atomic_path
from stedfm_hf.training.classification.trainer import features_of, set_head
from stedfm_hf.training.classify import finetune_classification
from stedfm_hf.weights.models import find_model
from tests.benchmarks.interpretability_page import FIGURE, PAGE, Found, page
from tests.benchmarks.interpretability_scores import (
    LOGIT,
    METHODS,
    deletion_drops,
    patch_scores,
    patches_in_box,
    predict,
    sum_error,
)
from tests.benchmarks.planted import WITH, WITHOUT, PlantedImage, plant, write_classes

SEEDS = (1, 2, 3)
PROBE, PENALISED = "probe", "penalised probe"
PROBES: dict[str, float | None] = {PROBE: None, PENALISED: 0.01}
"""C of the logistic regression of each kind of probe; None selects it on the validation images."""
MODES: dict[str, dict[str, Any]] = {
    "two blocks": {"mode": "last-blocks", "blocks": 2},
    "full": {"mode": "full"},
    "two blocks, random head": {"mode": "last-blocks", "blocks": 2, "head_init": "random", "learning_rate": 6e-4},
    "full, random head": {"mode": "full", "head_init": "random", "learning_rate": 6e-4},
}
"""Options of `finetune_classification` of each kind of fine-tuned classifier."""
STRUCTURES = ("rings", "fibres", "microtubules", "puncta")
SMALL = SimulationSettings(height=64, width=64)


@dataclass(frozen=True)
class Sizes:
    """Numbers of images per class, and of training samples.

    Attributes:
        train: Training images.
        validation: Validation images.
        test: Test images.
        samples: Samples of the training, over all epochs.
    """

    train: int
    validation: int
    test: int
    samples: int

    def indices(self) -> dict[str, range]:
        """Return the indices of the images of each split."""
        ends = np.cumsum([0, self.train, self.validation, self.test]).tolist()
        return dict(zip(("train", "validation", "test"), map(range, ends, ends[1:]), strict=False))


POINTING_MODES = (*PROBES, "full", "full, random head")
"""Kinds of classifiers that are trained on images with the grid."""
DELETION, POINTING = Sizes(100, 20, 25, 1920), Sizes(400, 40, 100, 960)


def train(work: Path, mode: str, seed: int, sizes: Sizes) -> Path:
    """Train a classifier on the class folders `work/images`, and return its folder."""
    output = work / mode.replace(" ", "-")
    if mode in PROBES:
        fit_probe(work / "images", C=PROBES[mode]).save_pretrained(output)
        return output
    finetune_classification(
        "demo",
        str(work / "images"),
        output=str(output),
        sample_budget=sizes.samples,
        effective_batch_size=32,
        num_evaluations=2,
        seeds=[seed],
        device="cpu",
        **MODES[mode],
    )
    return output


def fit_probe(images: Path, *, C: float | None) -> StedFmForImageClassification:
    """Return a classifier whose head is a logistic regression on frozen features, as in `stedfm evaluate probe`."""
    splits = read_labelled(images)
    train, validation = splits["train"], splits["validation"]
    classes = dict(enumerate(train.classes))
    network = StedFmForImageClassification.from_pretrained(
        find_model("demo").location,
        dtype=torch.float32,
        id2label=classes,
        label2id={name: number for number, name in classes.items()},
    )
    features, held_out = (features_of(network, [*split]).astype(np.float64) for split in (train, validation))
    mean, sd = features.mean(axis=0), features.std(axis=0)
    scaled, selection = (features - mean) / sd, ((held_out - mean) / sd, validation.labels)
    if C is None:
        C = select_C(scaled, train.labels, train.sources, task="classes", classes=len(classes), validation=selection).C
    weight, bias = fit_layer(scaled, train.labels, task="classes", classes=len(classes), C=C)
    set_head(network, mean=mean, variance=sd**2 - network.batch_norm.eps, weight=weight, bias=bias)
    return network


def load(folder: Path, images: Iterable[np.ndarray]) -> tuple[StedFmForImageClassification, torch.Tensor]:
    """Load a classifier, and scale images as it expects them."""
    processor = StedFmImageProcessor.from_pretrained(folder)
    model = StedFmForImageClassification.from_pretrained(folder).eval()
    return model, processor(list(images), return_tensors="pt")["pixel_values"]


def measure_deletion(work: Path, mode: str, seed: int) -> Found:
    """Train on four structures, and delete patches of the test images."""
    splits = {
        split: {
            name: [simulate_image(name, seed=seed, index=each, settings=SMALL) for each in numbers]
            for name in STRUCTURES
        }
        for split, numbers in DELETION.indices().items()
    }
    work = work / f"structures-{seed}"
    write_classes(work / "images", splits)
    test = [image for images in splits["test"].values() for image in images]
    model, pixels = load(train(work, mode, seed, DELETION), test)
    found = predict(model, pixels)
    true = torch.tensor([model.config.label2id[name] for name in STRUCTURES]).repeat_interleave(DELETION.test)
    return {
        "accuracy": float((found.label == true).float().mean()),
        "sum error": sum_error(model, pixels, found),
        "drops": deletion_drops(model, pixels, seed=seed),
    }


def measure_pointing(work: Path, mode: str, seed: int, *, shuffled: bool) -> Found:
    """Train on images with and without a planted grid, and look for it with the maps of the test images.

    Args:
        work: Working folder.
        mode: Kind of classifier.
        seed: Random seed of the images and the training.
        shuffled: Whether the labels of the training and validation images are shuffled.
    """
    splits = {
        split: {name: [plant(name, seed=seed, index=each) for each in numbers] for name in (WITH, WITHOUT)}
        for split, numbers in POINTING.indices().items()
    }
    work = work / f"planted-{'shuffled' if shuffled else 'true'}-{seed}"
    shown = {
        split: _shuffle(classes, seed) if shuffled and split != "test" else classes
        for split, classes in splits.items()
    }
    write_classes(
        work / "images",
        {
            split: {name: [each.image for each in images] for name, images in classes.items()}
            for split, classes in shown.items()
        },
    )
    planted = splits["test"][WITH]
    model, pixels = load(
        train(work, mode, seed, POINTING), [each.image for images in splits["test"].values() for each in images]
    )
    prediction, label = predict(model, pixels), model.config.label2id
    true = torch.tensor([label[WITH], label[WITHOUT]]).repeat_interleave(POINTING.test)
    scores = patch_scores(model, pixels[: len(planted)], torch.full((len(planted),), label[WITH]), seed=seed)
    return {
        "accuracy": float((prediction.label == true).float().mean()),
        "sum error": sum_error(model, pixels, prediction),
        "hits": {name: _hits(scores[name], planted, model.config.patch_size) for name in METHODS},
        "chance": np.mean([[each.mean() for each in _boxes(image, 8).values()] for image in planted], axis=0).tolist(),
    }


def _shuffle(classes: dict[str, list[PlantedImage]], seed: int) -> dict[str, list[PlantedImage]]:
    """Distribute the images over the classes at random."""
    images = [image for each in classes.values() for image in each]
    order = np.random.default_rng(seed).permutation(len(images))
    parts = np.split(order, np.cumsum([len(each) for each in classes.values()])[:-1])
    return {name: [images[each] for each in part] for name, part in zip(classes, parts, strict=True)}


def _box_of(image: PlantedImage) -> tuple[int, int, int, int]:
    assert image.box is not None
    return image.box


def _boxes(image: PlantedImage, patch_size: int) -> dict[str, np.ndarray]:
    height, width = image.image.shape
    return patches_in_box(_box_of(image), (height, width), patch_size)


def _hits(scores: torch.Tensor, planted: list[PlantedImage], patch_size: int) -> dict[str, list[bool]]:
    """Return whether the patch with the highest score hits the box of each image."""
    best = scores.argmax(dim=1).tolist()
    boxes = [_boxes(image, patch_size) for image in planted]
    return {
        kind: [bool(box[kind].ravel()[number]) for box, number in zip(boxes, best, strict=True)] for kind in boxes[0]
    }


def plot_maps(work: Path, seed: int, path: Path, *, count: int = 6) -> None:
    """Plot test images with a planted grid above maps of them; a frame marks the grid.

    Args:
        work: Working folder of finished measurements.
        seed: Seed of the measurements.
        path: PNG file to write.
        count: Number of images.
    """
    images = [plant(WITH, seed=seed, index=each) for each in POINTING.indices()["test"][:count]]
    shown = [(PENALISED, LOGIT), ("full", LOGIT), ("full", "attention, gradient")]
    with style():
        figure = Figure(figsize=(1.5 * count, 1.55 * (1 + len(shown))), layout="constrained")
        axes = figure.subplots(1 + len(shown), count)
        for column, image in enumerate(images):
            show_image(axes[0, column], image.image, pixel_size_nm=20.0 if column == 0 else None)
            _mark(axes[0, column], image, 1)
        axes[0, 0].set_ylabel("simulated image", fontsize=8)
        for row, (mode, method) in enumerate(shown, start=1):
            model, pixels = load(
                work / f"planted-true-{seed}" / mode.replace(" ", "-"), [each.image for each in images]
            )
            patch = model.config.patch_size
            scores = patch_scores(model, pixels, torch.full((count,), model.config.label2id[WITH]), seed=seed)
            for column, image in enumerate(images):
                score = scores[method][column].reshape(pixels.shape[2] // patch, -1).numpy()
                show_image(axes[row, column], score, colour_map="viridis")
                _mark(axes[row, column], image, patch)
            axes[row, 0].set_ylabel(f"{mode}:\n{method}", fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png", metadata={"Software": None})


def _mark(axes: Axes, image: PlantedImage, pixel: int) -> None:
    """Mark the box of an image whose shown pixels have a size of `pixel` pixels."""
    top, bottom, left, right = (each / pixel - 0.5 for each in _box_of(image))
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="white"))


def measurements(work: Path) -> dict[str, Callable[[], Found]]:
    """Return every measurement by name; the first seeds come first, so that an interrupted benchmark has all parts."""
    every: dict[str, Callable[[], Found]] = {}
    for seed in SEEDS:
        for mode in (*PROBES, *MODES):
            every[f"deletion {mode} {seed}"] = partial(measure_deletion, work, mode, seed)
        for mode in POINTING_MODES:
            for labels in ("true", "shuffled"):
                every[f"pointing {mode} {labels} {seed}"] = partial(
                    measure_pointing, work, mode, seed, shuffled=labels == "shuffled"
                )
    return every


def main() -> None:
    """Measure what is missing, and write the page and its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/interpretability"), help="folder of the classifiers")
    parser.add_argument("--output", type=Path, default=PAGE, help="page to write")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="figure to write")
    arguments = parser.parse_args()
    file = arguments.work / "results.json"
    results: dict[str, Found] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for name, measure in measurements(arguments.work).items():
        if name in results:
            continue
        began = time.process_time()
        results[name] = {**measure(), "seconds": time.process_time() - began}
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(results), encoding="utf-8")
        print(f"{name}: {results[name]['seconds']:.0f} s", file=sys.stderr, flush=True)
    plot_maps(arguments.work, SEEDS[0], arguments.figure)
    facts = {
        "structures": ", ".join(STRUCTURES),
        "train_structures": DELETION.train,
        "samples_structures": DELETION.samples,
        "train_grid": POINTING.train,
        "samples_grid": POINTING.samples,
    }
    arguments.output.write_text(page(results, facts), encoding="utf-8")


if __name__ == "__main__":
    main()
