"""Examples of a query: image files and items of the index, as embeddings of their regions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.data.sources import ImageFile
from stedfm_hf.discovery.index.naming import item_name
from stedfm_hf.discovery.index.opened import Index
from stedfm_hf.discovery.search.regions import Region, box_region, mask_region, split_box, whole
from stedfm_hf.discovery.settings import SearchSettings
from stedfm_hf.images import ImageReadError, StedImage
from stedfm_hf.inference.loading import Encoder, load_recorded_encoder
from stedfm_hf.inference.one_image import embed_patches
from stedfm_hf.labels.labelled.reading import source_of
from stedfm_hf.runs import UserError, counted, file_stamp, some_of
from stedfm_hf.runs.storage import as_path, is_remote

SCALING = ("normalization", "percentiles", "intensity_range", "target_pixel_size_nm")
"""Settings of an index that scale the intensities of an image."""
SAME = 1e-4
"""Largest difference of the cosine similarity from 1 for two embeddings of the same image."""


@dataclass(frozen=True, eq=False)
class Example:
    """Example or counter-example of a query.

    Attributes:
        name: Name, such as `cell.tif` or `rings/a.tif@10,20,64,64`.
        region: Region of the image.
        is_whole: Whether the region is the whole image.
        tokens: Embeddings of the region (n, D) float32; one for a whole image of an index of images.
        weights: Weight of each embedding (n,).
        window: Height and width of the region, in patches.
        items: Numbers of the items of the index that are this image.
        source: Id of the source image.
        condition: First folder of the image in the index, or the folder of the file.
        image: The image with its channel, or None if it is not found.
    """

    name: str
    region: Region
    is_whole: bool
    tokens: np.ndarray
    weights: np.ndarray
    window: tuple[int, int]
    items: tuple[int, ...]
    source: str
    condition: str | None
    image: StedImage | None

    @property
    def embedding(self) -> np.ndarray:
        """Weighted mean of the embeddings (D,)."""
        return np.average(self.tokens, axis=0, weights=self.weights)


class ExampleReader:
    """Reads examples; the model is loaded when it is first needed.

    Args:
        index: Index to search.
        settings: Settings of the search.
    """

    def __init__(self, index: Index, settings: SearchSettings) -> None:
        self.index, self.settings = index, settings
        self.paths = index.items["path"].to_pylist()

    def query(self) -> list[Example]:
        """Return the query, if there is one."""
        if self.settings.query is None:
            return []
        return [self.read(str(self.settings.query), self.settings.box, self.settings.mask)]

    def read(
        self,
        given: str,
        box: tuple[float, float, float, float] | None = None,
        mask: str | Path | None = None,
    ) -> Example:
        """Read an example.

        Args:
            given: Image file, or path or name of an item of the index (`PATH, SERIES, channel CHANNEL`, as pages show
                it), optionally with a box: `PATH@X,Y,WIDTH,HEIGHT`.
            box: Left edge, top edge, width and height of the region, in pixels.
            mask: File with the region.

        Raises:
            UserError: If there is no such image, it has more than one series or channel, or the region is not in it.
        """
        path, own_box = split_box(given) if box is None and mask is None else (given, None)
        box = own_box if box is None else box
        if (file := as_path(path)).exists():
            return self._of_file(given, file, box, mask)
        numbers = [number for number, each in enumerate(self.paths) if each == path]
        number = self._named(path) if not numbers else None
        return self._of_item(given, path, self._chosen(path, numbers) if number is None else number, box, mask)

    @cached_property
    def encoder(self) -> Encoder:
        """Encoder of the index.

        Raises:
            UserError: If the model is not found, or has other weights.
        """
        made = self.index.manifest
        return load_recorded_encoder(
            self.settings.model,
            str(made.options.get("model") or made.model),
            str(made.model),
            str(made.weights_sha256),
            "index",
            device=self.settings.device,
            precision=str(made.settings["precision"]),
            backend=str(made.settings["backend"]),
        )

    def _of_item(
        self, given: str, path: str, number: int, box: tuple[float, float, float, float] | None, mask: Any
    ) -> Example:
        """Return an example from an item of the index; its stored embeddings are used where they are enough."""
        item = self.index.item(number)
        shape = (item["height"], item["width"])
        region = _region(box, mask, shape, path)
        is_whole = box is None and mask is None
        image = self.index.read(number)
        if self.index.patches or is_whole:
            stored = self.index.embeddings(number)
            size = (item["patch_height_px"], item["patch_width_px"])
        elif image is None:
            raise UserError(f"{path}: the file of the index is not found; give its folder with --images")
        else:
            stored, size = self._tokens(image)
        condition = self.index.labels[number]
        return _example(given, region, is_whole, stored, size, (number,), item["source"], condition, image)

    def _of_file(self, given: str, file: Path, box: tuple[float, float, float, float] | None, mask: Any) -> Example:
        """Return an example from an image file; if the file is in the index, its stored embeddings are used."""
        source = ImageFile(file, file.name, file_stamp(file))
        content = source.source_id()
        known = np.asarray(self.index.items["content"]) == content
        if content and known.any():
            numbers = np.flatnonzero(known).tolist()
            first = self.paths[numbers[0]]
            number = self._chosen(given, [each for each in numbers if self.paths[each] == first])
            example = self._of_item(given, given, number, box, mask)
            return _with_items(example, self._copies(number, numbers))
        image = self._read(source)
        region = _region(box, mask, (image.array.shape[1], image.array.shape[2]), given)
        tokens, size = self._tokens(image)
        is_whole = box is None and mask is None
        if is_whole and not self.index.patches:
            weights = region.weights((tokens.shape[0], tokens.shape[1]), size)
            tokens = np.average(tokens.reshape(-1, tokens.shape[-1]), axis=0, weights=weights.ravel())[None, None]
            size = (float(image.array.shape[1]), float(image.array.shape[2]))
        pattern = self.index.manifest.options.get("source_pattern")
        try:
            source_id = source_of(file.as_posix(), pattern, content)
        except UserError:
            source_id = content
        example = _example(given, region, is_whole, tokens, size, (), source_id, _folder_name(file), image)
        return _with_items(example, self._same(example, file))

    def _same(self, example: Example, file: Path) -> list[int]:
        """Return the items without a known file that are the same image: the same name and embedding."""
        if self.index.patches or not example.is_whole:
            return []
        content = self.index.items["content"].to_pylist()
        same = [k for k, path in enumerate(self.paths) if not content[k] and path.rpartition("/")[2] == file.name]
        if not same:
            return []
        units = self.index.standardiser.unit(np.stack([self.index.embeddings(k)[0, 0] for k in same]))
        similarity = units @ self.index.standardiser.unit(example.embedding[None])[0]
        return [k for k, each in zip(same, similarity, strict=True) if each > 1 - SAME]

    def _copies(self, number: int, numbers: list[int]) -> list[int]:
        """Return the items that are the same series and channel of equal files."""
        key = [self.index.item(number)[name] for name in ("series", "channel")]
        return [k for k in numbers if [self.index.item(k)[name] for name in ("series", "channel")] == key]

    def _named(self, name: str) -> int | None:
        """Return the item with a name that has a series or channel, or None."""
        near = (number for number, path in enumerate(self.paths) if name.startswith(f"{path}, "))
        return next((number for number in near if item_name(self.index.item(number)) == name), None)

    def _chosen(self, name: str, numbers: list[int]) -> int:
        """Return the item of the chosen series and channel.

        Raises:
            UserError: If there is no such item, or more than one.
        """
        if not numbers:
            near = [path for path in self.paths if path.rpartition("/")[2] == name.rpartition("/")[2]]
            hint = f"; did you mean {near[0]}?" if near else "; check the path"
            raise UserError(f"{name}: no such file, and not an item of the index{hint}")
        left = numbers
        for option in ("series", "channel"):
            wanted = getattr(self.settings, option)
            names = list(dict.fromkeys(self.index.item(k)[option] for k in left))
            if wanted is not None:
                name_of = names[wanted] if isinstance(wanted, int) and wanted < len(names) else str(wanted)
                left = [k for k in left if self.index.item(k)[option] == name_of]
                if not left:
                    raise UserError(
                        f"{name}: there is no {option} {wanted!r} in the index; there are {some_of(names)}"
                    )
            elif len(names) > 1:
                raise UserError(
                    f"{name}: has {counted(len(names), option)} ({some_of(names)}); choose with --{option}"
                )
        return left[0]

    def _read(self, source: ImageFile) -> StedImage:
        """Read the image of a file with its only or chosen series and channel."""
        made = self.index.manifest.settings
        series = made.get("series") if self.settings.series is None else self.settings.series
        channel = made.get("channel") if self.settings.channel is None else self.settings.channel
        images = source.read(series, channel)
        if len(images) > 1:
            names = [image.series for image in images]
            raise UserError(f"{source.path}: has {len(images)} series ({some_of(names)}); choose with --series")
        names = list(images[0].channel_names)
        if self.encoder.model.config.num_channels == 1 and len(names) > 1:
            raise UserError(f"{source.path}: has {len(names)} channels ({some_of(names)}); choose with --channel")
        return images[0]

    def _tokens(self, image: StedImage) -> tuple[np.ndarray, tuple[float, float]]:
        """Return the embeddings of the patches of an image, scaled as the images of the index, and their size."""
        made = self.index.manifest.settings
        try:
            patches = embed_patches(
                self.encoder,
                image,
                scaling={name: made[name] for name in SCALING},
                tile_size=made["tile_size"],
                batch_size=self.settings.batch_size,
            )
        except ValueError as error:
            raise ImageReadError(f"{image.source}: {error}") from error
        return patches.embeddings, patches.size_px


def _folder_name(file: Path) -> str:
    return file.parent.name if is_remote(file) else file.resolve().parent.name


def _region(box: tuple[float, float, float, float] | None, mask: Any, shape: tuple[int, int], name: str) -> Region:
    if mask is not None:
        return mask_region(mask, shape)
    return whole(shape) if box is None else box_region(box, shape, name)


def _example(
    name: str,
    region: Region,
    is_whole: bool,
    grid: np.ndarray,
    size: tuple[float, float],
    items: tuple[int, ...],
    source: str,
    condition: str | None,
    image: StedImage | None,
) -> Example:
    """Return an example with the embeddings of a grid (rows, cols, D) that its region covers."""
    weights = region.weights((grid.shape[0], grid.shape[1]), size)
    kept = weights > 0
    return Example(
        name, region, is_whole, grid[kept], weights[kept], region.window(size), items, source, condition, image
    )


def _with_items(example: Example, items: list[int]) -> Example:
    values = {**example.__dict__, "items": tuple(items)}
    return Example(**values)
