"""Conditions of the diffusion model: embeddings of one encoder, and classes by index or name."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_FINGERPRINT_SIZE = 16
_FINGERPRINT_TOLERANCE = 0.02
"""Largest relative distance of the fingerprints of one encoder in different precisions."""


def check_embeddings(embeddings: Any, condition_dim: int | None) -> torch.Tensor:
    """Return embeddings as a tensor (B, D) float32.

    Args:
        embeddings: (B, D), or (D,) for one; tensor, array or list.
        condition_dim: Length D that the network takes; None for a network without embeddings.

    Raises:
        ValueError: If the network takes no embeddings or other ones, or they are not finite.
    """
    if condition_dim is None:
        raise ValueError("this network is not conditioned on embeddings: give class_labels")
    checked = embeddings if isinstance(embeddings, torch.Tensor) else torch.from_numpy(np.asarray(embeddings))
    checked = torch.atleast_2d(checked).float()
    if checked.ndim != 2 or checked.shape[1] != condition_dim:
        raise ValueError(
            f"embeddings must be (batch, {condition_dim}), got {tuple(checked.shape)}; were they computed with "
            "another encoder?"
        )
    if not checked.isfinite().all():
        raise ValueError("embeddings must be finite, but some are NaN or infinite")
    return checked


def class_indices(labels: Any, num_classes: int | None, names: Mapping[str, str] | None = None) -> torch.Tensor:
    """Return classes as indices (B,) int64.

    Args:
        labels: Index or name of a class, or several of them.
        num_classes: Number of classes; None for a network without classes.
        names: Names of the classes by their indices.

    Raises:
        ValueError: If the network takes no classes, or a class does not exist.

    Example:
    ```python
    >>> class_indices(["tubulin", 0], 2, {"0": "f-actin", "1": "tubulin"})
    tensor([1, 0])

    ```
    """
    if num_classes is None:
        raise ValueError("this network is not conditioned on classes: give embeddings or images")
    indices = {name: int(index) for index, name in (names or {}).items()}
    found = []
    for label in [labels] if isinstance(labels, str) or np.ndim(labels) == 0 else labels:
        if isinstance(label, str) and label not in indices:
            known = f"there are {', '.join(indices)}" if indices else "the classes have no names"
            raise ValueError(f"there is no class {label!r}: {known}")
        index = indices[label] if isinstance(label, str) else int(label)
        if not 0 <= index < num_classes:
            raise ValueError(f"there is no class {index}: classes are numbered from 0 to {num_classes - 1}")
        found.append(index)
    return torch.tensor(found)


def check_encoder(encoder: Any, expected: str | None, condition_dim: int | None) -> str:
    """Return the fingerprint of an encoder.

    Args:
        encoder: A `StedFmModel`.
        expected: Fingerprint of the encoder of the training, or None.
        condition_dim: Length of the embeddings that the network takes.

    Raises:
        ValueError: If it is another encoder than that of the training.
    """
    width = encoder.config.hidden_size
    if condition_dim is not None and width != condition_dim:
        raise ValueError(
            f"the encoder has embeddings of length {width}, but the network takes {condition_dim}: it was trained "
            "with another encoder"
        )
    found = fingerprint(encoder)
    if expected is not None and not is_same_encoder(found, expected):
        raise ValueError(
            "the encoder is not that with which the network was trained, so that its embeddings mean something "
            "else: use the encoder of the training"
        )
    return found if expected is None else expected


def is_same_encoder(found: str, expected: str) -> bool:
    """Return whether two fingerprints are those of one encoder, up to its precision.

    Args:
        found: Fingerprint of an encoder (`fingerprint`).
        expected: Fingerprint to compare with.

    Raises:
        ValueError: If one of them is not a list of numbers.

    Example:
    ```python
    >>> is_same_encoder("0.5 1.0 2.0", "0.501 1.0 2.0"), is_same_encoder("0.5 1.0 2.0", "2.0 1.0 0.5")
    (True, False)

    ```
    """
    one, two = (np.array([float(each) for each in text.split()]) for text in (found, expected))
    if len(one) != len(two):
        return False
    return bool(np.linalg.norm(one - two) <= _FINGERPRINT_TOLERANCE * np.linalg.norm(two))


@torch.no_grad()
def fingerprint(encoder: Any) -> str:
    """Return the first numbers of the embedding of a fixed image, which tell encoders apart.

    Other than a checksum of the weights, it is nearly the same in every precision.

    Args:
        encoder: A `StedFmModel`.

    Returns:
        Numbers, separated by spaces.
    """
    config = encoder.config
    count = config.num_channels * config.image_size**2
    pixels = (torch.arange(count) * 40503 % 65521 / 65521).reshape(1, config.num_channels, config.image_size, -1)
    output = encoder(pixel_values=pixels.to(encoder.device, encoder.dtype)).pooler_output
    return " ".join(f"{each:.4g}" for each in output[0, :_FINGERPRINT_SIZE].float().tolist())


__all__ = ["check_embeddings", "check_encoder", "class_indices", "fingerprint", "is_same_encoder"]
