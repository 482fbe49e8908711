"""Zero-shot masks as methods of `evaluate segmentation`: they see no annotation, and need no training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stedfm_hf.evaluation.segmentation.methods import Method, with_channels_of
from stedfm_hf.inference.loading import Encoder, load_encoder
from stedfm_hf.interpretability.zero_shot import METHODS, zero_shot_mask
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.runs import UserError
from stedfm_hf.weights.models import ModelSource
from stedfm_hf.weights.packaged import PACKAGED

TITLES = {"clusters": "Patch clusters", "attention": "Attention"}
"""Name of each method of `zero_shot_mask` in reports."""


@dataclass(eq=False, kw_only=True)
class ZeroShotMethod(Method):
    """Foreground mask of an encoder, the same for all classes.

    Attributes:
        encoder: Loaded encoder.
        method: Method of `zero_shot_mask`.
        protocol: Protocol of `zero_shot_mask`.
        batch_size: Number of tiles in a forward pass.
    """

    encoder: Encoder = field(repr=False)
    method: str
    protocol: str = "default"
    batch_size: int = 8

    def maps(self, data: AnnotatedImages, number: int) -> np.ndarray:
        """Return the foreground mask for every class, and its complement for the background."""
        image = with_channels_of(self.encoder, data.stored(number))
        mask = zero_shot_mask(
            self.encoder, image, method=self.method, protocol=self.protocol, batch_size=self.batch_size
        )
        planes = [~mask if index == data.background else mask for index in range(len(data.classes))]
        return np.stack(planes).astype(np.float32)


def load_zero_shot(
    encoders: Sequence[ModelSource],
    data: AnnotatedImages,
    *,
    protocol: str = "default",
    device: str = "auto",
    precision: str = "float32",
    batch_size: int = 8,
) -> list[ZeroShotMethod]:
    """Load encoders, and return the zero-shot methods of each.

    Args:
        encoders: Encoders.
        data: Annotated images.
        protocol: Protocol of `zero_shot_mask`.
        device: Device of the encoders.
        precision: Floating-point type of the encoders.
        batch_size: Number of tiles in a forward pass.

    Raises:
        UserError: If an encoder cannot be loaded, is named twice, or needs other channels than the images have.
    """
    found: list[ZeroShotMethod] = []
    for number, source in enumerate(encoders):
        if source in encoders[:number]:
            raise UserError(f"model {source.given}: is named twice; name each model once")
        encoder = load_encoder(source, device=device, precision=precision)
        with_channels_of(encoder, data.stored(0))
        name = source.given if source.given in PACKAGED else encoder.name
        if any(each.encoder.name == encoder.name for each in found):
            name = f"{name} ({encoder.weights_sha256[:6]})"
        for method in METHODS:
            title = f"{TITLES[method]} ({name})"
            found.append(
                ZeroShotMethod(
                    key=title,
                    name=title,
                    kind="zero-shot",
                    weights_sha256=encoder.weights_sha256,
                    one_foreground=True,
                    encoder=encoder,
                    method=method,
                    protocol=protocol,
                    batch_size=batch_size,
                )
            )
    return found
