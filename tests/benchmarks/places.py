"""`python -m tests.benchmarks.places`: precision of the places that a search finds; writes docs/benchmarks/places.md.

Fields hold two structures in separate regions, rotated at random, with other noise and other pixel sizes. The query is
a box of one structure in one field; the other fields are searched.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from skimage.feature import match_template

from stedfm_hf.data.simulation.fields import simulate_field
from stedfm_hf.data.simulation.physics import SimulationSettings, class_id
from stedfm_hf.discovery.index import index
from stedfm_hf.discovery.search import search
from stedfm_hf.discovery.search.places import separate_maxima
from tests.benchmarks.timing import machine, table

PAIRS = (
    ("rings", "fibres"),
    ("fibres", "puncta"),
    ("puncta", "mitochondria"),
    ("mitochondria", "rings"),
    ("clusters", "microtubules"),
    ("polymer_rings", "puncta"),
)
"""Structure to search for, and the other one in its fields."""
FIELDS, SIZE, BOX, COUNT = 12, 384, 96, 10
PIXEL_SIZES = (20.0, 16.0, 25.0)
"""Pixel sizes of the fields in turn, in nm; the query has the first."""


def write_fields(folder: Path, pair: tuple[str, str], seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write the fields of a pair as TIFF files, and return the pixels and the class numbers of each."""
    fields = {}
    for number in range(FIELDS):
        size = PIXEL_SIZES[number % len(PIXEL_SIZES)]
        settings = SimulationSettings(height=SIZE, width=SIZE, pixel_size_nm=size)
        field = simulate_field(pair, seed=seed, index=number, settings=settings)
        name = f"{number:02d}.tif"
        fields[name] = field.image, field.mask
        per_um = 1000 / size
        metadata = {"unit": "um", "axes": "YX"}
        tifffile.imwrite(folder / name, field.image, imagej=True, resolution=(per_um, per_um), metadata=metadata)
    return fields


def is_right(mask: np.ndarray, y: float, x: float, structure: str) -> bool:
    """Return whether most of the labelled pixels of a place belong to a structure."""
    inside = mask[round(y) : round(y) + BOX, round(x) : round(x) + BOX]
    labelled = int((inside > 0).sum())
    return labelled > 0 and int((inside == class_id(structure)).sum()) > labelled / 2


def query_box(mask: np.ndarray, structure: str) -> tuple[int, int]:
    """Return the corner of the box with the most pixels of a structure, without those of the other one."""
    wanted = mask == class_id(structure)
    score = ndimage.uniform_filter(np.where(wanted, 1.0, np.where(mask > 0, -1.0, 0.0)), BOX, mode="constant", cval=-1)
    inside = score[BOX // 2 : SIZE - BOX // 2, BOX // 2 : SIZE - BOX // 2]
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(y), int(x)


def by_template(
    fields: dict[str, tuple[np.ndarray, np.ndarray]], query: str, y: int, x: int
) -> list[tuple[str, int, int]]:
    """Return the best places of normalised cross-correlation with the pixels of the query."""
    template = fields[query][0][y : y + BOX, x : x + BOX].astype(np.float64)
    found = []
    for name, (pixels, _) in fields.items():
        if name != query:
            values = match_template(pixels.astype(np.float64), template)
            found += [(values[at], name, *at) for at in separate_maxima(values, COUNT, (BOX, BOX))]
    return [(name, row, col) for _, name, row, col in sorted(found, reverse=True)[:COUNT]]


def measure(work: Path, model: str, seeds: list[int]) -> str:
    """Measure all pairs and return the page."""
    lines, every = [], []
    for pair in PAIRS:
        structure, values = pair[0], []
        for seed in seeds:
            folder = work / f"{structure}-{seed}"
            (folder / "fields").mkdir(parents=True)
            fields = write_fields(folder / "fields", pair, seed)
            query = "00.tif"
            y, x = query_box(fields[query][1], structure)
            index(folder / "fields", output=folder / "index", patches=True, model=model, device="cpu")
            table_of = search(
                folder / "index",
                query,
                output=folder / "places",
                box=(x, y, BOX, BOX),
                exclude="source",
                count=COUNT,
                maps=0,
            ).table.to_pylist()
            places = [(row["path"], row["y_px"], row["x_px"]) for row in table_of]
            matched = by_template(fields, query, y, x)
            others = [mask for name, (_, mask) in fields.items() if name != query]
            corners = range(0, SIZE - BOX + 1, BOX // 4)
            chance = np.mean([is_right(mask, a, b, structure) for mask in others for a in corners for b in corners])
            right = [
                float(np.mean([is_right(fields[name][1], a, b, structure) for name, a, b in found]))
                for found in (places, matched)
            ]
            values.append([*right, float(chance)])
        every.append(np.mean(values, axis=0))
        cells = [f"{mean:.2f} ± {sd:.2f}" for mean, sd in zip(np.mean(values, 0), np.std(values, 0), strict=True)]
        lines.append([f"{structure}, among {pair[1]}", *cells])
    mean = np.mean(every, axis=0)
    lines.append(["**mean**", *(f"**{each:.2f}**" for each in mean)])
    return f"""# Places

Precision of the {COUNT} most similar places to a box of {BOX} pixels, in {FIELDS - 1} other fields of {SIZE} × {SIZE}
pixels. With the encoder `{model}`, `stedfm search` reaches {mean[0]:.2f} on average, template matching {mean[1]:.2f}.

Measured on {machine()}, with `python -m tests.benchmarks.places`. Mean ± standard deviation over {len(seeds)} sets.

{table(["structure", "`stedfm search`", "template matching", "random places"], lines)}

## How it was measured

| part | how |
| --- | --- |
| fields | two simulated structures in separate regions, rotated at random, with other brightness and noise |
| pixel sizes | {", ".join(f"{each:g}" for each in PIXEL_SIZES)} nm in turn; the query has {PIXEL_SIZES[0]:g} nm |
| query | the box with the most pixels of the structure in the first field; no other place of this field counts |
| right | most labelled pixels of the place belong to the structure of the query |
| template matching | normalised cross-correlation of the pixels (`match_template` of scikit-image) |
| encoder | `demo` was trained on other simulated images of these structures |
"""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[2] / "docs" / "benchmarks" / "places.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        page = measure(Path(name), given.model, given.seeds)
    given.output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
