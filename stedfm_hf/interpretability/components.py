"""Fit the components of `stedfm explain --method pca` to patches of all images, or load them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stedfm_hf.data.sources import Source
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.inference.preparation import Preparation
from stedfm_hf.interpretability.explainers import patch_tokens
from stedfm_hf.interpretability.fields import Tiles
from stedfm_hf.interpretability.patch_pca import ARRAYS, FACTS, PatchPca, foreground_patches
from stedfm_hf.runs import Progress, UserError

COMPONENTS = (ARRAYS, FACTS)
"""Names of the files that the components are saved in."""
MOST_PATCHES = 100_000
"""Number of patches that components are fitted to: more images give fewer patches each."""
FEWEST_PATCHES = 16
"""Number of patches of an image that components are fitted to, however many images there are."""


def fit_components(
    sources: Sequence[Source], prepare: Preparation, encoder: Encoder, tiles: Tiles, mode: str
) -> PatchPca:
    """Fit components to patches of all images that can be read, evenly spaced in each.

    Args:
        sources: Sources of the images.
        prepare: Function that reads and scales a source.
        encoder: Encoder.
        tiles: Tiles of the images.
        mode: Mode of `PatchPca`.

    Raises:
        UserError: If no image can be read, or there are too few patches.
    """
    most = max(FEWEST_PATCHES, MOST_PATCHES // len(sources))
    tokens, foreground = [], []
    with Progress(len(sources), description="fit components") as progress:
        for source in sources:
            for _, pixels in prepare(source).images:
                found = patch_tokens(encoder, tiles, pixels)
                kept = np.unique(np.linspace(0, found[0].size - 1, most).round().astype(int))
                tokens.append(found.reshape(len(found), -1).T[kept, None])
                inside = foreground_patches(np.asarray(pixels), tiles.patch_size)
                foreground.append(inside.reshape(-1, 1)[kept])
            progress.update()
    if not tokens:
        raise UserError("no image can be read, so that there are no components; see `stedfm info` of the images")
    return PatchPca.fit(tokens, mode=mode, foreground=foreground, encoder=encoder)


def components_in(folder: Path) -> bool:
    """Return whether a folder holds components."""
    return all((folder / name).is_file() for name in COMPONENTS)
