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
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from skimage.feature import peak_local_max
from skimage.metrics import structural_similarity
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.flop_counter import FlopCounterMode

from stedfm_hf.data.simulation.attributes import ATTRIBUTES, BLUR, PHYSICS, simulate_attributes
from stedfm_hf.evaluation.baselines import texture_features
from stedfm_hf.generation.direction import Direction
from stedfm_hf.generation.fitting import along_pattern, fit_regression, with_spread
from stedfm_hf.generation.generate import scheduler_of
from stedfm_hf.generation.loading import LoadedPipeline, load_pipeline
from stedfm_hf.generation.measures import drift
from stedfm_hf.generation.walks import Noise, embed, start_walks, walk_images
from stedfm_hf.metrics import frechet_distance
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.reports.figures import show_image, style
from stedfm_hf.runs import atomic_path
from tests.benchmarks.generation_page import FAST, RANDOM, SEEDS, SOLVERS, STEPS, WALKED, WALKS, Found, page
from tests.benchmarks.generation_readout import Readout
from tests.data.simulation.test_attributes import ring_power

HELD_OUT, OTHER, FITTED = 900_000, 910_000, 800_000
"""First indices of two sets of simulated images that no training has seen, and of those for fitting directions."""
BATCH, ROUNDS = 16, 3


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
        return both(OTHER, self.images)

    @cached_property
    def other_limits(self) -> np.ndarray:
        """Counts that 0 and 1 stand for in each of them (images, 2)."""
        indices = range(OTHER, OTHER + self.images // len(ATTRIBUTES))
        made = [simulate_attributes(each, seed=0, index=index).image for each in ATTRIBUTES for index in indices]
        return np.array([np.percentile(image, (0.1, 99.9)) for image in made])

    @cached_property
    def fitted(self) -> dict[str, tuple[np.ndarray, list[dict[str, float]], np.ndarray]]:
        """Images, attributes and embeddings of each structure, to fit directions to."""
        made = {structure: crops(structure, FITTED, 500) for structure in ATTRIBUTES}
        return {name: (images, known, self.embed(images)) for name, (images, known) in made.items()}

    @cached_property
    def readouts(self) -> dict[str, dict[str, Readout]]:
        """Regression of each attribute of each structure."""
        found = {}
        for structure in ATTRIBUTES:
            images, known = crops(structure, FITTED, 1500)
            found[structure] = {
                name: Readout.fit(images, np.array([each[name] for each in known])) for name in known[0]
            }
        return found

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


def speed(bench: Bench) -> Found:
    """Time the loop of the reference, 1,000 steps for one image at a time, and the fast solver, in turn."""
    conditions = bench.embed(bench.other[:BATCH])
    bench.generate(FAST[0], 5, conditions)
    found: Found = {"loop": [], "fast": []}
    for _ in range(ROUNDS):
        for key, solver_name, steps, given in (("loop", "ddpm", 1000, conditions[:1]), ("fast", *FAST, conditions)):
            began = time.process_time()
            bench.generate(solver_name, steps, given)
            found[key].append((time.process_time() - began) / len(given))
    return found


def other_seeds(bench: Bench) -> Found:
    """Return the distances of the fast solver with other seeds of the noise."""
    conditions = bench.embed(bench.other)
    return {"distances": [distances(bench, bench.generate(*FAST, conditions, seed=seed)) for seed in (1, 2)]}


def real_halves(bench: Bench) -> Found:
    """Return the distances of held-out images to other held-out images."""
    return distances(bench, bench.other)


def discriminate(bench: Bench) -> Found:
    """Return the accuracy of classifiers that tell generated from held-out images, as generated and as counts."""
    made = bench.generate("ddim", 50, bench.embed(bench.other))
    labels = np.repeat([1, 0], [len(made), len(bench.real)])
    found = {}
    for suffix, generated in (("", made), (", as counts", as_counts(made, bench.other_limits))):
        images = np.concatenate([generated, bench.real])
        features = {"embeddings": bench.embed(images), "texture features": texture_features(list(images))}
        for name, values in features.items():
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
            found[name + suffix] = float((cross_val_predict(model, values, labels, cv=5) == labels).mean())
        found[f"convolutional network{suffix}"] = small_network_accuracy(images, labels)
    return found


def as_counts(images: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Round images to whole counts, which real images have.

    Args:
        images: Scaled images (n, H, W).
        limits: Counts that 0 and 1 stand for (n, 2).
    """
    low, range_ = limits[:, :1, None], np.diff(limits)[:, :, None]
    return np.asarray(np.clip((np.round(images * range_ + low) - low) / range_, 0, 1), np.float32)


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


def show_nearest(bench: Bench, folder: Path) -> None:
    """Write a figure of generated images, each above the most similar training image."""
    training = np.concatenate([crops(each, 0, 2000)[0] for each in ATTRIBUTES])
    made = bench.generate("ddim", 50, bench.embed(bench.other[:: len(bench.other) // 8][:8]))
    found = training[(_unit(made) @ _unit(training).T).argmax(axis=1)]
    with style():
        figure = Figure(figsize=(8.0, 2.1), layout="constrained")
        for line, images in zip(figure.subplots(2, 8), (made, found), strict=True):
            for axes, image in zip(line, images, strict=True):
                show_image(axes, image)
        figure.savefig(folder / "generation-nearest.png", dpi=150)


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
            max_iterations=iterations,
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


@dataclass(frozen=True)
class AttributeWalks:
    """Walks along the direction of an attribute, and the distances that they lead to."""

    direction: Direction
    values: np.ndarray
    distances: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, bench: Bench, structure: str, name: str, seed: int) -> AttributeWalks:
        """Fit the direction, and simulate the images to start from."""
        _, known, embeddings = bench.fitted[structure]
        values = np.array([each[name] for each in known])
        sources = np.arange(len(values)).astype(str)
        fitted = with_spread(fit_regression(embeddings, values, sources).with_facts(name=name), embeddings)
        ends = np.percentile(fitted.signed_distance(embeddings), (5, 95))
        start, _ = crops(structure, HELD_OUT + 20_000 + 1000 * seed, WALKS)
        return cls(along_pattern(fitted, embeddings), values, np.linspace(ends[0], ends[1], STEPS), start)


def attribute_walk(bench: Bench, structure: str, name: str, seed: int) -> Found:
    """Walk along an attribute, along random directions, and with other noise; return the measured series."""
    walks = AttributeWalks.of(bench, structure, name, seed)
    found: Found = {"true": np.percentile(walks.values, (5, 95)).tolist()}
    noises: tuple[Noise, ...] = ("inverted", "shared", "new")
    prepare = partial(start_walks, bench.pipeline, walks.start, num_inference_steps=20, seed=seed)
    starts = {noise: prepare(noise=noise) for noise in noises}
    where = (bench.pipeline, walks.start, walks.direction, walks.distances)
    run = partial(walk_images, *where, num_inference_steps=20, seed=seed)
    for noise in noises:
        walk = run(noise=noise, start=starts[noise])
        found[noise] = _series(walk.images) | {
            "drift": float(drift(walk.images).mean()),
            "reached": walk.reached.mean(axis=0).tolist(),
        }
    for noise in noises[:2]:
        for number in range(RANDOM):
            walk = run(noise=noise, start=starts[noise], random_direction=number)
            found[f"random {noise} {number}"] = _series(walk.images)
    real = {each: np.array([measure(one) for one in bench.fitted[structure][0]]) for each, measure in MEASURED.items()}
    found["real_sd"] = {each: float(np.std(values)) for each, values in real.items()}
    found["real_rho"] = {each: float(spearmanr(real[each], walks.values).statistic) for each in real}
    return found


def any_direction(bench: Bench, structure: str, name: str, seed: int) -> Found:
    """Walk as far along directions that images need not have; return the measured series."""
    walks = AttributeWalks.of(bench, structure, name, seed)
    start = start_walks(bench.pipeline, walks.start, num_inference_steps=20)
    direction = walks.direction.with_facts(spread=np.zeros((0, 0)))
    where = (bench.pipeline, walks.start, direction, walks.distances)
    run = partial(walk_images, *where, num_inference_steps=20, seed=seed, start=start)
    return {str(number): _series(run(random_direction=number).images) for number in range(RANDOM)}


def read_walk(bench: Bench, structure: str, name: str, seed: int) -> Found:
    """Return the changes of attributes along a walk by regression, and those if only this attribute changes."""
    walks, readouts = AttributeWalks.of(bench, structure, name, seed), bench.readouts[structure]
    start = start_walks(bench.pipeline, walks.start, num_inference_steps=20, seed=seed)
    where = (bench.pipeline, walks.start, walks.direction, walks.distances)
    images = walk_images(*where, num_inference_steps=20, seed=seed, start=start).images
    low, high = (alone(structure, name, value) for value in np.percentile(walks.values, (5, 95)).tolist())
    return {
        "correlation": {each: readout.correlation for each, readout in readouts.items()},
        "walk": {each: readout.change(images[:, 0], images[:, -1]) for each, readout in readouts.items()},
        "alone": {each: readout.change(low, high) for each, readout in readouts.items()},
        "alone, measured": {
            each: float(np.mean([measure(last) - measure(first) for first, last in zip(low, high, strict=True)]))
            for each, measure in MEASURED.items()
        },
    }


def alone(structure: str, name: str, value: float) -> np.ndarray:
    """Simulate the same 100 scaled crops (100, 64, 64) with any value of one attribute."""
    given: dict[str, Any] = {name: value}
    processor = StedFmImageProcessor()
    made = [simulate_attributes(structure, seed=0, index=HELD_OUT + each, **given) for each in range(100)]
    return np.stack([processor.prepare(each.image)[0] for each in made])


def _series(images: np.ndarray) -> Found:
    """Return the mean of each measured attribute at each step."""
    return {
        name: [float(np.mean([measure(image) for image in images[:, step]])) for step in range(images.shape[1])]
        for name, measure in MEASURED.items()
    }


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
    found |= {
        f"any {structure} {name} {seed}": partial(any_direction, bench, structure, name, seed)
        for seed in range(SEEDS)
        for structure, name in WALKED
    }
    found |= {
        f"read {structure} {name} {seed}": partial(read_walk, bench, structure, name, seed)
        for seed in range(SEEDS)
        for structure, name in WALKED
    }
    found |= {"classifier": partial(discriminate, bench), "nearest": partial(nearest, bench)}
    found |= {"speed": partial(speed, bench), "seeds": partial(other_seeds, bench)}
    found |= {f"solver {name} {steps}": partial(solver, bench, name, steps) for name, steps in SOLVERS}
    return found


def count_gflop(unet: Any) -> float:
    """Count the floating-point operations of one image in the network, in GFLOP."""
    size = unet.config.sample_size
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        unet(torch.zeros(1, 1, size, size), 0, condition=torch.zeros(1, unet.config.condition_dim))
    return counted.get_total_flops() / 1e9


def main() -> None:
    """Measure what is missing, and write the page when nothing is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", help="folder, Hub id or `demo`")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12000, help="training steps of the pipeline, for the page")
    parser.add_argument("--hours", type=float, default=2.7, help="training time of the pipeline, for the page")
    parser.add_argument("--batch", type=int, default=16, help="crops in a training step, for the page")
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
        gflop = count_gflop(bench.pipeline.unet)
        pflop = 3e-6 * gflop * arguments.steps * arguments.batch  # the backward pass takes twice the forward pass
        about = {
            "gflop": gflop,
            "pflop": pflop,
            "more_pflop": 40 * pflop,
            "minutes": 40 * pflop * 100 / 60,
            "parameters": sum(each.numel() for each in bench.pipeline.unet.parameters()) / 1e6,
            "steps": arguments.steps,
            "hours": arguments.hours,
            "batch": arguments.batch,
            "images": arguments.images,
            "batch_size": BATCH,
            "walk_steps": STEPS,
            "walks_each": WALKS,
        }
        arguments.output.write_text(page(results, about), encoding="utf-8")
        show_nearest(bench, arguments.output.parents[1] / "images")


if __name__ == "__main__":
    main()
