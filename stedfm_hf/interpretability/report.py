"""Report of `stedfm explain`: figures of the images, how to read them, and a table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.interpretability.explainers import Explainer
from stedfm_hf.interpretability.result import REPORT
from stedfm_hf.reports.html import ReportFigure, Section, Table, write_page
from stedfm_hf.runs import Manifest, counted
from stedfm_hf.runs.options import REFERENCE

MOST_FIGURES = 24
"""Number of images that the report shows."""
MOST_ROWS = 200
"""Number of rows of the table in the report."""
_ABOUT = {
    "logit": (
        "Evidence of each patch for a class",
        "The classifier averages the patch tokens and applies a linear head, so that its logit is a sum of one number "
        "per patch. Red patches raise the logit of the class, and blue patches lower it. The white frame marks the "
        "largest value.",
    ),
    "attention": (
        "Attention to each patch",
        "The map shows how much a token looks at each patch. Attention is not evidence: a patch that the network "
        "looks at can speak for or against a class, and a classifier that averages patch tokens never trains its "
        "class token. For such a classifier, use the method logit.",
    ),
    "pca": (
        "Principal components of patch tokens",
        "The first three components are shown as red, green and blue. Patches of similar colour have similar tokens. "
        "The components were fitted to patches of many images together, and a colour means the same in all "
        "images.",
    ),
    "similarity": (
        "Difference between the tokens of two models",
        "The map shows 1 minus the cosine similarity of the tokens of both models at each position. The models see "
        "bright patches most differently, for example because one was fine-tuned.",
    ),
    "correspondence": (
        "Corresponding patches in two images",
        "Frames of the same number mark a patch and its nearest patch in the reference image, the most similar pairs "
        "first. A pair is shown only if both patches are the nearest of each other.",
    ),
}
_AGGREGATES = {
    "mean": "mean over blocks",
    "last": "last block",
    "rollout": "rollout over blocks",
    "gradient": "weighted by the gradient of the logit",
}
_HEADINGS = {
    "label": "class",
    "exact": "sums to the logit",
    "peak_value": "largest value",
    "peak_y_px": "y, px",
    "peak_x_px": "x, px",
}


def write_report(folder: Path, manifest: Manifest, table: pa.Table, explainer: Explainer) -> Path:
    """Write `report.html`.

    Args:
        folder: Output folder, with the figures.
        manifest: Manifest of the run.
        table: Table of the explained images.
        explainer: Explainer of the method.

    Returns:
        Path of the page.
    """
    method = manifest.settings["method"]
    title, lead = _ABOUT[method]
    rows = table.to_pylist()
    failures = manifest.failures()
    facts = {"images": str(len(rows)), "failed files": str(len(failures)), "method": method}
    if "label" in table.column_names:
        counts = Counter(row["label"] for row in rows)
        facts["classes shown"] = ", ".join(f"{name} {count}" for name, count in counts.most_common(4))
    sections = [_figures(folder, rows, method), Section("How to read the maps", _notes(manifest, rows, method))]
    if rows:
        sections.append(Section("Images", table=_table(rows, [name for name, _ in explainer.columns])))
    if failures:
        text = [f"{path}: {reason}" for path, reason in failures.items()]
        sections.append(Section("Files that could not be explained", text))
    footer = f"Model {manifest.model}, weights {str(manifest.weights_sha256)[:12]}. Settings: manifest.json."
    return write_page(folder / REPORT, title=title, lead=lead, facts=facts, sections=sections, footer=footer)


def _figures(folder: Path, rows: list[dict[str, Any]], method: str) -> Section:
    """Return the section with the figures of evenly spaced images."""
    chosen: list[int] = []
    if rows:
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_FIGURES)).round()).astype(int).tolist()
    figures = []
    for number in chosen:
        row = rows[number]
        alt = f"Map ({method}) of {row['path']}"
        figures.append(ReportFigure.from_png(folder / row["overlay_file"], alt, _caption(row)))
    if not rows:
        text = ["No image could be explained."]
    elif len(chosen) < len(rows):
        text = [f"{len(chosen)} of {counted(len(rows), 'image')}; the figures of the others are in the folder."]
    else:
        text = []
    return Section("Maps", text, figures)


def _caption(row: dict[str, Any]) -> str:
    """Describe an image and its map in a line."""
    parts = [f"{row['path']}, {row['series']}, channel {row['channel']}: {row['height']} x {row['width']} px"]
    if "label" in row and row["label"] != row["predicted"]:
        parts.append(f"the predicted class is {row['predicted']}")
    if row.get("exact") is False:
        parts.append("larger than a tile: blended evidence")
    return "; ".join(parts) + "."


def _notes(manifest: Manifest, rows: list[dict[str, Any]], method: str) -> list[str]:
    """Return paragraphs that say what the maps are, and what they are not."""
    settings = manifest.settings
    notes = []
    if method == "logit":
        exact = sum(bool(row["exact"]) for row in rows)
        notes.append(
            "The split over the patches is exact for the head. It does not say what happens if the pixels of a patch "
            "change, because the tokens of the encoder hold information of other patches too."
        )
        if exact:
            notes.append(
                f"In {exact} of {counted(len(rows), 'image')}, which fit into one tile, the map sums to the logit "
                "that stedfm classify computes."
            )
        if exact < len(rows):
            size, overlap = settings["tile_size"], settings["tile_overlap"]
            notes.append(
                f"{counted(len(rows) - exact, 'image')} larger than {size} pixels: processed in tiles that overlap by "
                f"{overlap} pixels. Their maps are blended evidence of the tiles. Its sum is close to the logit of "
                "stedfm classify, which uses tiles without overlap, but not equal to it."
            )
    else:
        notes += [_how(manifest, method), *_tiles(settings, method)]
    per = "pixel" if settings["protocol"] == REFERENCE else "patch"
    notes.append(
        f"A map has one value per {per}. Positions are top left corners in pixels of the file. The pixel size of the "
        f"TIFF files is the size of a {per}, so that they overlay the image."
    )
    return notes


def _tiles(settings: dict[str, Any], method: str) -> list[str]:
    """Describe how images larger than a tile were processed; empty if they were not divided."""
    size, overlap = settings["tile_size"], settings["tile_overlap"]
    if size is None:
        return []
    if settings["query"] is not None:
        return [f"In images larger than {size} pixels, the map covers the tile that is centred on the patch."]
    compared = ": a token looks only at patches of its tile" if method == "attention" else ""
    return [
        f"Images larger than {size} pixels were processed in tiles that overlap by {overlap} pixels. The values of "
        f"the tiles were blended{compared}."
    ]


def _how(manifest: Manifest, method: str) -> str:
    """Describe the settings of a method."""
    settings, options = manifest.settings, manifest.options
    if method == "attention" and settings["protocol"] == REFERENCE:
        return (
            "Reference protocol: attention of the class token, mean over heads, resized to the image and scaled to "
            "its minimum and maximum in each block, and summed over the blocks."
        )
    if method == "attention":
        query, block, head = settings["query"], settings["block"], settings["head"]
        of = "the class token" if query is None else "the patch at {:g} {:g} (y, x)".format(*query)
        blocks = _AGGREGATES[settings["aggregate"] or "mean"] if block is None else f"block {block}"
        heads = "mean over heads" if head is None else f"head {head}"
        return f"Attention of {of}: {blocks}, {heads}."
    if method == "pca":
        patches = "patches above the threshold of Otsu" if settings["foreground"] == "otsu" else "all patches"
        return f"Components of {patches}. The TIFF files hold the components, NaN in background."
    if method == "similarity":
        return (
            f"The model {manifest.model} is compared with {options['compare_with']}. The table holds the mean and the "
            "smallest similarity of each image."
        )
    return (
        f"The reference image, on the right, is {options['reference_image']}. The TIFF files hold the "
        "similarity, the position of the nearest patch in pixels, and whether it is mutual."
    )


def _table(rows: list[dict[str, Any]], columns: list[str]) -> Table:
    """Return the table of the images."""
    peak = ["peak_value", "peak_y_px", "peak_x_px"]
    names = [name for name in (*columns, *peak) if any(row[name] is not None for row in rows)]
    header = ["image", *[_HEADINGS.get(name, name.replace("_", " ")) for name in names]]
    cells = [[f"{row['path']} ({row['channel']})", *[_cell(row[name]) for name in names]] for row in rows[:MOST_ROWS]]
    caption = f"The first {MOST_ROWS} rows of explanations.parquet." if len(rows) > MOST_ROWS else ""
    return Table(header, cells, caption)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
