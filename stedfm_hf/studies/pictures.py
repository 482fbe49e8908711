"""Pictures that a study can show: image files, and the maps, generated images and search results of other commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from stedfm_hf.data.sources import Source, find_sources
from stedfm_hf.reports.figures import automatic_limits, to_8bit
from stedfm_hf.runs import Manifest, UserError, manifest_path

if TYPE_CHECKING:
    from stedfm_hf.images import StedImage

MAP, GENERATED, IMAGE = "map", "generated", "image"
LARGEST_PX = 1024
"""Largest size of a picture; larger ones are averaged."""
COLOURS = "viridis"
"""Colours of maps."""

ImageName = tuple[str, str, str]
"""Path, series and channel of an image."""


@dataclass(frozen=True)
class Picture:
    """Picture that a study can show.

    Attributes:
        kind: `map`, `generated` or `image`.
        image: Image that was explained, that the picture was generated from, or that it shows.
        number: Number among the pictures of one image in one folder, from 0.
        file: File that holds it.
        plane: Plane of the file, from 0; None if the file is an image.
        facts: What is recorded about it: command, model, SHA-256 of the weights, and its place in the results.
        draw: Function that returns its pixels: (H, W) or (H, W, 3) uint8.
    """

    kind: str
    image: ImageName
    number: int
    file: Path
    plane: int | None
    facts: Mapping[str, Any]
    draw: Callable[[], np.ndarray]


class Images:
    """Image files of a folder or data set, by path.

    Args:
        folder: Folder or data set.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.sources: dict[str, Source] = {each.path: each for each in find_sources([folder])[0]}

    def picture(self, image: ImageName, box: Mapping[str, float] | None = None, **facts: Any) -> Picture:
        """Return the picture of an image, or of a region of it.

        Args:
            image: Path, series and channel.
            box: Region `y_px`, `x_px`, `height_px` and `width_px`, in pixels; None shows the whole image.
            facts: What to record about the picture.

        Raises:
            UserError: If the folder has no such file.
        """
        if image[0] not in self.sources:
            raise UserError(f"{self.folder}: has no image {image[0]}; give the folder that the results were made from")
        return Picture(IMAGE, image, 0, self.folder / image[0], None, facts, partial(self._draw, image, box))

    def all(self) -> list[Picture]:
        """Return a picture of every series and channel of every file."""
        return [
            self.picture((path, image.series, name))
            for path, source in self.sources.items()
            for image in _read(source, None, None)
            for name in image.channel_names
        ]

    def _draw(self, image: ImageName, box: Mapping[str, float] | None) -> np.ndarray:
        plane = _read(self.sources[image[0]], image[1], image[2])[0].array[0]
        if box is not None:
            top, left = max(0, round(box["y_px"])), max(0, round(box["x_px"]))
            plane = plane[top : top + round(box["height_px"])][:, left : left + round(box["width_px"])]
        pixels = averaged(plane)
        return to_8bit(pixels, automatic_limits(pixels))


def _read(source: Source, series: str | None, channel: str | None) -> list[StedImage]:
    from stedfm_hf.images import ImageReadError

    try:
        return source.read(series, channel)
    except ImageReadError as error:
        raise UserError(str(error)) from error


def read_pictures(folder: str | Path, images: Images | None) -> list[Picture]:
    """List the pictures of a folder, in the order of its table or by path.

    Args:
        folder: Result of `stedfm explain`, `generate`, `attribute walk` or `search`, or a folder of images.
        images: Images that a search found.

    Raises:
        UserError: If the folder does not exist, is the result of another command, or a file of it is missing.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(
            f"{folder}: no such folder; give results of explain, generate, attribute walk or search, or images"
        )
    for table, (command, read) in _READERS.items():
        record = path / "manifest.json" if command in ("explain", "search") else manifest_path(path / table)
        if (path / table).is_file() and record.is_file() and (manifest := Manifest.load(record)).command == command:
            if manifest.ended is None:
                raise UserError(f"{path}: `stedfm {command}` did not end; run it again to resume")
            rows = pq.read_table(path / table).to_pylist()
            found = read(path, rows, command, images)
            if missing := next((each for each in found if not each.file.is_file()), None):
                raise UserError(f"{missing.file}: no such file; make the results of {path} again")
            return found
    if (path / "manifest.json").is_file() and (
        command := Manifest.load(path / "manifest.json").command
    ) != "data simulate":
        raise UserError(f"{path}: is the result of `stedfm {command}`, which has no pictures for a study")
    return Images(path).all()


def original_of(picture: Picture, images: Images | None) -> Picture:
    """Return the picture of the image that a picture was made from.

    Raises:
        UserError: If it is the image of a map, and there is no folder of images, or the image is not in it.
    """
    if picture.kind == GENERATED:
        facts = {"command": picture.facts["command"]}
        draw = partial(_draw_plane, picture.file, 0)
        return Picture(GENERATED, picture.image, 0, picture.file, 0, facts, draw)
    if images is None:
        raise UserError("the images that the maps belong to are needed; give their folder with --images")
    return images.picture(picture.image)


def averaged(plane: Any) -> np.ndarray:
    """Return an image (H, W) float32 with at most `LARGEST_PX` pixels per side, by averaging blocks of pixels."""
    from stedfm_hf.inference.overlay import thumbnail

    height, width = plane.shape
    return thumbnail(lambda top, bottom: plane[top:bottom], (height, width), -(-max(height, width) // LARGEST_PX))


def _maps(folder: Path, rows: Sequence[Mapping[str, Any]], command: str, images: Images | None) -> list[Picture]:
    """Return the first map of every row of `explanations.parquet`."""
    return [
        Picture(
            MAP,
            _image_of(row),
            0,
            folder / row["map_file"],
            0,
            _facts(row, command, "method", "label"),
            partial(_draw_map, folder / row["map_file"], (row["height"], row["width"])),
        )
        for row in rows
    ]


def _generated(folder: Path, rows: Sequence[Mapping[str, Any]], command: str, images: Images | None) -> list[Picture]:
    """Return every generated image or step of a walk, counted for each original."""
    place = "number" if command == "generate" else "step"
    seen = dict[ImageName, int]()
    found = []
    for row in rows:
        number = seen[_image_of(row)] = seen.get(_image_of(row), -1) + 1
        facts = _facts(row, command, place, "direction", "reached", "similarity")
        draw = partial(_draw_plane, folder / row["file"], row[place] + 1)
        found.append(Picture(GENERATED, _image_of(row), number, folder / row["file"], row[place] + 1, facts, draw))
    return found


def _found(folder: Path, rows: Sequence[Mapping[str, Any]], command: str, images: Images | None) -> list[Picture]:
    """Return the image or the place of every row of the results of a search."""
    if images is None:
        raise UserError(f"{folder}: the images that the search found are needed; give their folder with --images")
    box = ("y_px", "x_px", "height_px", "width_px")
    return [
        images.picture(
            _image_of(row),
            {name: row[name] for name in box} if box[0] in row else None,
            **_facts(row, command, "rank", "score", *box),
        )
        for row in rows
    ]


_READERS = {
    "explanations.parquet": ("explain", _maps),
    "generated.parquet": ("generate", _generated),
    "walks.parquet": ("attribute walk", _generated),
    "results.parquet": ("search", _found),
}
"""Command and function that reads its results, by the name of the table."""


def _image_of(row: Mapping[str, Any]) -> ImageName:
    return row["path"], row["series"], row["channel"]


def _facts(row: Mapping[str, Any], command: str, *names: str) -> dict[str, Any]:
    known = ("model", "weights_sha256", *names)
    return {"command": command, **{name: row[name] for name in known if row.get(name) is not None}}


def _draw_plane(file: Path, plane: int) -> np.ndarray:
    """Return a generated image, whose intensities lie in [0, 1], with the same display range as the original."""
    return to_8bit(averaged(_plane(file, plane)), (0.0, 1.0))


def _draw_map(file: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return a map in colours, at the size of its image (height, width); black where it is not defined."""
    import matplotlib
    from skimage.transform import resize

    values = _plane(file, 0)
    scale = min(1.0, LARGEST_PX / max(shape))
    size = [max(1, round(length * scale)) for length in shape]
    levels = to_8bit(values, (float(np.nanmin(values)), float(np.nanmax(values))))
    coloured = matplotlib.colormaps[COLOURS](levels, bytes=True)[..., :3]
    coloured[~np.isfinite(values)] = 0
    return np.asarray(resize(coloured, (*size, 3), order=0, preserve_range=True, anti_aliasing=False), np.uint8)


def _plane(file: Path, plane: int) -> np.ndarray:
    import tifffile

    try:
        return np.asarray(tifffile.imread(file, key=plane), np.float32)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{file}: cannot be read ({error}); make the results again") from error
