"""Walks: generate an image again while its embedding moves along a direction, with the noise of the image kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from skimage.metrics import structural_similarity

from stedfm_hf.generation.direction import Direction

Noise = Literal["inverted", "shared", "new"]
"""Noise that a walk starts from: that of the image, one for all steps, or another one in every step."""


@dataclass(frozen=True, eq=False)
class Walk:
    """Images along a direction.

    Attributes:
        images: Generated images (n, steps, H, W) float32 in [0, 1].
        originals: Images that the walks start from (n, H, W) float32 in [0, 1].
        start: Signed distance of each image (n,).
        wanted: Signed distance of the embedding that each image was generated from (n, steps).
        reached: Signed distance of the embedding of each generated image (n, steps).
        similarity: Structural similarity of each image and its reconstruction from the inverted noise (n,); NaN where
            the noise was not inverted.
    """

    images: np.ndarray
    originals: np.ndarray
    start: np.ndarray
    wanted: np.ndarray
    reached: np.ndarray
    similarity: np.ndarray

    @property
    def displacements(self) -> np.ndarray:
        """Signed length of each step from the embedding of the image (n, steps)."""
        displacements: np.ndarray = self.wanted - self.start[:, None]
        return displacements


@dataclass(frozen=True, eq=False)
class Start:
    """Images to walk from, with their embeddings and noise.

    Attributes:
        images: Images (n, H, W) float32 in [0, 1].
        embeddings: Embeddings (n, D) float32.
        latents: Noise (n, 1, H, W).
        similarity: Structural similarity of each image and its reconstruction (n,); NaN where the noise is not that of
            the image.
    """

    images: np.ndarray
    embeddings: np.ndarray
    latents: torch.Tensor
    similarity: np.ndarray


def walk_images(
    pipeline: Any,
    images: np.ndarray | Sequence[np.ndarray],
    direction: Direction,
    distances: np.ndarray,
    *,
    random_direction: int | None = None,
    noise: Noise = "inverted",
    num_inference_steps: int = 50,
    guidance_scale: float = 1.0,
    batch_size: int = 16,
    seed: int = 0,
    start: Start | None = None,
) -> Walk:
    """Generate images along a direction.

    The noise of each image is found once by inversion and kept, so that only what the direction changes differs
    between the steps.

    Args:
        pipeline: `StedFmGenerationPipeline` with an encoder.
        images: Scaled images (n, H, W) in [0, 1], of one size that the network takes.
        direction: Direction, fitted to embeddings of the same encoder.
        distances: Signed distances to generate, (steps,) for all images or (n, steps).
        random_direction: Number of a random direction to walk along instead, as far as `direction` would lead; None
            for the direction itself.
        noise: Noise to start from.
        num_inference_steps: Number of denoising steps, with the scheduler `DDIMScheduler`.
        guidance_scale: Strength of the condition; see the pipeline.
        batch_size: Number of images that are generated at once.
        seed: Random seed of the noise if it is not inverted, and of the random directions.
        start: Result of `start_walks` for the images, to invert them once for several walks.

    Raises:
        ValueError: Images, distances or direction do not fit the pipeline.

    Source:
        The walk of the reference protocol draws new noise in every step; that is `noise="new"`.
    """
    from diffusers import DDIMScheduler

    if start is None:
        start = start_walks(
            pipeline, images, noise=noise, num_inference_steps=num_inference_steps, batch_size=batch_size, seed=seed
        )
    pixels, embeddings = start.images, start.embeddings
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    distance = direction.signed_distance(embeddings)
    wanted = np.broadcast_to(np.asarray(distances, np.float64), (len(pixels), np.shape(distances)[-1])).copy()
    along = direction if random_direction is None else random_unit(direction, random_direction, seed)
    first = along.signed_distance(embeddings)
    as_far = np.linalg.norm(direction.path) / np.linalg.norm(along.path)
    steps = [along.move(embeddings, first + as_far * (wanted[:, step] - distance)) for step in range(wanted.shape[1])]
    conditions = np.stack(steps, axis=1).reshape(-1, embeddings.shape[1])
    if not (np.abs(conditions) <= np.finfo(np.float32).max).all():
        raise ValueError("the distances lead to embeddings that are not finite; give smaller distances")
    repeated = start.latents.repeat_interleave(wanted.shape[1], dim=0)
    if noise == "new":
        repeated = _noise(pipeline, (len(conditions), *pixels.shape[1:]), seed)
    generated, reached = [], []
    for at in range(0, len(conditions), batch_size):
        made = pipeline(
            embeddings=torch.from_numpy(conditions[at : at + batch_size]).float(),
            latents=repeated[at : at + batch_size],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        ).images
        generated.append(made)
        reached.append(direction.signed_distance(embed(pipeline, made)))
    shape = wanted.shape
    return Walk(
        np.concatenate(generated).reshape(*shape, *pixels.shape[1:]),
        pixels,
        distance,
        wanted,
        np.concatenate(reached).reshape(shape),
        start.similarity,
    )


def start_walks(
    pipeline: Any,
    images: np.ndarray | Sequence[np.ndarray],
    *,
    noise: Noise = "inverted",
    num_inference_steps: int = 50,
    batch_size: int = 16,
    seed: int = 0,
) -> Start:
    """Embed images and find the noise that walks from them start with; see `walk_images` for the arguments.

    Raises:
        ValueError: Images are not finite, or do not fit the pipeline.
    """
    pixels = np.stack([np.asarray(each, np.float32) for each in images])
    if pixels.ndim != 3 or not np.isfinite(pixels).all():
        raise ValueError(f"images must be finite and have one shape (H, W), not {pixels.shape[1:]}")
    batches = [pixels[at : at + batch_size] for at in range(0, len(pixels), batch_size)]
    if noise != "inverted":
        embeddings = np.concatenate([embed(pipeline, batch) for batch in batches])
        return Start(pixels, embeddings, _noise(pipeline, pixels.shape, seed), np.full(len(pixels), np.nan))
    parts = [
        pipeline.invert([each[None] for each in batch], num_inference_steps=num_inference_steps, normalization="none")
        for batch in batches
    ]
    similarity = [
        float(structural_similarity(image, again, data_range=1.0))
        for part in parts
        for image, again in zip(part.images, part.reconstruction, strict=True)
    ]
    embeddings = torch.cat([part.embeddings for part in parts]).cpu().numpy()
    return Start(pixels, embeddings, torch.cat([part.latents for part in parts]), np.array(similarity))


def embed(pipeline: Any, images: np.ndarray) -> np.ndarray:
    """Embed scaled images (n, H, W) in [0, 1] with the encoder of a pipeline, (n, D) float32."""
    found: np.ndarray = pipeline.embed([each[None] for each in images], normalization="none").cpu().numpy()
    return found


def random_unit(direction: Direction, number: int, seed: int) -> Direction:
    """Return a random direction in the same standardised embeddings, to compare a direction with.

    It varies as the embeddings of images do, if the direction knows how: any direction would mostly change what never
    varies, and what the network ignores.

    Args:
        direction: Direction.
        number: Number of the random direction.
        seed: Random seed.

    Example:
        >>> direction = Direction(np.array([1.0, 0.0, 0.0]), 2.0)
        >>> random = random_unit(direction, 0, seed=0)
        >>> bool(np.isclose(np.linalg.norm(random.normal), 1)), random.name
        (True, 'random 0')
    """
    spread = direction.spread if direction.spread.size else np.eye(len(direction))
    normal = spread @ np.random.default_rng([seed, number]).normal(size=spread.shape[1])
    return Direction(normal, 0.0, direction.mean, direction.scale, name=f"random {number}", method="random")


def _noise(pipeline: Any, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return noise (n, 1, H, W); that of an image does not depend on the number of images."""
    each = [torch.Generator().manual_seed(seed * 1_000_003 + number) for number in range(shape[0])]
    drawn = torch.stack([torch.randn((1, *shape[1:]), generator=generator) for generator in each])
    return drawn.to(pipeline.device)
