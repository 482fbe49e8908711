"""Conditions of the diffusion model: the embedding of the very crop that is shown, or its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from stedfm_hf.data.repository.files import SplitFiles
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.runs import UserError


class Condition(Protocol):
    """Condition of each image.

    Attributes:
        columns: Columns of the data set that it needs.
    """

    columns: tuple[str, ...]

    def __call__(self, images: torch.Tensor, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return the keyword arguments of `StedFmUNet.forward` for images (B, 1, S, S) in [0, 1] and their batch."""


class EmbeddingCondition:
    """Condition on embeddings of a frozen encoder, computed from the augmented crops.

    Args:
        encoder: Encoder on its device, in its precision; it is not trained.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, encoder: StedFmModel) -> None:
        self.encoder = encoder.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return the embeddings (B, D) float32 as `condition`."""
        with without_autocast(images.device):
            output = self.encoder(images.to(self.encoder.dtype))
        return {"condition": output.pooler_output.float()}


class ClassCondition:
    """Condition on classes; crops without a label have no condition."""

    columns: tuple[str, ...] = ("label",)

    def __call__(self, images: torch.Tensor, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return the indices of the classes (B,) int64 as `class_labels`."""
        return {"class_labels": batch["label"].to(images.device)}


def class_names(files: Sequence[SplitFiles]) -> tuple[str, ...]:
    """Return the names of the classes of the data sets of a training.

    Args:
        files: Training splits.

    Raises:
        UserError: A data set has no classes, or other classes than the first.
    """
    names = files[0].labels
    for each in files:
        if not each.labels or each.labels != names:
            found = f"the classes {', '.join(each.labels)}" if each.labels else "no classes"
            raise UserError(
                f"{each.repo}: has {found}; --condition class needs data sets with the same classes "
                "(use --condition embedding, or build the data set with --labels)"
            )
    return tuple(names)


@contextmanager
def without_autocast(device: torch.device) -> Iterator[None]:
    """Switch off autocast inside the block, so that the encoder computes in the precision of its weights.

    Args:
        device: Device of the computation.
    """
    with torch.autocast(device.type, enabled=False):
        yield
