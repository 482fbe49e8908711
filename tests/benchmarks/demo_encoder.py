"""`python -m tests.benchmarks.demo_encoder`: measure the packaged encoder; writes docs/explanation/demo-encoder.md.

It is compared with encoders of the same recipe and other seeds, the same network untrained, and simple features.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stedfm_hf.data import LocalCrops, to_unit_range
from stedfm_hf.evaluation import (
    intensity_histograms,
    knn_accuracy,
    log_spectra,
)
from stedfm_hf.evaluation.baselines import fit_components
from stedfm_hf.images import read_image
from stedfm_hf.inference import load_encoder
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.training.network import standardised_network
from tests.benchmarks.timing import machine, table

PAGE = Path("docs/explanation/demo-encoder.md")
NEIGHBOURS = 20
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
UNTRAINED_SEEDS = (0, 1, 2)
REAL_CROP = 64
OURS, UNTRAINED = "`demo` recipe", "same network, untrained"
Images = list[np.ndarray]
HEAD = """# The demo encoder

Try every command without downloading weights: `--model demo` is a small encoder that comes with the package.

```bash
stedfm embed images/ --model demo --output embeddings.parquet
```

**`demo` was trained on simulated images only.** It is for trying things out, not for results. On average, it
separates seven simulated structures better than simple features do.

## Simulated images (benchmark-v1)"""
METHOD = """## How this was measured

- `demo` was trained by the recipe `demo`, on simulated fields like those of `benchmark-v1`, but none of its splits.
- Train, validation and test have {sizes} images. Every image is one source image. Chance is 14.3 %.
- Embeddings are means over the patches of whole images, in tiles of 64 pixels, as `stedfm embed` computes them.
- Two choices are made on the validation images, for all methods equally: whether features are z-scored for the nearest
  neighbours, and the inverse regularisation strength C of the regression.
- `make demo-encoder` trains the encoder again. In one trial, stopped and resumed halfway on a CPU of the same kind,
  the weights were equal bit for bit.

Written by `python -m tests.benchmarks.demo_encoder --benchmark DATA --runs RUN RUN` on: {machine}."""
NOTE = """Accuracy on the test images: mean ± standard deviation over seeds. Differences are in percentage
points; in brackets, they are divided by the larger of the two standard deviations. Neighbours and regression of the
single seeds of the recipe, the packaged one first: {each_seed}."""
REAL = "## Real images (too few for any claim)"
REAL_NOTE = f"""Accuracy of the 5 nearest neighbours among the {REAL_CROP} x {REAL_CROP} crops of all other images,
z-scored. Only the images are independent, not the crops, so differences mean nothing here. The emitter maps differ in
brightness, which the histogram measures. Scores below chance are possible: crops are only compared with those of other
images, and features may identify the image rather than the class."""


@dataclass(frozen=True)
class Split:
    """Scaled images of a split, with their classes."""

    images: Images
    labels: np.ndarray


@dataclass(frozen=True)
class Accuracies:
    """Of one method with one seed: share of right answers, and those of every class."""

    knn: float
    probe: float
    per_class: np.ndarray


def read_split(repo: Path, split: str) -> Split:
    """All images of a split in [0, 1]."""
    crops = LocalCrops(repo, split)
    batch = crops[list(range(len(crops)))]
    scaled = to_unit_range(batch["pixels"], batch["intensity_range"])[:, 0].numpy()
    return Split(list(scaled), np.array([crops.files.labels[number] for number in batch["label"].tolist()]))


def vectors(model: torch.nn.Module, images: Images) -> np.ndarray:
    """Means over the patches of whole images, as `stedfm embed` makes them."""
    return np.stack(list(encode_images(model, (image[None] for image in images), batch_size=64)))


def accuracies(features: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Accuracies:
    """Nearest neighbours and a logistic regression; whatever can be chosen is chosen on the validation images."""
    train, validation, test = features
    of_train, of_validation, of_test = labels

    def knn(query: np.ndarray, truth: np.ndarray, zscore: bool) -> np.ndarray:
        return knn_accuracy(train, of_train.tolist(), query, truth.tolist(), k=NEIGHBOURS, zscore=zscore).correct

    zscore = max((False, True), key=lambda choice: knn(validation, of_validation, choice).mean())
    correct = knn(test, of_test, zscore)
    probes = [
        make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000)).fit(train, of_train)
        for penalty in PENALTIES
    ]
    probe = max(probes, key=lambda each: each.score(validation, of_validation))
    per_class = np.array([correct[of_test == name].mean() for name in sorted(set(of_test))])
    return Accuracies(float(correct.mean()), float(probe.score(test, of_test)), per_class)


def first_components(train: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components, fitted on the first rows alone."""
    components = fit_components(train)
    return components.transform(train), components.transform(others)


def flat(images: Sequence[np.ndarray]) -> np.ndarray:
    """The pixels of each image in a row."""
    return np.stack([np.asarray(image, np.float32).ravel() for image in images])


def untrained(config: StedFmConfig, train: Split, seed: int) -> torch.nn.Module:
    """The network before its first step, its input standardised as in the training."""
    pixels = np.stack(train.images)
    return standardised_network(config, mean=float(pixels.mean()), std=float(pixels.std()), seed=seed).stedfm.eval()


def on_benchmark(networks: dict[str, list[torch.nn.Module]], splits: Sequence[Split]) -> dict[str, list[Accuracies]]:
    """Accuracies of all methods; of several seeds where there are some."""
    labels = [split.labels for split in splits]
    found = {
        name: [accuracies([vectors(model, split.images) for split in splits], labels) for model in models]
        for name, models in networks.items()
    }
    train, validation, test = (split.images for split in splits)
    both = [*validation, *test]
    for name, (gallery, query) in {
        "log-spectrum PCA, 64 components": first_components(log_spectra(train), log_spectra(both)),
        "pixel PCA, 64 components": first_components(flat(train), flat(both)),
        "intensity histogram, 32 bins": (intensity_histograms(train), intensity_histograms(both)),
    }.items():
        found[name] = [accuracies([gallery, query[: len(validation)], query[len(validation) :]], labels)]
    return found


def percent(values: Sequence[float]) -> str:
    """Mean and, of several, the standard deviation."""
    shown = f"{100 * np.mean(values):.1f}"
    return f"{shown} ± {100 * np.std(values, ddof=1):.1f} %" if len(values) > 1 else f"{shown} %"


def benchmark_tables(found: dict[str, list[Accuracies]], classes: Sequence[str]) -> str:
    """The table of all methods, that of the gains, and that of the classes."""
    ours = found[OURS]

    def gain(name: str, take: Callable[[Accuracies], float]) -> str:
        mine, theirs = ([take(each) for each in found[key]] for key in (OURS, name))
        spread = max(np.std(mine, ddof=1), np.std(theirs, ddof=1) if len(theirs) > 1 else 0.0)
        difference = np.mean(mine) - np.mean(theirs)
        return f"{100 * difference:+.1f} ({difference / spread:+.1f})"

    def knn(each: Accuracies) -> float:
        return each.knn

    def probe(each: Accuracies) -> float:
        return each.probe

    rows = [
        [
            f"{name}{f', {len(seeds)} seeds' if len(seeds) > 1 else ''}",
            percent([each.knn for each in seeds]),
            percent([each.probe for each in seeds]),
            "" if name == OURS else gain(name, knn),
            "" if name == OURS else gain(name, probe),
        ]
        for name, seeds in found.items()
    ]
    head = [
        "method",
        f"{NEIGHBOURS} nearest neighbours",
        "logistic regression",
        "recipe minus method, neighbours",
        "recipe minus method, regression",
    ]
    each_seed = "; ".join(f"{100 * one.knn:.1f} and {100 * one.probe:.1f} %" for one in ours)
    per_class = [
        [name, *(percent([float(one.per_class[number]) for one in found[key]]) for key in found)]
        for number, name in enumerate(classes)
    ]
    return "\n\n".join(
        [
            table(head, rows),
            NOTE.format(each_seed=each_seed),
            "Nearest neighbours, recall of each class:",
            table(["class", *found], per_class),
        ]
    )


def real_sets(folder: Path) -> dict[str, tuple[Images, list[str], list[str]]]:
    """Crops of the few real images at hand, with their classes and source images."""
    groups = {
        "emitter maps made from STED images": {
            path: path.parent.name for path in sorted((folder / "datamaps").glob("*/*.npy"))
        },
        "synaptic proteins, 8-bit copies from figures": {
            path: path.stem.split("_")[0] for path in sorted((folder / "synaptic_proteins").glob("*.tif"))
        },
    }
    scale = StedFmImageProcessor()
    found = {}
    for name, files in groups.items():
        images, labels, sources = [], [], []
        for path, label in files.items():
            whole = scale.prepare(read_image(path).array)[0]
            for top in range(0, whole.shape[0] - REAL_CROP + 1, REAL_CROP):
                for left in range(0, whole.shape[1] - REAL_CROP + 1, REAL_CROP):
                    images.append(whole[top : top + REAL_CROP, left : left + REAL_CROP])
                    labels.append(label)
                    sources.append(str(path))
        found[name] = (images, labels, sources)
    return found


def real_table(folder: Path, networks: dict[str, list[torch.nn.Module]]) -> str:
    """Nearest neighbours of other images, for every method."""
    rows = []
    for name, (images, labels, sources) in real_sets(folder).items():

        def knn(features: np.ndarray, labels: list[str] = labels, sources: list[str] = sources) -> float:
            return knn_accuracy(
                features, labels, features, labels, k=5, gallery_sources=sources, query_sources=sources
            ).accuracy

        scores = [percent([knn(vectors(model, images)) for model in models]) for models in networks.values()]
        spectrum, histogram = knn(log_spectra(images)), knn(intensity_histograms(images))
        kinds, files = sorted(set(labels)), len(set(sources))
        described = f"{name}: {len(images)} crops of {files} images, {len(kinds)} classes"
        rows.append([described, *scores, percent([spectrum]), percent([histogram]), percent([1 / len(kinds)])])
    return table(["images", *networks, "log spectrum", "intensity histogram", "chance"], rows)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmark", type=Path, required=True, help="the data set benchmark-v1")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="trainings of the recipe with other seeds")
    parser.add_argument("--real", type=Path, help="folder of the real images")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    splits = [read_split(arguments.benchmark, name) for name in ("train", "validation", "test")]
    demo = load_encoder("demo", device="cpu").model
    networks: dict[str, list[torch.nn.Module]] = {
        OURS: [demo, *(load_encoder(run, device="cpu").model for run in arguments.runs)],
        UNTRAINED: [untrained(demo.config, splits[0], seed) for seed in UNTRAINED_SEEDS],
    }
    found = on_benchmark(networks, splits)
    sizes = ", ".join(str(len(split.images)) for split in splits)
    parts = [HEAD, benchmark_tables(found, sorted(set(splits[2].labels)))]
    if arguments.real is not None:
        parts += [REAL, real_table(arguments.real, networks), REAL_NOTE]
    parts.append(METHOD.format(machine=machine(), sizes=sizes))
    text = "\n\n".join(parts)
    arguments.page.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
