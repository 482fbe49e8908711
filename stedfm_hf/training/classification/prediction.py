"""Vectors and logits of whole images, as `stedfm classify` and the pipeline compute them.

One rule for every size: an image is covered with tiles of the model's size, its vector is the mean over all positions
of all tiles (`encode_images`), and the head sees that vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed

from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.modeling.tiling_stedfm import encode_images


def vectors_of(
    network: StedFmForImageClassification,
    images: Sequence[np.ndarray],
    *,
    batch_size: int = 32,
    shared: bool = False,
) -> np.ndarray:
    """Vectors (n, D) float32 of images.

    Args:
        network: not wrapped; it is in evaluation mode afterwards.
        images: (C, H, W) float32 in [0, 1] each, of any size.
        batch_size: tiles at a time.
        shared: every process of a group computes some of them, and all get all of them.
    """
    network.eval()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if shared else (0, 1)
    mine = range(rank, len(images), world)
    found = encode_images(
        network, (images[number] for number in mine), pooling=network.config.pooling, batch_size=batch_size
    )
    own = {number: vector for number, vector in zip(mine, found, strict=True)}
    if shared:
        parts: list[dict[int, np.ndarray]] = [{} for _ in range(world)]
        torch.distributed.all_gather_object(parts, own)
        own = {number: vector for part in parts for number, vector in part.items()}
    return np.stack([own[number] for number in range(len(images))])


@torch.inference_mode()
def logits_of(network: StedFmForImageClassification, vectors: np.ndarray) -> np.ndarray:
    """Logits (n, L) float32 of vectors."""
    network.eval()
    device = network.classifier.weight.device
    return network.classify(torch.from_numpy(vectors).to(device)).float().cpu().numpy()
