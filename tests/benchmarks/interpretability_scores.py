"""Scores of maps: how much a logit falls without the patches that a map ranks first, and whether a map points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stedfm_hf import StedFmForImageClassification
from stedfm_hf.interpretability.attention import AGGREGATES, attention_maps
from stedfm_hf.interpretability.relevance import logit_maps
from stedfm_hf.modeling.layers_stedfm import patchify, unpatchify

LOGIT, BRIGHTNESS, RANDOM = "logit map", "brightness", "random"
ATTENTION = {f"attention, {name}": name for name in AGGREGATES}
METHODS = (LOGIT, *ATTENTION, BRIGHTNESS, RANDOM)
"""What ranks the patches; `brightness` is the mean of their pixels, and `random` is chance."""
DELETED = 0.1
"""Fraction of the patches that is deleted."""
BATCH = 60


@dataclass(frozen=True, eq=False)
class Prediction:
    """Logits of images.

    Attributes:
        logits: Logits (n, L).
        label: Index of the class with the highest logit of each image (n,).
    """

    logits: torch.Tensor
    label: torch.Tensor


@torch.no_grad()
def predict(model: StedFmForImageClassification, pixels: torch.Tensor) -> Prediction:
    """Classify images (n, C, H, W)."""
    logits = torch.cat([model(batch).logits for batch in pixels.split(BATCH)])
    return Prediction(logits, logits.argmax(dim=1))


def patch_scores(
    model: StedFmForImageClassification, pixels: torch.Tensor, label: torch.Tensor, *, seed: int
) -> dict[str, torch.Tensor]:
    """Return the score of every patch (n, N) by each of `METHODS`; maps of a class are those of `label`.

    Args:
        model: Classifier in evaluation mode.
        pixels: Images (n, C, H, W) in [0, 1].
        label: Index of a class for each image (n,).
        seed: Random seed of the random ranking.
    """
    patch = model.config.patch_size
    maps = torch.cat([logit_maps(model, batch).maps for batch in pixels.split(BATCH)])
    scores = {LOGIT: maps[torch.arange(len(label)), label].flatten(1)}
    for name, aggregate in ATTENTION.items():
        scores[name] = torch.zeros_like(scores[LOGIT])
        for number in label.unique():
            of_class = label == number
            own = int(number) if aggregate == "gradient" else None
            parts = [
                attention_maps(model, batch, aggregate=aggregate, label=own) for batch in pixels[of_class].split(BATCH)
            ]
            found = torch.cat(parts)[:, None]
            if found.shape[2:] == pixels.shape[2:]:
                found = torch.nn.functional.avg_pool2d(found, patch)
            scores[name][of_class] = found.flatten(1)
    scores[BRIGHTNESS] = torch.nn.functional.avg_pool2d(pixels.mean(dim=1, keepdim=True), patch).flatten(1)
    scores[RANDOM] = torch.rand(scores[LOGIT].shape, generator=torch.Generator().manual_seed(seed))
    return scores


def sum_error(model: StedFmForImageClassification, pixels: torch.Tensor, prediction: Prediction) -> float:
    """Return the largest difference between a logit of the model and the sum of its map, over images and classes."""
    maps = torch.cat([logit_maps(model, batch).maps for batch in pixels.split(BATCH)])
    return float((maps.sum(dim=(2, 3)) - prediction.logits).abs().max())


def top_patches(scores: torch.Tensor) -> torch.Tensor:
    """Return the raster indices (n, k) of the patches with the highest scores (n, N); k is 10 % of them, rounded."""
    return scores.topk(round(DELETED * scores.shape[1]), dim=1).indices


def fill_patches(pixels: torch.Tensor, deleted: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Replace patches (n, k) of images (n, C, H, W) by the median of the image, which is its background."""
    patches = patchify(pixels, patch_size)
    median = pixels.flatten(1).median(dim=1).values[:, None, None].expand(-1, deleted.shape[1], patches.shape[2])
    index = deleted[:, :, None].expand(-1, -1, patches.shape[2])
    return unpatchify(patches.scatter(1, index, median), patch_size, pixels.shape[2], pixels.shape[3])


@torch.no_grad()
def without_tokens(model: StedFmForImageClassification, pixels: torch.Tensor, deleted: torch.Tensor) -> torch.Tensor:
    """Return the logits (n, L) if the encoder never sees the patches (n, k), as in masked pretraining."""
    patches = (pixels.shape[2] // model.config.patch_size) * (pixels.shape[3] // model.config.patch_size)
    kept = torch.ones(len(pixels), patches, dtype=torch.bool).scatter(1, deleted, False)
    ids = kept.nonzero()[:, 1].reshape(len(pixels), -1)
    logits = []
    for batch, keep in zip(pixels.split(BATCH), ids.split(BATCH), strict=True):
        hidden = model.stedfm.encoder(model.stedfm.embeddings(batch, ids_keep=keep)).last_hidden_state
        logits.append(model.classify(model.stedfm.pool(model.stedfm.norm(hidden))))
    return torch.cat(logits)


def deletion_drops(
    model: StedFmForImageClassification, pixels: torch.Tensor, *, seed: int
) -> dict[str, dict[str, list[float]]]:
    """Return how much the predicted class loses if the top patches of each method are deleted.

    Args:
        model: Classifier in evaluation mode.
        pixels: Images (n, C, H, W) in [0, 1].
        seed: Random seed of the random ranking.

    Returns:
        By method, the decrease for each image: `logit` and `probability` with filled patches, and `tokens`, the
        decrease of the logit without the tokens.
    """
    before = predict(model, pixels)
    chosen = before.label[:, None]
    drops = {}
    for name, scores in patch_scores(model, pixels, before.label, seed=seed).items():
        deleted = top_patches(scores)
        filled = predict(model, fill_patches(pixels, deleted, model.config.patch_size)).logits
        after = {
            "logit": filled,
            "probability": filled.softmax(dim=1),
            "tokens": without_tokens(model, pixels, deleted),
        }
        start = {"logit": before.logits, "probability": before.logits.softmax(dim=1), "tokens": before.logits}
        drops[name] = {key: (start[key] - after[key]).gather(1, chosen)[:, 0].tolist() for key in after}
    return drops


def patches_in_box(box: tuple[int, int, int, int], shape: tuple[int, int], patch_size: int) -> dict[str, np.ndarray]:
    """Return the patches (rows, cols) of an image that touch a box, and those whose centre is inside it.

    Args:
        box: Rows and columns in pixels, (top, bottom, left, right), the end excluded.
        shape: Height and width of the image in pixels.
        patch_size: Size of a patch in pixels.
    """
    top, bottom, left, right = box
    rows, cols = (np.arange(0, size, patch_size) for size in shape)
    half = patch_size / 2

    def within(first: np.ndarray, low: float, high: float) -> np.ndarray:
        return (first >= low) & (first < high)

    touch = np.outer(within(rows, top - patch_size + 1, bottom), within(cols, left - patch_size + 1, right))
    inside = np.outer(within(rows, top - half, bottom - half), within(cols, left - half, right - half))
    return {"touches": touch, "inside": inside}
