"""Segmentation of one field: probability maps, masks, objects and an overlay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.inference.field_records import OBJECTS_OF
from stedfm_hf.inference.fields import Field, probability_bands
from stedfm_hf.inference.objects import Components, Hulls
from stedfm_hf.inference.overlay import write_overlay
from stedfm_hf.inference.plane_files import Planes, new_planes
from stedfm_hf.inference.segmenter import Segmenter
from stedfm_hf.inference.source_batches import LARGE
from stedfm_hf.inference.tables import OF_IMAGE, OF_MODEL
from stedfm_hf.inference.zarr_planes import ZarrPlanes
from stedfm_hf.runs import Progress

MOST_OBJECTS = 2**24
"""Largest number of objects of a class in a field: float32, the largest type of ImageJ, holds no larger integers."""
KINDS = ("labels", "objects", "probabilities", "overlay")
"""Kinds of files that are written for a field."""
SUFFIXES = {"tiff": ".tif", "ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr"}
"""Suffixes of masks and maps by format."""

Rows = Callable[[int, int], np.ndarray]
Measures = dict[str, np.ndarray]


def field_schema(segmenter: Segmenter) -> pa.Schema:
    """Return the schema of the table of fields (see `segment`)."""
    return pa.schema(
        [
            *OF_IMAGE,
            *((f"fraction_{name}", pa.float64()) for name in segmenter.classes),
            *((f"{OBJECTS_OF}{name}", pa.int64()) for name in segmenter.object_classes.values()),
            *((f"{kind}_file", pa.string()) for kind in KINDS),
            *OF_MODEL,
        ]
    )


def object_schema(channels: int) -> pa.Schema:
    """Return the schema of the table of objects.

    Columns: `path`, `series`, `channel`, `class`; `number`, the value of its pixels in the object file; `area_px`,
    `area_um2`; `centroid_y_px`, `centroid_x_px` (0 is the centre of the first pixel); `top_px`, `left_px`,
    `bottom_px`, `right_px`, the bounding box (bottom and right excluded); `equivalent_diameter_px`,
    `equivalent_diameter_um`, the diameter of a disc of the same area; `eccentricity` of the ellipse with the same
    second moments; `solidity`, the area divided by that of the convex hull; `mean_intensity`, `max_intensity` in units
    of the file, with the suffix `_<channel number>` for more than one channel; `mean_probability`; `pixel_size_nm`,
    `model`, `weights_sha256`. Values in µm are null if the file has no pixel size, intensities if no pixel is finite.
    """
    whole = ("number", "area_px", "top_px", "left_px", "bottom_px", "right_px")
    names = ["path", "series", "channel", "class", "number", "area_px", "area_um2", "centroid_y_px", "centroid_x_px"]
    names += ["top_px", "left_px", "bottom_px", "right_px", "equivalent_diameter_px", "equivalent_diameter_um"]
    names += ["eccentricity", "solidity", *_intensities(channels).values(), "mean_probability"]
    types = dict.fromkeys(("path", "series", "channel", "class"), pa.string()) | dict.fromkeys(whole, pa.int64())
    columns = [(name, types.get(name, pa.float64())) for name in names]
    return pa.schema([*columns, OF_IMAGE[-1], *OF_MODEL])


def _intensities(channels: int) -> dict[str, str]:
    """Return the measures of intensity with their columns."""
    return {
        f"{kind}_intensity_{channel}": f"{kind}_intensity" + (f"_{channel}" if channels > 1 else "")
        for channel in range(channels)
        for kind in ("mean", "max")
    }


@dataclass(frozen=True)
class FieldTask:
    """Function that segments a field and writes its files.

    Attributes:
        segmenter: Model.
        folder: Output folder.
        threshold: Probability above which a pixel belongs to a class; None for the most probable class.
        min_area_px: Area of the smallest object, in pixels.
        tile_size: Size of a tile, in pixels.
        tile_overlap: Overlap of neighbouring tiles, in pixels.
        batch_size: Number of tiles in one forward pass.
        probabilities: Type of the probability maps, `"float32"`, `"uint8"` or None.
        overlay: Whether an overlay is written.
        suffix: Suffix of the files of masks and maps, which decides their format (see `new_planes`).
        shows_rows: Whether the rows of a large field show progress.
    """

    segmenter: Segmenter
    folder: Path
    threshold: float | None
    min_area_px: int
    tile_size: int
    tile_overlap: int
    batch_size: int
    probabilities: str | None
    overlay: bool
    suffix: str = ".tif"
    shows_rows: bool = True

    def __call__(self, field: Field, path: str, number: int) -> tuple[dict[str, Any], pa.Table]:
        """Segment field `number` (from 1) of a file, and return its row and its table of objects."""
        names = self.segmenter.object_classes
        about = {"path": path, "series": field.series, "channel": field.channel}
        components = {each: Components() for each in names}
        tops: list[int] = []
        covered = np.zeros(len(self.segmenter.classes))
        with ExitStack() as stack:
            labels = stack.enter_context(self._open_labels(path, number, field, about))
            maps = stack.enter_context(self._open_maps(path, number, field, about))
            progress = stack.enter_context(_rows_progress(field, path if self.shows_rows else None))
            for top, band in probability_bands(
                self.segmenter,
                field,
                tile_size=self.tile_size,
                tile_overlap=self.tile_overlap,
                batch_size=self.batch_size,
            ):
                tops.append(top)
                masks = self._masks(band)
                labels.write(top, masks)
                if maps is not None:
                    maps.write(top, band if self.probabilities == "float32" else np.rint(band * 255))
                pixels = field.pixels[:, top : top + band.shape[1]]
                for each, component in components.items():
                    component.add(top, self._mask(masks, each), band[each], pixels)
                covered += self._covered(masks)
                if progress is not None:
                    progress.update(band.shape[1])
            measures = {each: component.finish(self.min_area_px) for each, component in components.items()}
            spans = list(zip(tops, [*tops[1:], field.shape[0]], strict=True))
            self._write_objects(path, number, field, about, labels, spans, components, measures)
            if self.overlay:
                shown = {name: self._rows_of(labels, each) for each, name in names.items()}
                write_overlay(
                    self.folder / self._name(path, "overlay", number),
                    lambda top, bottom: field.scaled(top, bottom).mean(axis=0),
                    shown,
                    field.shape,
                    field.pixel_size_nm,
                )
        size = None if field.pixel_size_nm is None else list(field.pixel_size_nm)
        made_with = {"model": self.segmenter.name, "weights_sha256": self.segmenter.weights_sha256}
        shared = about | {"pixel_size_nm": size} | made_with
        row: dict[str, Any] = shared | {"height": field.shape[0], "width": field.shape[1]}
        area = field.shape[0] * field.shape[1]
        row |= {f"fraction_{name}": float(n) / area for name, n in zip(self.segmenter.classes, covered, strict=True)}
        row |= {f"{OBJECTS_OF}{name}": len(measures[each]["number"]) for each, name in names.items()}
        written = {"labels": True, "objects": bool(names), "probabilities": maps is not None, "overlay": self.overlay}
        row |= {f"{kind}_file": self._name(path, kind, number) if written[kind] else None for kind in KINDS}
        return row, self._object_table(measures, field, shared)

    def _name(self, path: str, kind: str, number: int) -> str:
        return f"{path}.{kind}{number}{'.png' if kind == 'overlay' else self.suffix}"

    def _masks(self, band: np.ndarray) -> np.ndarray:
        """Convert probabilities (L, n, W) to class numbers (1, n, W), or to 0 and 1 for every class (L, n, W)."""
        if self.segmenter.single:
            return band.argmax(axis=0)[None].astype(self._label_type)
        return (band > self.threshold).astype(np.uint8)

    @property
    def _label_type(self) -> type[np.unsignedinteger[Any]]:
        return np.uint8 if len(self.segmenter.classes) <= 256 else np.uint16

    def _mask(self, masks: np.ndarray, each: int) -> np.ndarray:
        """Return the mask of a class."""
        return masks[0] == each if self.segmenter.single else masks[each] > 0

    def _covered(self, masks: np.ndarray) -> np.ndarray:
        """Count the pixels of every class."""
        if self.segmenter.single:
            return np.bincount(masks.ravel(), minlength=len(self.segmenter.classes))
        return masks.sum(axis=(1, 2), dtype=np.int64)

    def _rows_of(self, labels: Planes | ZarrPlanes, each: int) -> Rows:
        """Return a function that reads rows of the mask of a class."""
        if self.segmenter.single:
            return lambda top, bottom: labels.read(0, top, bottom) == each
        return lambda top, bottom: labels.read(each, top, bottom) > 0

    @contextmanager
    def _open_labels(
        self, path: str, number: int, field: Field, about: Mapping[str, Any]
    ) -> Iterator[Planes | ZarrPlanes]:
        """Open the file of class numbers (1, H, W), or of 0 and 1 for each overlapping class (L, H, W)."""
        classes, single = self.segmenter.classes, self.segmenter.single
        with new_planes(
            self.folder / self._name(path, "labels", number),
            (1 if single else len(classes), *field.shape),
            self._label_type if single else np.uint8,
            names=["classes"] if single else classes,
            limits=(0, max(1, len(classes) - 1)) if single else (0, 1),
            pixel_size_nm=field.pixel_size_nm,
            about={**about, "classes": list(classes), "threshold": self.threshold},
        ) as planes:
            yield planes

    @contextmanager
    def _open_maps(
        self, path: str, number: int, field: Field, about: Mapping[str, Any]
    ) -> Iterator[Planes | ZarrPlanes | None]:
        """Open the file of probabilities (L, H, W); None if no probabilities are requested.

        With uint8, 255 is probability 1.
        """
        if self.probabilities is None:
            yield None
            return
        classes, one = self.segmenter.classes, 255 if self.probabilities == "uint8" else 1
        is_regression = self.segmenter.model.config.target_type == "regression"
        with new_planes(
            self.folder / self._name(path, "probabilities", number),
            (len(classes), *field.shape),
            self.probabilities,
            names=classes,
            limits=None if is_regression else (0, one),
            pixel_size_nm=field.pixel_size_nm,
            about={**about, "classes": list(classes), "probability_1_is": one},
        ) as planes:
            yield planes

    def _write_objects(
        self,
        path: str,
        number: int,
        field: Field,
        about: Mapping[str, Any],
        labels: Planes | ZarrPlanes,
        spans: list[tuple[int, int]],
        components: Mapping[int, Components],
        measures: Mapping[int, Measures],
    ) -> None:
        """Write the label image of the objects, and add their solidity to `measures`.

        The masks are read again from `labels`, one span of rows at a time; nothing is written without object classes.

        Raises:
            ValueError: If a class has more objects than the file can number.
        """
        names = self.segmenter.object_classes
        if not names:
            return
        object_count = max(len(measures[each]["number"]) for each in names)
        if object_count > MOST_OBJECTS:
            raise ValueError(f"holds {object_count} objects of a class, too many to number; increase --min-area-px")
        hulls = {each: Hulls() for each in names}
        with new_planes(
            self.folder / self._name(path, "objects", number),
            (len(names), *field.shape),
            np.uint16 if object_count < 2**16 else np.float32,
            names=list(names.values()),
            limits=(0, max(1, object_count)),
            pixel_size_nm=field.pixel_size_nm,
            about={**about, "classes": list(names.values())},
        ) as planes:
            for top, bottom in spans:
                band = [components[each].numbers(top, self._rows_of(labels, each)(top, bottom)) for each in names]
                planes.write(top, np.stack(band))
                for each, numbers in zip(names, band, strict=True):
                    hulls[each].add(top, numbers)
        for each, columns in measures.items():
            columns["solidity"] = hulls[each].solidity(columns["area_px"])

    def _object_table(self, measures: Mapping[int, Measures], field: Field, shared: Mapping[str, Any]) -> pa.Table:
        """Return the table of objects of all classes; areas and diameters in µm are null without a pixel size."""
        schema = object_schema(len(field.pixels))
        column_of_measure = _intensities(len(field.pixels))
        tables = [schema.empty_table()]
        for each, class_measures in measures.items():
            count = len(class_measures["number"])
            columns: dict[str, Any] = {
                column_of_measure.get(name, name): values for name, values in class_measures.items()
            }
            columns |= {name: [value] * count for name, value in shared.items()}
            columns["class"] = [self.segmenter.object_classes[each]] * count
            if field.pixel_size_nm is None:
                columns |= dict.fromkeys(("area_um2", "equivalent_diameter_um"), [None] * count)
            else:
                y, x = field.pixel_size_nm
                columns["area_um2"] = class_measures["area_px"] * (y * x / 1e6)
                columns["equivalent_diameter_um"] = np.sqrt(4 * columns["area_um2"] / np.pi)
            arrays = [pa.array(columns[each.name], each.type, from_pandas=True) for each in schema]  # NaN becomes null
            tables.append(pa.table(arrays, schema=schema))
        return pa.concat_tables(tables).combine_chunks()


def _rows_progress(field: Field, path: str | None) -> Any:
    if path is None or field.shape[0] * field.shape[1] < LARGE:
        return nullcontext()
    return Progress(field.shape[0], description=path, unit="rows")
