"""Explanations of single images: one class for each method of `stedfm explain`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import pyarrow as pa
import torch

from stedfm_hf.inference.limits import check_time
from stedfm_hf.inference.loading import Classifier, Encoder, Loaded, names_of
from stedfm_hf.inference.predictions import predict
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.interpretability.attention import attention_maps, attention_rows, reference_maps
from stedfm_hf.interpretability.fields import Tiles
from stedfm_hf.interpretability.matching import correspondence
from stedfm_hf.interpretability.patch_pca import PatchPca, foreground_patches
from stedfm_hf.interpretability.relevance import check_exact, logit_maps
from stedfm_hf.interpretability.similarity import token_similarity
from stedfm_hf.modeling.tiling_stedfm import patch_coverage


@dataclass(frozen=True)
class Explanation:
    """Maps of an image.

    Attributes:
        values: Maps (L, rows, cols) float32; NaN where a map is not defined.
        names: Names of the L maps.
        cell: Size of a cell of the maps, in pixels of the input of the model.
        columns: Columns of the method in the table.
        title: Title of the figure.
        limits: Values at the ends of the colours; None uses the minimum and the maximum.
        pairs: Positions of corresponding patches, (n, 4): row and column in the image, then in `reference`; the
            most similar first.
        reference: Image (C, H, W) that corresponding patches are in, scaled.
        query: Row and column of the patch whose attention is shown.
        colours: Red, green and blue (rows, cols, 3) in [0, 1] to show instead of the first map; NaN is blank.
    """

    values: np.ndarray
    names: tuple[str, ...]
    cell: int
    columns: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    limits: tuple[float, float] | None = None
    pairs: np.ndarray | None = None
    reference: np.ndarray | None = None
    query: tuple[int, int] | None = None
    colours: np.ndarray | None = None


class Explainer(Protocol):
    """Function that explains a prepared image.

    Attributes:
        columns: Columns of the method in the table.
        unit: Quantity that the maps show, for the colour bar.
    """

    columns: ClassVar[tuple[tuple[str, pa.DataType], ...]]
    unit: ClassVar[str]

    def check(self) -> None:
        """Refuse a model or an argument that fits no image.

        Raises:
            UserError: If the method cannot explain the model.
        """

    def __call__(self, fact: Fact, pixels: np.ndarray) -> Explanation:
        """Explain an image (C, H, W) with the facts for its row.

        Raises:
            ValueError: If the image cannot be explained.
        """


@dataclass(frozen=True)
class LogitExplainer:
    """Maps of the evidence for a class, which sum to the logit.

    The value of a patch is its part of the logit: the logit that the head computes for the patch alone, times the
    fraction of the area of the image that the patch covers. For an image that fits into one tile, the sum is the
    logit that `stedfm classify` computes. In a larger image the evidence of overlapping tiles is blended.

    Attributes:
        classifier: Classifier.
        tiles: Tiles of the images.
        label: Index of the class to explain; None is the class with the largest logit.
    """

    classifier: Classifier
    tiles: Tiles
    label: int | None = None
    columns: ClassVar[tuple[tuple[str, pa.DataType], ...]] = (
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("logit", pa.float64()),
        ("exact", pa.bool_()),
    )
    unit: ClassVar[str] = "part of the logit"

    def check(self) -> None:
        """Refuse a classifier whose logits are not sums over patches, or whose labels have no names."""
        check_exact(self.classifier.model)
        names_of(self.classifier, "labels")

    def __call__(self, fact: Fact, pixels: np.ndarray) -> Explanation:
        """Explain an image (C, H, W)."""
        coverage = patch_coverage(pixels.shape[1], pixels.shape[2], self.tiles.patch_size).astype(np.float64)
        maps = self.tiles.blend(self._evidence, pixels) * (coverage / coverage.sum())
        logits = maps.sum(axis=(1, 2))
        names = names_of(self.classifier, "labels")
        predicted = int(logits.argmax())
        shown = predicted if self.label is None else self.label
        columns = {
            "label": names[shown],
            "predicted": names[predicted],
            "logit": float(logits[shown]),
            "exact": self.tiles.is_whole(pixels.shape),
        }
        title = f"{names[shown]}: {'logit' if columns['exact'] else 'blended logit'} {logits[shown]:+.2f}"
        values = maps[shown : shown + 1].astype(np.float32)
        most = float(np.abs(values).max())
        return Explanation(values, (names[shown],), self.tiles.patch_size, columns, title, (-most, most))

    def _evidence(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits that the head computes for each patch, (B, L, rows, cols)."""
        maps = logit_maps(self.classifier.model, on_model(self.classifier, batch)).maps
        return maps * (maps.shape[2] * maps.shape[3])


@dataclass(frozen=True)
class AttentionExplainer:
    """Attention of the class token, or of the patch at a position, to the patches.

    Attributes:
        loaded: Model; a classifier for the aggregate `gradient`.
        tiles: Tiles of the images.
        aggregate: Combination of the blocks, see `attention_maps`.
        block: Block to show; None combines all.
        head: Head to show; None is the mean.
        query: Position (y, x) in pixels of the file of the patch whose attention is shown; None is the class token.
        label: Index of the class for `gradient`; None is the predicted one.
    """

    loaded: Loaded
    tiles: Tiles
    aggregate: str = "mean"
    block: int | None = None
    head: int | None = None
    query: tuple[float, float] | None = None
    label: int | None = None
    columns: ClassVar[tuple[tuple[str, pa.DataType], ...]] = ()
    unit: ClassVar[str] = "attention"

    def check(self) -> None:
        """Refuse a block or head that the model does not have, and a model without logits for `gradient`."""
        self._maps(_blank(self.loaded))

    def __call__(self, fact: Fact, pixels: np.ndarray) -> Explanation:
        """Explain an image (C, H, W)."""
        names, cell = ("attention",), self.tiles.patch_size
        if self.aggregate == "reference":
            return Explanation(self._reference(pixels), names, 1, title="attention, reference protocol")
        if self.query is not None:
            row, col = self._patch(fact, pixels, self.query)
            values = self._of_patch(pixels, row, col)
            return Explanation(values, names, cell, title=self._title(), query=(row, col))
        label = self._label(pixels) if self.aggregate == "gradient" else None
        maps = self.tiles.blend(lambda batch: self._maps(batch, label=label)[:, None], pixels)
        return Explanation(maps.astype(np.float32), names, cell, title=self._title(label))

    def _maps(self, batch: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return the attention maps of a batch, (B, rows, cols)."""
        return attention_maps(
            self.loaded.model,
            on_model(self.loaded, batch),
            aggregate=self.aggregate,
            block=self.block,
            head=self.head,
            **options,
        )

    def _reference(self, pixels: np.ndarray) -> np.ndarray:
        """Return the map of the reference protocol at every pixel, (1, H, W).

        The maps of the blocks are blended before they are scaled, so that the scale is that of the whole image.
        """
        model, grid = self.loaded.model, self.tiles.grid

        def compute(batch: torch.Tensor) -> torch.Tensor:
            rows = attention_rows(model, on_model(self.loaded, batch)).mean(dim=2)
            return rows[..., 1:].unflatten(-1, grid(batch.shape))

        blocks = torch.from_numpy(self.tiles.blend(compute, pixels)).float()
        size = [length * self.tiles.patch_size for length in blocks.shape[1:]]
        return reference_maps(blocks[None], size)[:, : pixels.shape[1], : pixels.shape[2]].numpy()

    def _patch(self, fact: Fact, pixels: np.ndarray, query: tuple[float, float]) -> tuple[int, int]:
        """Return the row and the column of the patch at a position in pixels of the file."""
        lengths = (fact["height"], fact["width"])
        if not all(0 <= at < length for at, length in zip(query, lengths, strict=True)):
            raise ValueError("the query {:g} {:g} is outside the image of {} x {} pixels".format(*query, *lengths))
        row, col = (
            int(at * size / length / self.tiles.patch_size)
            for at, length, size in zip(query, lengths, pixels.shape[1:], strict=True)
        )
        return row, col

    def _of_patch(self, pixels: np.ndarray, row: int, col: int) -> np.ndarray:
        """Return the attention of a patch (1, rows, cols); outside the tile that is centred on it, NaN."""
        label = self._label(pixels) if self.aggregate == "gradient" else None
        tile, top, left = self.tiles.around(pixels, row, col)
        values = self._maps(tile, query=(row - top, col - left), label=label)[0].numpy()
        maps = np.full((1, *self.tiles.grid(pixels.shape)), np.nan, np.float32)
        maps[0, top : top + values.shape[0], left : left + values.shape[1]] = values
        return maps

    def _label(self, pixels: np.ndarray) -> int:
        """Return the class whose gradient weights the attention."""
        if self.label is not None:
            return self.label
        classifier = cast(Classifier, self.loaded)
        (values,) = predict(classifier, [pixels], tile_size=self.tiles.tile_size, batch_size=self.tiles.batch_size)
        return int(values.argmax())

    def _title(self, label: int | None = None) -> str:
        parts = ["attention" if self.query is None else "attention of a patch"]
        parts += [self.aggregate] * (self.block is None and self.aggregate != "mean")
        parts += [] if self.block is None else [f"block {self.block}"]
        parts += [] if self.head is None else [f"head {self.head}"]
        parts += [] if label is None else [str(self.loaded.model.config.id2label[label])]
        return ", ".join(parts)


@dataclass(frozen=True)
class SimilarityExplainer:
    """Difference between the patch tokens of two models: 1 minus their cosine similarity.

    Attributes:
        encoder: First model.
        other: Second model, which takes the same inputs.
        tiles: Tiles of the images.
    """

    encoder: Encoder
    other: Encoder
    tiles: Tiles
    columns: ClassVar[tuple[tuple[str, pa.DataType], ...]] = (
        ("mean_similarity", pa.float64()),
        ("min_similarity", pa.float64()),
    )
    unit: ClassVar[str] = "1 - cosine similarity"

    def check(self) -> None:
        """Refuse models whose tokens cannot be compared."""
        self._similarity(_blank(self.encoder))

    def __call__(self, fact: Fact, pixels: np.ndarray) -> Explanation:
        """Explain an image (C, H, W)."""
        similarity = self.tiles.blend(self._similarity, pixels)
        columns = {"mean_similarity": float(similarity.mean()), "min_similarity": float(similarity.min())}
        title = f"difference of the tokens: mean similarity {similarity.mean():.2f}"
        values = (1 - similarity).astype(np.float32)
        limits = (0.0, max(float(values.max()), 1e-3))  # of a model and itself, rounding is not shown as a difference
        return Explanation(values, ("difference",), self.tiles.patch_size, columns, title, limits)

    def _similarity(self, batch: torch.Tensor) -> torch.Tensor:
        rows, cols = self.tiles.grid(batch.shape)
        values = token_similarity(self.encoder.model, self.other.model, on_model(self.encoder, batch))
        return values.reshape(len(batch), 1, rows, cols)


@dataclass(frozen=True)
class CorrespondenceExplainer:
    """Nearest patch in a reference image for each patch of an image.

    Attributes:
        encoder: Encoder.
        tiles: Tiles of the images.
        reference: Patch tokens (D, rows, cols) of the reference image.
        pixels: Pixels (C, H, W) of the reference image, scaled.
        scale: Height and width of a pixel of the input of the model in the reference image, in pixels of the file.
    """

    encoder: Encoder
    tiles: Tiles
    reference: np.ndarray
    pixels: np.ndarray
    scale: tuple[float, float]
    columns: ClassVar[tuple[tuple[str, pa.DataType], ...]] = (
        ("mean_similarity", pa.float64()),
        ("mutual_patches", pa.int64()),
    )
    unit: ClassVar[str] = "cosine similarity"

    def check(self) -> None:
        """Check nothing: the reference image has tokens already."""

    def __call__(self, fact: Fact, pixels: np.ndarray) -> Explanation:
        """Explain an image (C, H, W)."""
        tokens = patch_tokens(self.encoder, self.tiles, pixels)
        rows, cols = tokens.shape[1:]
        found = correspondence(_listed(tokens), _listed(self.reference))
        similarity, mutual = found.similarity, found.mutual
        row, col = np.unravel_index(found.nearest, self.reference.shape[1:])
        size = self.tiles.patch_size
        planes = (similarity, row * size * self.scale[0], col * size * self.scale[1], mutual)
        values = np.stack([np.asarray(each, np.float32).reshape(rows, cols) for each in planes])
        best = np.flatnonzero(mutual)
        best = best[np.argsort(-similarity[best], kind="stable")]
        pairs = np.column_stack([best // cols, best % cols, row[best], col[best]])
        columns = {"mean_similarity": float(similarity.mean()), "mutual_patches": len(best)}
        title = f"{len(best)} of {rows * cols} patches are mutual nearest neighbours"
        names = ("similarity", "y_px", "x_px", "mutual")
        return Explanation(values, names, size, columns, title, None, pairs, self.pixels)


@dataclass(frozen=True)
class PcaExplainer:
    """Principal components of patch tokens.

    Attributes:
        encoder: Encoder.
        tiles: Tiles of the images.
        pca: Fitted components.
    """

    encoder: Encoder
    tiles: Tiles
    pca: PatchPca
    columns: ClassVar[tuple[tuple[str, pa.DataType], ...]] = (("foreground_fraction", pa.float64()),)
    unit: ClassVar[str] = "component"

    def check(self) -> None:
        """Refuse components of another encoder."""
        self.pca.check_encoder(self.encoder)

    def __call__(self, fact: Fact, pixels: np.ndarray) -> Explanation:
        """Explain an image (C, H, W)."""
        size = self.tiles.patch_size
        maps = self.tiles.blend(self._components, pixels).astype(np.float32)
        foreground = np.ones(maps.shape[1:], bool)
        if self.pca.mode == "foreground":
            foreground = foreground_patches(np.asarray(pixels), size)
            maps[:, ~foreground] = np.nan
        names = tuple(f"component {number}" for number in range(1, len(maps) + 1))
        columns = {"foreground_fraction": float(foreground.mean())}
        title = f"components 1 to 3 ({self.pca.explained_variance_ratio[:3].sum():.0%} of the variance)"
        colours = self.pca.scale(np.moveaxis(maps, 0, 2))[..., :3]
        return Explanation(maps, names, size, columns, title, colours=colours)

    @torch.inference_mode()
    def _components(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the components of the patches, (B, n, rows, cols), in background too."""
        rows, cols = self.tiles.grid(batch.shape)
        tokens = self.encoder.model(on_model(self.encoder, batch)).last_hidden_state[:, 1:]
        listed = tokens.reshape(-1, cols, tokens.shape[2]).float().cpu().numpy()
        values = self.pca.project(listed, np.ones(listed.shape[:2], bool))
        return torch.from_numpy(values).unflatten(0, (len(batch), rows)).permute(0, 3, 1, 2)


def patch_tokens(encoder: Encoder, tiles: Tiles, pixels: np.ndarray) -> np.ndarray:
    """Compute the patch tokens of an image, (D, rows, cols) float32; those of overlapping tiles are blended.

    Args:
        encoder: Encoder.
        tiles: Tiles of the image.
        pixels: Image (C, H, W), scaled.
    """
    return tiles.blend(lambda batch: tile_tokens(encoder, tiles, batch), pixels).astype(np.float32)


@torch.inference_mode()
def tile_tokens(encoder: Encoder, tiles: Tiles, batch: torch.Tensor) -> torch.Tensor:
    """Compute the patch tokens of a batch of tiles.

    Args:
        encoder: Encoder.
        tiles: Tiles of the image.
        batch: Tiles (B, C, h, w) float32, scaled.

    Returns:
        Tokens (B, D, rows, cols) float32.

    Raises:
        StoppedError: After the limit of `stedfm_hf.inference.limits.time_limit`.
    """
    check_time()  # also with backends whose models `watch` cannot hook
    tokens = encoder.model(on_model(encoder, batch)).last_hidden_state[:, 1:].float()
    return tokens.transpose(1, 2).unflatten(2, tiles.grid(batch.shape))


def on_model(loaded: Loaded, batch: torch.Tensor) -> torch.Tensor:
    """Return a batch on the device and in the type of a model."""
    return batch.to(loaded.model.device, loaded.model.dtype)


def _listed(tokens: np.ndarray) -> np.ndarray:
    """Return tokens (D, rows, cols) as a list (rows * cols, D)."""
    return tokens.reshape(len(tokens), -1).T


def _blank(loaded: Loaded) -> torch.Tensor:
    """Return an image (1, C, h, w) of one patch, to try a method."""
    config = loaded.model.config
    return torch.zeros(1, config.num_channels, config.patch_size, config.patch_size)
