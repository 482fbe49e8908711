"""Reconstruct images with a masked autoencoder: hide patches at random, and predict them from the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stedfm_hf.images import StedImage
from stedfm_hf.inference.loading import Loaded, load_headed
from stedfm_hf.inference.one_image import prepare_image
from stedfm_hf.modeling.image_processing_stedfm import pad_to_multiple
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.modeling.tiling_stedfm import Tile, plan_tiles
from stedfm_hf.reports.reconstructions import Reconstruction, mask_of_pixels
from stedfm_hf.weights.models import ModelSource


@dataclass(frozen=True)
class Autoencoder(Loaded):
    """Masked autoencoder ready for inference (see `Loaded`)."""

    model: StedFmForPreTraining


def load_autoencoder(
    model: str | Path | ModelSource, *, device: str = "auto", precision: str = "float32"
) -> Autoencoder:
    """Load a masked autoencoder from a folder or Hub repository.

    Args:
        model: Folder written by `stedfm pretrain` or `stedfm convert`, Hub id, or `"demo"`.
        device: As for `load_encoder`.
        precision: As for `load_encoder`.

    Raises:
        UserError: If the model, the device or the precision is not available, or the model has no decoder of pixels.
    """
    return Autoencoder(**load_headed(model, "pretraining", device, precision))


@torch.inference_mode()
def reconstruct_image(
    autoencoder: Autoencoder,
    image: StedImage,
    *,
    seed: int = 0,
    mask_ratio: float | None = None,
    batch_size: int = 32,
) -> Reconstruction:
    """Hide patches of an image at random, and predict them.

    The image is scaled once as a whole and reconstructed in tiles of the crop size of the model, each with its own
    random mask. The same seed hides the same patches of all images of one size.

    Args:
        autoencoder: Masked autoencoder of one channel.
        image: Image with one channel.
        seed: Random seed of the masks.
        mask_ratio: Fraction of the patches to hide; None is that of the model.
        batch_size: Number of tiles in one forward pass.

    Returns:
        The image, its visible patches and its reconstruction, scaled to [0, 1], all (H, W).

    Raises:
        ValueError: If the image or the model has more than one channel, or the mask hides no patch or all.
    """
    model, config = autoencoder.model, autoencoder.model.config
    if config.num_channels != 1 or len(image.array) != 1:
        raise ValueError("reconstructions need one channel: choose one, and a model of one channel")
    ((_, pixels),) = prepare_image(autoencoder, image)
    patch_size, (height, width) = config.patch_size, pixels.shape[1:]
    padded = torch.from_numpy(np.ascontiguousarray(pad_to_multiple(np.asarray(pixels), patch_size)))
    grid = (padded.shape[1] // patch_size, padded.shape[2] // patch_size)
    tiles = plan_tiles(*grid, config.image_size // patch_size)  # all of one size
    masks = _random_masks(len(tiles), tiles[0].rows * tiles[0].cols, mask_ratio or config.mask_ratio, seed)
    predicted, hidden = padded.clone(), np.zeros(grid, bool)
    for start in range(0, len(tiles), batch_size):
        chunk, mask = tiles[start : start + batch_size], masks[start : start + batch_size]
        batch = torch.stack([_region(padded, tile, patch_size) for tile in chunk]).to(model.device, model.dtype)
        output = model(batch, bool_masked_pos=mask.to(model.device))
        filled = model.reconstruct(batch, output).cpu()
        for tile, values, tile_mask in zip(chunk, filled, mask, strict=True):
            # What earlier tiles have reconstructed is kept.
            new = Tile(
                tile.row + tile.new_row,
                tile.col + tile.new_col,
                tile.rows - tile.new_row,
                tile.cols - tile.new_col,
                0,
                0,
            )
            inside = np.s_[:, tile.new_row * patch_size :, tile.new_col * patch_size :]
            _region(predicted, new, patch_size)[:] = values[inside]
            tile_hidden = tile_mask.numpy().reshape(tile.rows, tile.cols)[tile.new_row :, tile.new_col :]
            hidden[new.row : new.row + new.rows, new.col : new.col + new.cols] = tile_hidden
    hidden_pixels = mask_of_pixels(hidden[None], grid, patch_size)[0, :height, :width]
    original = np.asarray(pixels)[0]
    # Visible patches have passed through the precision of the model: they are those of the image again.
    filled_in = np.where(hidden_pixels, predicted[0, :height, :width].float().numpy(), original)
    size = None if image.pixel_size_nm is None else image.pixel_size_nm[1]
    return Reconstruction(original, np.ma.masked_array(original, hidden_pixels), filled_in, pixel_size_nm=size)


def hidden_errors(reconstruction: Reconstruction) -> tuple[float, float]:
    """Return the mean squared error of the hidden pixels, and that of the mean of the visible pixels as prediction.

    Example:
        >>> image = np.array([[0.0, 2.0, 4.0]])
        >>> seen = np.ma.masked_array(image, [[False, False, True]])
        >>> hidden_errors(Reconstruction(image, seen, np.array([[0.0, 2.0, 3.0]])))
        (1.0, 9.0)
    """
    hidden = np.ma.getmaskarray(reconstruction.seen)
    original = reconstruction.original[hidden]
    constant = float(reconstruction.seen.mean())
    return (
        float(np.mean((reconstruction.predicted[hidden] - original) ** 2)),
        float(np.mean((constant - original) ** 2)),
    )


def _random_masks(count: int, patches: int, ratio: float, seed: int) -> torch.Tensor:
    """Return masks (count, patches) bool that hide `patches - int(patches * (1 - ratio))` patches each.

    Raises:
        ValueError: If no patch or every patch would be hidden.
    """
    kept = int(patches * (1 - ratio))
    if not 0 < kept < patches:
        raise ValueError(f"a mask ratio of {ratio:g} keeps {kept} of {patches} patches: hide some, but not all")
    order = torch.rand(count, patches, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    return torch.ones(count, patches, dtype=torch.bool).scatter(1, order[:, :kept], False)


def _region(pixels: torch.Tensor, tile: Tile, patch_size: int) -> torch.Tensor:
    """Return the pixels of a tile as a view."""
    rows = slice(tile.row * patch_size, (tile.row + tile.rows) * patch_size)
    return pixels[:, rows, tile.col * patch_size : (tile.col + tile.cols) * patch_size]
