"""`python -m tests.benchmarks.generation PIPELINE`: quality and speed; writes docs/benchmarks/generation.md.

All images are simulated by `attributes`, with known attributes. The results are kept in JSON files, one for each part:
an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from skimage.feature import peak_local_max
from skimage.metrics import structural_similarity
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stedfm_hf.data.simulation.attributes import ATTRIBUTES, BLUR, PHYSICS, simulate_attributes
from stedfm_hf.evaluation.baselines import texture_features
from stedfm_hf.generation.fitting import fit_regression
from stedfm_hf.generation.generate import scheduler_of
from stedfm_hf.generation.loading import LoadedPipeline, load_pipeline
from stedfm_hf.generation.measures import drift
from stedfm_hf.generation.walks import Noise, embed, walk_images
from stedfm_hf.metrics import frechet_distance
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.runs import atomic_path
from tests.benchmarks.timing import machine, table
from tests.data.simulation.test_attributes import ring_power

Found = dict[str, Any]
HELD_OUT, FITTED = 900_000, 800_000
"""First index of the simulated images that no training has seen, and of those that directions are fitted to."""
SOLVERS = [("ddim", 5), ("ddim", 10), ("ddim", 20), ("ddim", 50), ("dpm-solver++", 10), ("dpm-solver++", 20)]
SOLVERS += [("dpm-solver++", 50), ("ddim", 100), ("ddpm", 1000)]
SEEDS, WALKS, STEPS = 3, 12, 5
BATCH = 16


def crops(structure: str, first: int, count: int) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Simulate scaled crops (n, 64, 64) in [0, 1] with their attributes."""
    processor, images, known = StedFmImageProcessor(), [], []
    for index in range(first, first + count):
        made = simulate_attributes(structure, seed=0, index=index)
        images.append(processor.prepare(made.image)[0])
        known.append(made.attributes)
    return np.stack(images), known


def both(first: int, count: int) -> np.ndarray:
    """Simulate as many crops of each structure."""
    return np.concatenate([crops(each, first, count // len(ATTRIBUTES))[0] for each in ATTRIBUTES])


@dataclass
class Bench:
    """Pipeline and images of the benchmark."""

    loaded: LoadedPipeline
    images: int

    @property
    def pipeline(self) -> Any:
        """The pipeline."""
        return self.loaded.pipeline

    @cached_property
    def real(self) -> np.ndarray:
        """Held-out images."""
        return both(HELD_OUT, self.images)

    @cached_property
    def other(self) -> np.ndarray:
        """Other held-out images, whose embeddings are the conditions."""
        return both(HELD_OUT + 10_000, self.images)

    @cached_property
    def fitted(self) -> dict[str, tuple[np.ndarray, list[dict[str, float]], np.ndarray]]:
        """Images, attributes and embeddings of each structure, to fit directions to."""
        made = {structure: crops(structure, FITTED, 500) for structure in ATTRIBUTES}
        return {name: (images, known, self.embed(images)) for name, (images, known) in made.items()}

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embed images in batches."""
        return np.concatenate([embed(self.pipeline, images[at : at + 64]) for at in range(0, len(images), 64)])

    def generate(self, solver: str, steps: int, conditions: np.ndarray, seed: int = 0) -> np.ndarray:
        """Generate an image for each condition."""
        self.pipeline.scheduler = scheduler_of(solver, self.pipeline.scheduler)
        generators = [torch.Generator().manual_seed(seed * 100_003 + each) for each in range(len(conditions))]
        parts = [
            self.pipeline(
                embeddings=torch.from_numpy(conditions[at : at + BATCH]),
                num_inference_steps=steps,
                generator=generators[at : at + BATCH],
            ).images
            for at in range(0, len(conditions), BATCH)
        ]
        return np.concatenate(parts)


def distances(bench: Bench, made: np.ndarray) -> Found:
    """Return Fréchet distances of images to held-out images, in embeddings and in texture features."""
    scaler = StandardScaler().fit(texture_features(list(bench.real)))
    return {
        "embeddings": frechet_distance(bench.embed(made), bench.embed(bench.real)),
        "texture": frechet_distance(
            scaler.transform(texture_features(list(made))), scaler.transform(texture_features(list(bench.real)))
        ),
    }


def solver(bench: Bench, name: str, steps: int) -> Found:
    """Measure one solver: CPU time per image in batches, and distances to held-out images."""
    conditions = bench.embed(bench.other)
    bench.generate(name, min(steps, 5), conditions[:BATCH])
    began = time.process_time()
    made = bench.generate(name, steps, conditions)
    seconds = (time.process_time() - began) / len(conditions)
    return {"seconds": seconds, **distances(bench, made)}


def real_halves(bench: Bench) -> Found:
    """Return the distances of held-out images to other held-out images."""
    return distances(bench, bench.other)


def discriminate(bench: Bench) -> Found:
    """Return the accuracy of classifiers that tell generated from held-out images."""
    made = bench.generate("ddim", 50, bench.embed(bench.other))
    images = np.concatenate([made, bench.real])
    labels = np.repeat([1, 0], [len(made), len(bench.real)])
    features = {"embeddings": bench.embed(images), "texture features": texture_features(list(images))}
    found = {}
    for name, values in features.items():
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        found[name] = float((cross_val_predict(model, values, labels, cv=5) == labels).mean())
    found["convolutional network"] = small_network_accuracy(images, labels)
    return found


def small_network_accuracy(images: np.ndarray, labels: np.ndarray) -> float:
    """Train a small convolutional network on half of the images, and return its accuracy on the others."""
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[::2], order[1::2]
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [torch.nn.Conv2d(before, after, 3, 2, 1), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 1))
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    X, y = torch.from_numpy(images).float()[:, None], torch.from_numpy(labels).float()
    for epoch in range(30):
        model.train()
        for batch in np.array_split(np.random.default_rng(epoch).permutation(train), max(1, len(train) // 32)):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(X[batch])[:, 0], y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()
    with torch.no_grad():
        return float(((model(X[test])[:, 0] > 0) == (y[test] > 0.5)).float().mean())


def nearest(bench: Bench) -> Found:
    """Return the cosine similarity of pixels to the nearest training image, of generated and of held-out images."""
    training = np.concatenate([crops(each, 0, 2000)[0] for each in ATTRIBUTES])
    made = bench.generate("ddim", 50, bench.embed(bench.other))
    unit = _unit(training)
    return {
        name: np.percentile((_unit(images) @ unit.T).max(axis=1), (50, 95, 100)).tolist()
        for name, images in (("generated", made), ("held-out", bench.real))
    }


def _unit(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit: np.ndarray = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-12)
    return unit


def inversion(bench: Bench, steps: int, iterations: int) -> Found:
    """Return the similarity of images and their reconstructions."""
    images = bench.real[:: max(1, len(bench.real) // 32)][:32]
    found = [
        bench.pipeline.invert(
            [each[None] for each in images[at : at + BATCH]],
            num_inference_steps=steps,
            num_iterations=iterations,
            normalization="none",
        )
        for at in range(0, len(images), BATCH)
    ]
    similarity = [
        structural_similarity(one, other, data_range=1.0)
        for part in found
        for one, other in zip(part.images, part.reconstruction, strict=True)
    ]
    return {"mean": float(np.mean(similarity)), "lowest": float(np.min(similarity))}


def spot_count(image: np.ndarray) -> float:
    """Return the number of separate maxima."""
    return float(len(peak_local_max(gaussian_filter(image, 1.5), min_distance=3, threshold_rel=0.05)))


def width(image: np.ndarray) -> float:
    """Return the width of the autocorrelation at half its height, in nm: that of the finest structures."""
    smooth = gaussian_filter(image - image.mean(), 0.7)
    power = np.fft.ifft2(np.abs(np.fft.fft2(smooth)) ** 2).real
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(len(image)), np.fft.fftfreq(len(image)))) * len(image)
    profile = np.array([power[(radius >= r - 0.5) & (radius < r + 0.5)].mean() for r in range(16)])
    profile = profile / max(profile[0], 1e-12)
    below = np.flatnonzero(profile < 0.5)
    if not len(below):
        return 16 * PHYSICS.pixel_size_nm
    at = below[0]
    return float((at - 1 + (profile[at - 1] - 0.5) / (profile[at - 1] - profile[at])) * PHYSICS.pixel_size_nm)


MEASURED: dict[str, Callable[[np.ndarray], float]] = {
    "ring_visibility": ring_power,
    "density_per_um2": spot_count,
    BLUR: width,
}
"""Function that measures each attribute in an image."""


def attribute_walk(bench: Bench, structure: str, name: str, seed: int) -> Found:
    """Walk along an attribute, along random directions, and with other noise; return the measured series."""
    images, known, embeddings = bench.fitted[structure]
    values = np.array([each[name] for each in known])
    sources = np.arange(len(values)).astype(str)
    direction = fit_regression(embeddings, values, sources).with_facts(name=name)
    ends = np.percentile(direction.signed_distance(embeddings), (5, 95))
    start, _ = crops(structure, HELD_OUT + 20_000 + 1000 * seed, WALKS)
    steps = np.linspace(ends[0], ends[1], STEPS)
    found: Found = {"true": np.percentile(values, (5, 95)).tolist()}
    run = partial(walk_images, bench.pipeline, start, direction, steps, num_inference_steps=20, seed=seed)
    noises: tuple[Noise, ...] = ("inverted", "shared", "new")
    for noise in noises:
        walk = run(noise=noise)
        found[noise] = _series(walk.images) | {
            "drift": float(drift(walk.images).mean()),
            "reached": walk.reached.mean(axis=0).tolist(),
        }
    for noise in noises[:2]:
        for number in range(2):
            walk = run(noise=noise, random_direction=number)
            found[f"random {noise} {number}"] = _series(walk.images)
    real = {each: np.array([measure(image) for image in images]) for each, measure in MEASURED.items()}
    found["real_sd"] = {each: float(np.std(values)) for each, values in real.items()}
    found["real_rho"] = {each: float(spearmanr(real[each], values).statistic) for each in real}
    return found


def _series(images: np.ndarray) -> Found:
    """Return the mean of each measured attribute at each step."""
    return {
        name: [float(np.mean([measure(image) for image in images[:, step]])) for step in range(images.shape[1])]
        for name, measure in MEASURED.items()
    }


WALKED = [("actin", "ring_visibility"), ("puncta", "density_per_um2"), ("actin", BLUR), ("puncta", BLUR)]


def parts(bench: Bench) -> dict[str, Callable[[], Found]]:
    """Return the measurements by name."""
    found: dict[str, Callable[[], Found]] = {"real halves": partial(real_halves, bench)}
    found |= {
        f"inversion {steps} {iterations}": partial(inversion, bench, steps, iterations)
        for steps, iterations in ((20, 1), (20, 5), (50, 1), (50, 5))
    }
    found |= {
        f"walk {structure} {name} {seed}": partial(attribute_walk, bench, structure, name, seed)
        for seed in range(SEEDS)
        for structure, name in WALKED
    }
    found |= {"classifier": partial(discriminate, bench), "nearest": partial(nearest, bench)}
    found |= {f"solver {name} {steps}": partial(solver, bench, name, steps) for name, steps in SOLVERS}
    return found


def walk_rows(results: dict[str, Found]) -> list[list[str]]:
    """Rows of the table of walks."""
    rows = []
    for structure, name in WALKED:
        for noise in ("inverted", "shared"):
            runs = [results[f"walk {structure} {name} {seed}"] for seed in range(SEEDS)]
            rho = [spearmanr(range(STEPS), run[noise][name]).statistic for run in runs]
            change = [_change(run[noise], name, run) for run in runs]
            random = [
                np.mean([abs(_change(run[f"random {noise} {number}"], name, run)) for number in range(2)])
                for run in runs
            ]
            unrelated = [
                max(abs(_change(run[noise], each, run)) for each in MEASURED if _unrelated(each, name, structure))
                for run in runs
            ]
            sign = np.sign(np.mean([run["real_rho"][name] for run in runs]))
            rows.append(
                [
                    structure,
                    name,
                    noise,
                    " ".join(f"{sign * each:.2f}" for each in rho),
                    " ".join(f"{sign * each:+.2f}" for each in change),
                    " ".join(f"{each:.2f}" for each in random),
                    " ".join(f"{each:.2f}" for each in unrelated),
                    f"{np.mean([run[noise]['drift'] for run in runs]):.3f}",
                    f"{np.mean([run['new']['drift'] for run in runs]):.3f}",
                ]
            )
    return rows


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
    near = results["nearest"]
    return PAGE.format(
        machine=machine(),
        **about,
        solvers=table(["solver", "CPU s per image", "times faster", "in embeddings", "in texture features"], solvers),
        walks=table(
            [
                "structure",
                "attribute",
                "noise",
                "rank correlation",
                "change, SD",
                "along random directions, SD",
                "largest unrelated change, SD",
                "drift",
                "drift with new noise",
            ],
            walk_rows(results),
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
parameters and was trained for {steps:,} steps of {batch} crops on two CPU cores, which is little: {verdict}

Measured on {machine}, with `python -m tests.benchmarks.generation PIPELINE`. Other programs used the machine at the
same time.

## Speed and quality by solver

{images} images, each from the embedding of a held-out image, in batches of {batch_size}. The Fréchet distance to as
many other held-out images is lower for more similar sets; with so few images it is above 0 for real images, too.

{solvers}

## Walks

Each walk has {walk_steps} steps, from the 5th to the 95th percentile of the distances along the direction of an
attribute, which is fitted to 500 images by regression. {walks_each} walks for each of 3 seeds; the numbers are those
of the seeds. Changes are in standard deviations of the attribute as it is measured in real images. The noise is found
by inversion of the image, or is one for all steps (shared).

{walks}

## Telling generated from real images

Accuracy of classifiers that are trained to tell generated from held-out images, on images that they have not seen; 0.5
is chance.

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


def main() -> None:
    """Measure what is missing, and write the page when nothing is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--steps", type=int, required=True, help="training steps of the pipeline, for the page")
    parser.add_argument("--batch", type=int, default=16, help="crops in a training step, for the page")
    parser.add_argument("--verdict", default="", help="sentence that sums up the result")
    parser.add_argument("--results", type=Path, default=Path("build/generation.json"))
    parser.add_argument("--only", default="", help="measure only parts whose name starts like this")
    parser.add_argument("--output", type=Path, help="page to write")
    arguments = parser.parse_args()
    bench = Bench(load_pipeline(arguments.pipeline, device="cpu"), arguments.images)
    results: dict[str, Found] = {}
    if arguments.results.exists():
        results = json.loads(arguments.results.read_text("utf-8"))
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    for name, measure in parts(bench).items():
        if name in results or not name.startswith(arguments.only):
            continue
        results[name] = measure()
        print(name, results[name], file=sys.stderr, flush=True)
        with atomic_path(arguments.results) as temporary:
            temporary.write_text(json.dumps(results), encoding="utf-8")
    if arguments.output:
        about = {
            "parameters": sum(each.numel() for each in bench.pipeline.unet.parameters()) / 1e6,
            "steps": arguments.steps,
            "batch": arguments.batch,
            "verdict": arguments.verdict,
            "images": arguments.images,
            "batch_size": BATCH,
            "walk_steps": STEPS,
            "walks_each": WALKS,
        }
        arguments.output.write_text(page(results, about), encoding="utf-8")


if __name__ == "__main__":
    main()
