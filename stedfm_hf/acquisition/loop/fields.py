"""Overviews that are embedded once and scored many times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stedfm_hf.acquisition.examples import Examples, label_patches
from stedfm_hf.acquisition.finders import Finder
from stedfm_hf.acquisition.microscope import Frame
from stedfm_hf.acquisition.score_maps import TileTokens, embed_tiles, example_patches, label_tokens
from stedfm_hf.evaluation.patches import block_means
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.inference.one_image import prepare_image
from stedfm_hf.interpretability.fields import Tiles, tiles_of


@dataclass(frozen=True, eq=False)
class EmbeddedField:
    """Overview with the tokens of its tiles.

    Attributes:
        frame: Overview.
        pixels: Input of the model (C, H, W).
        tiles: Tiles.
        tokens: Tokens of the tiles.
    """

    frame: Frame
    pixels: np.ndarray
    tiles: Tiles
    tokens: list[TileTokens]

    @property
    def cell(self) -> tuple[float, float]:
        """Height and width of a patch, in pixels of the overview."""
        down, across = (
            each * self.tiles.patch_size / size
            for each, size in zip(self.frame.pixels.shape, self.pixels.shape[1:], strict=True)
        )
        return down, across

    def score(self, finder: Finder) -> np.ndarray:
        """Score every patch for the first class of a finder; blended over the tiles (rows, cols)."""
        batches = iter(self.tokens)

        def compute(batch: torch.Tensor) -> torch.Tensor:
            _, _, tokens = next(batches)
            count, rows, cols, dim = tokens.shape
            scores = finder.scores(tokens.reshape(-1, dim))[:, 0]
            return torch.from_numpy(scores.reshape(count, 1, rows, cols))

        return self.tiles.blend(compute, self.pixels)[0]

    def brightness(self) -> np.ndarray:
        """Return the mean of every patch of the overview (rows, cols)."""
        whole = np.pad(self.pixels, [(0, 0), *((0, -size % self.tiles.patch_size) for size in self.pixels.shape[1:])])
        return block_means(whole[:1], self.tiles.patch_size)[..., 0]

    def label(self, plane: np.ndarray, annotated: np.ndarray, kind: str, source: int) -> Examples:
        """Return the annotated patches.

        Args:
            plane: Mask of the class (H, W) bool.
            annotated: Pixels that were annotated (H, W) bool.
            kind: Name of the class.
            source: Number of the source image.
        """
        labels, objects = label_patches(plane[None], annotated, self.tiles.patch_size)
        examples = label_tokens(self.tokens, labels, objects, (kind,), source)
        return examples.take(examples.labels >= 0)


def embed_field(encoder: Encoder, frame: Frame) -> EmbeddedField:
    """Embed an overview.

    Args:
        encoder: Encoder.
        frame: Overview.
    """
    tiles = tiles_of(encoder, "auto", None, 32)
    pixels = prepare_image(encoder, frame.image())[0][1]
    return EmbeddedField(frame, pixels, tiles, list(embed_tiles(encoder, tiles, pixels)))


def embed_examples(encoder: Encoder, frame: Frame, planes: np.ndarray, kinds: tuple[str, ...]) -> Examples:
    """Embed the patches of an overview whose objects are all annotated, in all rotations.

    Args:
        encoder: Encoder.
        frame: Overview.
        planes: Masks of the kinds (L, H, W) bool.
        kinds: Names of the L kinds.
    """
    tiles = tiles_of(encoder, "auto", None, 32)
    pixels = prepare_image(encoder, frame.image())[0][1]
    return example_patches(encoder, tiles, pixels, planes, np.ones(frame.pixels.shape, bool), kinds, 0)


def one_kind(examples: Examples, kind: str) -> Examples:
    """Return examples of one kind, in which all other kinds are background."""
    number = examples.classes.index(kind) + 1
    here = examples.labels == number
    labels = np.where(here, 1, np.where(examples.labels >= 0, 0, -1))
    return Examples((kind,), examples.tokens, labels, np.where(here, examples.objects, 0), examples.sources)
