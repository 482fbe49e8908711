"""Tab `Compare two images`: similarity of the images as a whole, and of every patch to the other image."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.app.image_panel import add_image_panel
from stedfm_hf.app.page import Page, Updates, cells, downloads, listed, opened, picture, write_map
from stedfm_hf.app.viewing import write_picture
from stedfm_hf.app.visits import Visit
from stedfm_hf.inference.one_image import best_similarity, embed_image, embed_patches

SLOTS = ("image", "second")
MAP_RANGE = (0.2, 1.0)
"""Similarities shown as black and bright."""


def add_compare(page: Page) -> None:
    """Add the tab.

    Args:
        page: The page.
    """
    encoder = page.models.encoder
    channels = encoder.model.config.num_channels
    gr.Markdown("Compare your image with a second one. Both are shown with the display range of the first.")
    page.panels.append(add_image_panel(page, "second", with_range=False))
    button = gr.Button("Compare", variant="primary", size="md")
    message = page.message()
    with page.result(*SLOTS) as result:
        summary = gr.HTML(container=False, elem_id="compare-summary")
        with gr.Row():
            pictures = [
                picture("First image", "The first image, in the shared display range", elem_id="compare-first"),
                picture("Second image", "The second image, in the shared display range", elem_id="compare-second"),
            ]
        with gr.Row():
            maps = [
                picture("Found in the second", "Similarity of the patches of the first image to the second"),
                picture("Found in the first", "Similarity of the patches of the second image to the first"),
            ]
        gr.HTML(
            cells(
                "Each patch is coloured by its cosine similarity to the most similar patch of the other image, from "
                f"{MAP_RANGE[0]:g} (black) to {MAP_RANGE[1]:g} (bright): dark structures have no counterpart there."
            )
        )
        files = downloads()

    def run(visit: Visit) -> Updates:
        """Compare the images, and write their embeddings and the maps of their patches."""
        images = [opened(visit, slot) for slot in SLOTS]
        inputs = [image.for_model(channels) for image in images]
        tables = [embed_image(encoder, image) for image in inputs]
        vectors = [table["embedding"].combine_chunks().flatten().to_numpy() for table in tables]
        patches = [embed_patches(encoder, image) for image in inputs]
        index = page.models.index
        similarity = index.similarity(vectors[0], vectors[1])
        written: list[Path] = []
        with visit.new_folder("compare") as folder:
            shown = [folder / f"{slot}.png" for slot in SLOTS]
            shown_maps = [folder / f"{slot}.map.png" for slot in SLOTS]
            for number, image in enumerate(images):
                write_picture(shown[number], image.plane, images[0].limits, image.pixel_width_nm)
                best = best_similarity(patches[number].embeddings, patches[1 - number].embeddings)
                at_pixels = patches[number].at_pixels(best)
                write_picture(shown_maps[number], at_pixels, MAP_RANGE, None, colour_map="inferno")
                written.append(folder / f"{SLOTS[number]}.{Path(image.name).stem}.similarity.tif")
                other = {"compared_with": images[1 - number].name, "model": encoder.name}
                write_map(written[-1], best, image, patches[number], other)
            parquet = folder / "embeddings.parquet"
            pq.write_table(pa.concat_tables(tables), parquet)
        text = f"Cosine similarity of the embeddings: {similarity:.2f}."
        if index.reference is not None:
            same, different = index.reference
            text += (
                f" For comparison, the median of two images of {index.name} is {same:.2f} if they are from one "
                f"folder, and {different:.2f} if not."
            )
        values = zip([*pictures, *maps], [*shown, *shown_maps], strict=True)
        return {summary: cells(text), files: listed(parquet, *written)} | {each: str(path) for each, path in values}

    page.on([button.click], run, [], [summary, *pictures, *maps, files], message, computes=True, shows=result)
