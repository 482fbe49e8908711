"""Tab `Find similar`: the most similar images of the index, and the similarity of all patches to one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pyarrow.parquet as pq

from stedfm_hf.app.index import Index
from stedfm_hf.app.page import Page, Updates, cells, downloads, listed, opened, picture, position_in, write_map
from stedfm_hf.app.viewing import write_picture, zoom_of
from stedfm_hf.app.visits import Visit
from stedfm_hf.inference.one_image import embed_image, embed_patches, patch_similarity
from stedfm_hf.reports.figures import automatic_limits

MAP_RANGE = (-0.2, 1.0)
"""Similarities shown as black and bright."""
SHOWN = 8
"""Number of similar images that are shown."""
LISTED = 50
"""Number of similar images in the table."""


def add_similar(page: Page) -> None:
    """Add the tab.

    Args:
        page: The page.
    """
    encoder = page.models.encoder
    channels = encoder.model.config.num_channels
    searched = "simulated example images" if page.settings.index is None else f"`{Path(page.settings.index).name}`"
    gr.Markdown(f"Find the images of the index ({searched}) that look most like yours to the model.")
    button = gr.Button("Find similar images", variant="primary", size="md")
    message = page.message()
    with page.result("image") as result:
        gallery = gr.Gallery(
            label="Most similar images", columns=4, height="auto", object_fit="contain", buttons=[], elem_id="similar"
        )
        best = gr.Dataframe(headers=["image", "channel", "similarity"], interactive=False, visible=False)
        files = downloads()
    gr.Markdown(
        "### Similar patches\nClick a structure in the image, or enter a position: bright patches resemble it."
    )
    with gr.Row():
        row = gr.Number(0, label="Row, in pixels", precision=0, minimum=0, elem_id="patch-row")
        column = gr.Number(0, label="Column, in pixels", precision=0, minimum=0, elem_id="patch-column")
        map_button = gr.Button("Show similar patches", variant="primary", size="md", elem_id="patch-button")
    map_message = page.message()
    with page.result("image") as map_result:
        with gr.Row():
            clicked = picture("Click a structure", "The image with the chosen patch marked", elem_id="patch-picture")
            similarity_map = picture("Similarity to the marked patch", "Map of similarities", elem_id="patch-map")
        summary = gr.HTML(container=False)
        map_files = downloads()

    def find(visit: Visit) -> Updates:
        """Search the index, and write the table of results and the embedding of the image."""
        image = opened(visit)
        index = page.models.index
        table = embed_image(encoder, image.for_model(channels))
        rows, similarity = index.search(table["embedding"].combine_chunks().flatten().to_numpy(), LISTED)
        found = index.found(rows, similarity)
        name = Path(image.name).stem
        with visit.new_folder("similar") as folder:
            pq.write_table(found, folder / f"{name}.similar.parquet")
            pq.write_table(table, folder / f"{name}.embedding.parquet")
            shown = _thumbnails(index, found, rows[:SHOWN].tolist(), folder)
        parquet = listed(folder / f"{name}.similar.parquet", folder / f"{name}.embedding.parquet")
        lines = found.slice(0, SHOWN).select(["path", "channel", "similarity"]).to_pylist()
        values = [[each["path"], each["channel"], f"{each['similarity']:.3f}"] for each in lines]
        return {
            gallery: gr.Gallery(shown, visible=bool(shown)),
            best: gr.Dataframe(values, visible=not shown),
            files: parquet,
        }

    def show_map(visit: Visit, row_number: float | None, column_number: float | None) -> Updates:
        """Compute the similarity of all patches to the one at a position, and write it as TIFF."""
        image = opened(visit)
        y, x = position_in(image, row_number, column_number)
        patches = embed_patches(encoder, image.for_model(channels))
        place, (patch_height, patch_width) = patches.patch_at(y, x), patches.size_px
        similarity = patch_similarity(patches.embeddings, *place)
        name = Path(image.name).stem
        with visit.new_folder("patches") as folder:
            marked, shown, tiff = folder / f"{name}.png", folder / f"{name}.map.png", folder / f"{name}.patches.tif"
            corner = (place[0] * patch_height, place[1] * patch_width, patch_height, patch_width)
            write_picture(marked, image.plane, image.limits, image.pixel_width_nm, marked=corner)
            at_pixels = patches.at_pixels(similarity)
            write_picture(shown, at_pixels, MAP_RANGE, None, colour_map="inferno", marked=corner)
            write_map(tiff, similarity, image, patches, {"row": place[0], "col": place[1], "model": encoder.name})
        return {
            row: y,
            column: x,
            clicked: str(marked),
            similarity_map: str(shown),
            summary: cells(
                f"Patch {place[0]}, {place[1]} of {similarity.shape[0]} × {similarity.shape[1]} patches. "
                f"Cosine similarity from {MAP_RANGE[0]:g} (black) to {MAP_RANGE[1]:g} (bright)."
            ),
            map_files: listed(tiff),
        }

    def select(visit: Visit, position: Any, *_: Any) -> Updates:
        image = opened(visit)
        shape = (image.plane.shape[0], image.plane.shape[1])
        return show_map(visit, *zoom_of(shape).pixel_at(*position))

    page.on([button.click], find, [], [gallery, best, files], message, computes=True, shows=result)
    outputs = [row, column, clicked, similarity_map, summary, map_files]
    page.on([map_button.click], show_map, [row, column], outputs, map_message, computes=True, shows=map_result)
    for each in (page.view, clicked):
        page.on([each.select], select, [], outputs, map_message, computes=True, shows=map_result, in_open_tab=True)


def _thumbnails(index: Index, found: Any, rows: list[int], folder: Path) -> list[tuple[str, str]]:
    """Write pictures of rows of the index, and return them with their captions; unknown images are left out."""
    shown = []
    for number, (row, record) in enumerate(zip(rows, found.slice(0, len(rows)).to_pylist(), strict=True)):
        plane = index.read(row)
        if plane is not None:
            path = folder / f"{number}.png"
            size = record["pixel_size_nm"]
            write_picture(path, plane, automatic_limits(plane), None if size is None else size[1])
            shown.append((str(path), f"{record['similarity']:.2f}  {Path(record['path']).stem}"))
    return shown
