"""Tab `Classify`: predictions of a classifier, or without one the folders of the most similar images of the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pyarrow.parquet as pq

from stedfm_hf.app.page import Page, Updates, cells, downloads, listed, opened, picture
from stedfm_hf.app.visits import Visit
from stedfm_hf.inference.one_image import classify_image, embed_image
from stedfm_hf.inference.predictions import prediction_columns
from stedfm_hf.runs import UserError

NEIGHBOURS = 10
"""Number of similar images that vote."""


def add_classify(page: Page) -> None:
    """Add the tab.

    Args:
        page: The page.
    """
    if page.models.classifier is None:
        what = "the simulated example images" if page.settings.index is None else Path(page.settings.index).name
        gr.Markdown(
            f"This app has no trained classifier. Instead, the {NEIGHBOURS} most similar images of the index ({what}) "
            "vote with the names of their folders. To train one, run `stedfm finetune classification`, and start the "
            "app with `stedfm app --classifier FOLDER`."
        )
    else:
        gr.Markdown(f"Classify the image with the classifier `{page.models.classifier.name}`.")
    button = gr.Button("Classify", variant="primary", size="md")
    message = page.message()
    with page.result("image") as result:
        label = gr.Label(label="Classes", elem_id="classes", show_heading=True)
        summary = gr.HTML(container=False)
        with gr.Column(visible=False) as map_box:
            class_map = picture("Map of the classes", "Maps of the probabilities of the classes", elem_id="class-map")
        files = downloads()
    run = _vote if page.models.classifier is None else _classify

    def show(visit: Visit) -> Updates:
        classes, text, map_file, written = run(page, visit)
        return {
            label: classes,
            summary: cells(text),
            class_map: map_file,
            map_box: gr.Column(visible=map_file is not None),
            files: written,
        }

    page.on(
        [button.click], show, [], [label, summary, class_map, map_box, files], message, computes=True, shows=result
    )


Classes = tuple[dict[str, float], str, str | None, list[str]]
"""Fraction of each class, a sentence, the picture of a map or None, and the files to download."""


def _classify(page: Page, visit: Visit) -> Classes:
    """Apply the classifier; a large image also gets a map."""
    image, classifier = opened(visit), page.models.classifier
    assert classifier is not None
    columns = prediction_columns(classifier)
    config = classifier.model.config
    with visit.new_folder("classify") as folder:
        table = classify_image(classifier, image.for_model(config.num_channels), folder)
        parquet = folder / f"{Path(image.name).stem}.classes.parquet"
        pq.write_table(table, parquet)
    row: dict[str, Any] = table.to_pylist()[0]
    values = {name: float(row[column]) for column, name in columns.items()}
    maps = [] if row["map"] is None else [folder / row["map"], folder / f"{row['map'].removesuffix('.tif')}.png"]
    shown = None if not maps else str(maps[1])
    files = listed(parquet, *maps)
    if config.target_type == "regression":
        return {}, ", ".join(f"{name}: {value:.4g}" for name, value in values.items()), shown, files
    what = "Probabilities of the classes; they need not sum to 1." if config.target_type == "multi_label" else ""
    return values, what or "Probabilities of the classes.", shown, files


def _vote(page: Page, visit: Visit) -> Classes:
    """Count the folders of the most similar images of the index.

    Raises:
        UserError: If the images of the index are not in folders.
    """
    image, encoder = opened(visit), page.models.encoder
    index = page.models.index
    if not any(index.labels):
        raise UserError(
            f"the images of {index.name} are not in folders, one for each class; give the app a classifier"
        )
    table = embed_image(encoder, image.for_model(encoder.model.config.num_channels))
    embedding = table["embedding"].combine_chunks().flatten().to_numpy()
    rows, similarity = index.search(embedding, NEIGHBOURS)
    votes = index.votes(rows)
    found = index.found(rows, similarity)
    with visit.new_folder("classify") as folder:
        parquet = folder / f"{Path(image.name).stem}.neighbours.parquet"
        pq.write_table(found, parquet)
    total = sum(votes.values())
    text = f"Votes of the {total} most similar images of {index.name}; these are not probabilities."
    return {name: count / total for name, count in votes.items()}, text, None, listed(parquet)
