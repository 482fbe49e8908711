"""Principal components of patch tokens, fitted to many images and saved to project others."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from skimage.filters import threshold_otsu
from sklearn.decomposition import PCA

from stedfm_hf.inference.loading import Loaded
from stedfm_hf.modeling.conditioning_stedfm import fingerprint, is_same_encoder
from stedfm_hf.modeling.tiling_stedfm import patch_coverage
from stedfm_hf.runs import UserError, atomic_path

MODES = ("none", "foreground", "pca")
"""Which patches are shown: all; foreground by Otsu's threshold; those whose first component is not negative."""
ARRAYS = "patch_pca.safetensors"
FACTS = "patch_pca.json"
MIN_FOREGROUND = 0.01
"""Fraction of pixels above which a patch is foreground."""


@dataclass(frozen=True, eq=False)
class PatchPca:
    """Principal components of the patch tokens of an encoder.

    Attributes:
        mean: Mean of the tokens (D,).
        components: Components (n, D), orthonormal, by decreasing variance.
        explained_variance_ratio: Fraction of the variance of each component (n,).
        minimum: Smallest value of each component over the fitted tokens (n,), which background patches get.
        limits: First and 99th percentile of each component over the fitted tokens (2, n), the ends of its colours.
        mode: One of `MODES`.
        model: Name of the encoder.
        weights_sha256: SHA-256 of the weights of the model, or None if unknown.
        encoder_fingerprint: Fingerprint of the encoder (`stedfm_hf.modeling.conditioning_stedfm`), or None if unknown.

    Example:
        >>> tokens = np.random.default_rng(0).normal(size=(2, 4, 5, 8))
        >>> pca = PatchPca.fit(list(tokens))
        >>> pca.project(tokens[0]).shape
        (4, 5, 3)
    """

    mean: np.ndarray
    components: np.ndarray
    explained_variance_ratio: np.ndarray
    minimum: np.ndarray
    limits: np.ndarray
    mode: str = "none"
    model: str = ""
    weights_sha256: str | None = None
    encoder_fingerprint: str | None = None

    @classmethod
    def fit(
        cls,
        tokens: Sequence[np.ndarray],
        *,
        mode: str = "none",
        foreground: Sequence[np.ndarray] | None = None,
        n_components: int = 3,
        encoder: Loaded | None = None,
    ) -> PatchPca:
        """Fit components to the patch tokens of all images together, centred and not scaled.

        Args:
            tokens: Patch tokens (rows, cols, D) of each image; images may have different sizes.
            mode: `"none"` fits all patches, `"foreground"` only those in `foreground`, `"pca"` fits all and blanks
                patches with a negative first component.
            foreground: Foreground (rows, cols) bool of each image (`foreground_patches`), for `"foreground"`.
            n_components: Number of components.
            encoder: Model that the tokens are from, to refuse another one later (`check_encoder`).

        Raises:
            UserError: If the mode is unknown, its foreground is missing, or there are too few patches.

        Source:
            Reference protocol.
        """
        if mode not in MODES:
            raise UserError(f"mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
        if not tokens:
            raise UserError("there are no images to fit components to; give at least one")
        masks = [
            _checked_mask(mode, each, None if foreground is None else foreground[number])
            for number, each in enumerate(tokens)
        ]
        kept = np.concatenate([each[mask] for each, mask in zip(tokens, masks, strict=True)]).astype(np.float64)
        most = min(kept.shape)
        if not 1 <= n_components <= most:
            where = "foreground patches" if mode == "foreground" else "patches"
            advice = ", or choose the mode none" if mode == "foreground" else ""
            raise UserError(
                f"{n_components} components cannot be fitted to {len(kept)} {where} with {kept.shape[1]} features; "
                f"give more images or 1 to {max(most, 1)} components{advice}"
            )
        return cls._of(kept, n_components, mode, encoder)

    @classmethod
    def _of(cls, kept: np.ndarray, n_components: int, mode: str, encoder: Loaded | None) -> PatchPca:
        """Fit components to tokens (n, D)."""
        with np.errstate(invalid="ignore"):  # equal tokens have no variance to take a fraction of
            fitted = PCA(n_components, random_state=0).fit(kept)
        values = fitted.transform(kept)
        return cls(
            fitted.mean_,
            fitted.components_,
            np.nan_to_num(fitted.explained_variance_ratio_),
            values.min(axis=0),
            np.percentile(values, (1, 99), axis=0),
            mode,
            *(
                ("", None, None)
                if encoder is None
                else (encoder.name, encoder.weights_sha256, fingerprint(encoder.model.base_model))
            ),
        )

    def project(self, tokens: np.ndarray, foreground: np.ndarray | None = None) -> np.ndarray:
        """Project the patch tokens of an image, fitted or new.

        Args:
            tokens: Patch tokens (rows, cols, D).
            foreground: Foreground (rows, cols) bool, for the mode `"foreground"`.

        Returns:
            Components (rows, cols, n) float32. Background patches of the mode `"foreground"` get the minimum of the
            fitted patches, and blank patches of the mode `"pca"` are NaN.

        Raises:
            UserError: If tokens have another length than the fitted ones, or the foreground is missing.
        """
        if tokens.shape[-1] != len(self.mean):
            raise UserError(
                f"components of the encoder {self.model or 'unknown'} have length {len(self.mean)}, but the tokens "
                f"{tokens.shape[-1]}; use the encoder that they were fitted with, or fit them again"
            )
        mask = _checked_mask(self.mode, tokens, foreground)
        values = (np.asarray(tokens, np.float64) - self.mean) @ self.components.T
        values[~mask] = self.minimum
        if self.mode == "pca":
            values[values[..., 0] < 0] = np.nan
        return values.astype(np.float32)

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Scale components to [0, 1] in the same way for all images, to show three of them as red, green and blue.

        Args:
            values: Components (rows, cols, n) of an image; NaN is blank.

        Returns:
            (rows, cols, n) float32: 0 and 1 are the `limits` of each component, values beyond them are clipped; blank
            patches are NaN. To use the whole range in each image, see `rescale_components`.
        """
        low, high = self.limits
        return np.asarray(((values - low) / np.where(high > low, high - low, 1)).clip(0, 1), np.float32)

    def check_encoder(self, encoder: Loaded) -> None:
        """Refuse an encoder whose tokens the components were not fitted to.

        Encoders are compared by their fingerprints: copies of an encoder are the same in any precision.

        Args:
            encoder: Model; its encoder is compared.

        Raises:
            UserError: If it is another encoder.
        """
        if self.encoder_fingerprint is None:
            return
        width = encoder.model.config.hidden_size
        if width != len(self.mean) or not is_same_encoder(
            fingerprint(encoder.model.base_model), self.encoder_fingerprint
        ):
            raise UserError(
                f"the components were fitted with another encoder ({self.model or 'unknown'}) than {encoder.name}; "
                "use that encoder, or fit the components again"
            )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `patch_pca.safetensors` and `patch_pca.json` to a folder.

        Args:
            folder: Folder; created if it does not exist.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with atomic_path(target / ARRAYS) as temporary:
            save_file({name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}, temporary)
        with atomic_path(target / FACTS) as temporary:
            facts = {name: getattr(self, name) for name in _FACTS}
            temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> PatchPca:
        """Read components that `save` wrote.

        Args:
            folder: Folder.

        Raises:
            UserError: A file is missing or damaged.

        Example:
            >>> import tempfile
            >>> folder = tempfile.mkdtemp()
            >>> pca = PatchPca.fit([np.random.default_rng(0).normal(size=(4, 5, 8))])
            >>> pca.save(folder)
            >>> bool((PatchPca.load(folder).components == pca.components).all())
            True
        """
        path = Path(folder)
        if missing := [name for name in (ARRAYS, FACTS) if not (path / name).is_file()]:
            raise UserError(
                f"{folder}: holds no components of patches ({' and '.join(missing)} missing); give the output of "
                "stedfm explain --method pca, or a folder that PatchPca.save wrote"
            )
        try:
            arrays = load_file(path / ARRAYS)
            facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
            mean, components, ratio, minimum, limits = (arrays[name] for name in _ARRAYS)
            found = cls(mean, components, ratio, minimum, limits, **{name: facts[name] for name in _FACTS})
            if found.components.shape != (len(found.minimum), len(found.mean)) or found.mode not in MODES:
                raise ValueError("arrays or mode do not fit together")
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder}: holds damaged components ({error}); fit them again") from error
        return found


_ARRAYS = ("mean", "components", "explained_variance_ratio", "minimum", "limits")
_FACTS = ("mode", "model", "weights_sha256", "encoder_fingerprint")


def foreground_patches(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """Find the patches with structures: those in which more than 1 % of the pixels exceed Otsu's threshold.

    Args:
        pixels: Image (C, H, W) or (H, W), of any size; channels are averaged.
        patch_size: Size of a patch, in pixels.

    Returns:
        (rows, cols) bool; pixels beyond the right and bottom edge do not count. False everywhere in a constant image.

    Source:
        Reference protocol.

    Example:
        >>> image = np.zeros((32, 48))
        >>> image[3:9, 20:26] = 1.0
        >>> foreground_patches(image, 16).tolist()
        [[False, True, False], [False, False, False]]
    """
    plane = np.asarray(pixels, np.float32)
    plane = plane.mean(axis=0) if plane.ndim == 3 else plane
    height, width = plane.shape
    bright = plane > threshold_otsu(plane)
    padded = np.pad(bright, ((0, -height % patch_size), (0, -width % patch_size)))
    counts = padded.reshape(padded.shape[0] // patch_size, patch_size, -1, patch_size).sum(axis=(1, 3))
    foreground: np.ndarray = counts > MIN_FOREGROUND * patch_size**2 * patch_coverage(height, width, patch_size)
    return foreground


def rescale_components(values: np.ndarray) -> np.ndarray:
    """Scale each component of an image to [0, 1], to show three of them as red, green and blue.

    Args:
        values: Components (rows, cols, n) of an image; NaN is blank.

    Returns:
        (rows, cols, n) float32 in [0, 1], blank patches NaN; 0 for a component that is constant.

    Example:
        >>> rescale_components(np.array([[[1.0, 5.0], [3.0, 5.0]]])).tolist()
        [[[0.0, 0.0], [1.0, 0.0]]]
    """
    shown = values[~np.isnan(values).any(axis=-1)]
    if not len(shown):
        return np.asarray(values, np.float32)
    low, high = shown.min(axis=0), shown.max(axis=0)
    return np.asarray((values - low) / np.where(high > low, high - low, 1), np.float32)


def _checked_mask(mode: str, tokens: np.ndarray, foreground: np.ndarray | None) -> np.ndarray:
    """Return the patches of an image to fit or project (rows, cols); all, unless the mode is `foreground`."""
    shape = tokens.shape[:-1]
    if mode != "foreground":
        return np.ones(shape, bool)
    if foreground is None:
        raise UserError("the mode foreground needs the foreground of each image; compute it with foreground_patches")
    if np.shape(foreground) != shape:
        raise UserError(f"the foreground has {np.shape(foreground)} patches, but the tokens have {shape}")
    return np.asarray(foreground, bool)
