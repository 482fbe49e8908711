"""Tab `Segment`: masks of the classes of a segmenter, and a table of the objects."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pyarrow.parquet as pq

from stedfm_hf.app.page import Page, Updates, cells, downloads, listed, opened, picture
from stedfm_hf.app.visits import Visit
from stedfm_hf.inference.field_task import KINDS
from stedfm_hf.inference.one_image import segment_image

SHOWN = 200
"""Largest number of objects in the table of the page; the file has all."""
COLUMNS = {
    "class": "class",
    "number": "object",
    "area_px": "area (px)",
    "area_um2": "area (µm²)",
    "centroid_y_px": "centre, row",
    "centroid_x_px": "centre, column",
    "mean_intensity": "mean intensity",
    "solidity": "solidity",
}
"""Columns of the table of the page, with their headings."""


def add_segment(page: Page) -> None:
    """Add the tab.

    Args:
        page: The page.
    """
    segmenter = page.models.segmenter
    if segmenter is None:
        gr.Markdown(
            "This app has no segmentation model, because the structures to segment differ from lab to lab. A few "
            "annotated images are enough to train one:\n\n"
            "```\nstedfm finetune segmentation --model demo --dataset annotated/ --output my-segmenter\n"
            "stedfm app --segmenter ./my-segmenter\n```"
        )
        return
    gr.Markdown(f"Segment the image with {segmenter.name}: {', '.join(segmenter.object_classes.values())}.")
    with gr.Row():
        threshold = gr.Slider(
            0.05, 0.95, value=0.5, step=0.05, label="Probability threshold", visible=not segmenter.single, buttons=[]
        )
        area = gr.Number(1, label="Smallest object, in pixels", precision=0, minimum=1)
    button = gr.Button("Segment", variant="primary", size="md")
    message = page.message()
    with page.result("image") as result:
        overlay = picture("Segmented image", "The image with the classes in colour", elem_id="overlay")
        summary = gr.HTML(container=False, elem_id="segment-summary")
        table = gr.Dataframe(headers=list(COLUMNS.values()), interactive=False, label="Objects", max_height=320)
        files = downloads()

    def run(visit: Visit, least: float, smallest: float | None) -> Updates:
        """Segment the image, and write the files of `stedfm segment`."""
        image = opened(visit)
        with visit.new_folder("segment") as folder:
            row, objects = segment_image(
                segmenter,
                image.for_model(segmenter.model.config.num_channels),
                folder,
                threshold=None if segmenter.single else least,
                min_area_px=int(smallest or 1),
            )
            parquet = folder / f"{Path(image.name).stem}.objects.parquet"
            pq.write_table(objects, parquet)
        written = {kind: folder / row[f"{kind}_file"] for kind in KINDS if row[f"{kind}_file"] is not None}
        columns = {name: title for name, title in COLUMNS.items() if name in objects.column_names}
        shown = objects.slice(0, SHOWN).select(list(columns)).to_pylist()
        values = [[_text(each[name]) for name in columns] for each in shown]
        counts = ", ".join(
            f"{row[f'objects_{name}']} of {name} ({100 * row[f'fraction_{name}']:.1f} % of the pixels)"
            for name in segmenter.object_classes.values()
        )
        more = "" if len(objects) <= SHOWN else f" The table shows the first {SHOWN}; the file has all {len(objects)}."
        return {
            overlay: str(written.pop("overlay")),
            summary: cells(f"Objects: {counts}.{more}"),
            table: gr.Dataframe(values, headers=list(columns.values()), visible=bool(values)),
            files: listed(parquet, *written.values(), folder / row["overlay_file"]),
        }

    page.on(
        [button.click], run, [threshold, area], [overlay, summary, table, files], message, computes=True, shows=result
    )


def _text(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
