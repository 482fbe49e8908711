"""Tab `Explain`: what a model looks at, in the maps of `stedfm explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import gradio as gr
import numpy as np

from stedfm_hf.app.page import Page, Updates, cells, downloads, listed, opened, picture, position_in
from stedfm_hf.app.viewing import OpenedImage, write_picture, zoom_of
from stedfm_hf.app.visits import Visit
from stedfm_hf.inference.loading import Classifier, Encoder, Loaded, names_of
from stedfm_hf.inference.maps import write_map_tiff
from stedfm_hf.inference.one_image import BATCH_SIZE, at_pixels, prepare_image
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.interpretability import PatchPca, check_exact, foreground_patches
from stedfm_hf.interpretability.explainers import (
    AttentionExplainer,
    Explanation,
    LogitExplainer,
    PcaExplainer,
    patch_tokens,
)
from stedfm_hf.interpretability.fields import Tiles, tiles_of
from stedfm_hf.interpretability.figures import limits_of, map_colours, write_figure
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.runs import UserError

EVIDENCE, ATTENTION, COLOURS = "Evidence for a class", "Attention", "Patch colours"
CLASS_TOKEN, PATCH = "class token", "patch"
PREDICTED = "the predicted class"
BLOCKS = {"mean of all blocks": "mean", "last block": "last", "rollout through all blocks": "rollout"}
"""Aggregates of attention by their names on the page."""


class Explained(NamedTuple):
    """Map of an image, the quantity that it shows, and its caption."""

    found: Explanation
    unit: str
    caption: str


def add_explain(page: Page) -> None:
    """Add the tab.

    Args:
        page: The page.
    """
    classifier, encoder = page.models.classifier, page.models.encoder
    models: dict[str, Loaded] = {f"encoder {encoder.name}": encoder}
    if classifier is not None:
        models = {f"classifier {classifier.name}": classifier} | models
    missing = _why_no_evidence(classifier)
    classes = [] if classifier is None or missing else _classes(classifier)
    kinds = [EVIDENCE] * bool(classes) + [ATTENTION, COLOURS]

    def visibility(chosen: str, source: str) -> list[bool]:
        """Return whether each of `boxes` is shown: only the inputs that the chosen map uses."""
        is_attention = chosen == ATTENTION
        has_choice = chosen != EVIDENCE and len(models) > 1
        return [chosen == EVIDENCE, has_choice, is_attention, is_attention and source == PATCH, chosen == COLOURS]

    visible = iter(visibility(kinds[0], CLASS_TOKEN))
    gr.Markdown("See which patches the model uses. Click a structure in the image to see the attention of its patch.")
    if missing:
        gr.Markdown(missing)
    kind = gr.Radio(kinds, value=kinds[0], label="Map", elem_id="explain-map")
    label = gr.Dropdown(classes, label="Class", visible=next(visible), elem_id="explain-class")
    model = gr.Dropdown(list(models), label="Model", visible=next(visible), elem_id="explain-model")
    with gr.Row(visible=next(visible)) as attention_box:
        blocks = gr.Dropdown(list(BLOCKS), label="Blocks", elem_id="explain-blocks")
        token = gr.Radio([CLASS_TOKEN, PATCH], value=CLASS_TOKEN, label="Attention of", elem_id="explain-token")
    with gr.Row(visible=next(visible)) as position_box:
        row = gr.Number(0, label="Row, in pixels", precision=0, minimum=0, elem_id="explain-row")
        column = gr.Number(0, label="Column, in pixels", precision=0, minimum=0, elem_id="explain-column")
    structures = gr.Checkbox(
        label="Only patches with structures (brighter than Otsu's threshold)", visible=next(visible)
    )
    boxes = [label, model, attention_box, position_box, structures]
    button = gr.Button("Explain", variant="primary", size="md")
    message = page.message()
    with page.result("image") as result:
        shown = picture("Map over the image", "The image with the map in colour", elem_id="explained")
        summary = gr.HTML(container=False, elem_id="explain-summary")
        files = downloads()

    def show_inputs(_: Visit, chosen: str, source: str) -> Updates:
        """Show the inputs that the chosen map uses."""
        return {box: gr.update(visible=each) for box, each in zip(boxes, visibility(chosen, source), strict=True)}

    def run(
        visit: Visit,
        chosen: str,
        class_name: str | None,
        model_name: str,
        blocks_name: str,
        source: str,
        y: float | None,
        x: float | None,
        only_structures: bool,
    ) -> Updates:
        """Compute the chosen map, and write it as TIFF and as a figure."""
        image = opened(visit)
        loaded = cast(Loaded, classifier) if chosen == EVIDENCE else models[model_name]
        ((fact, pixels),) = prepare_image(loaded, image.for_model(loaded.model.config.num_channels))
        tiles = tiles_of(loaded, "auto", None, BATCH_SIZE)
        if chosen == EVIDENCE:
            explained = _evidence(cast(Classifier, loaded), tiles, fact, pixels, class_name)
        elif chosen == ATTENTION:
            query = position_in(image, y, x) if source == PATCH else None
            explained = _attention(loaded, tiles, fact, pixels, blocks_name, query)
        else:
            explained = _colours(loaded, tiles, fact, pixels, only_structures)
        if not np.isfinite(explained.found.values).any():
            raise UserError("the map is not finite; start the app with --precision float32")
        with visit.new_folder("explain") as folder:
            view, *written = _write(folder, image, fact, pixels, explained)
        return {shown: str(view), summary: cells(explained.caption), files: listed(*written)}

    def select(visit: Visit, position: Any, _: str, *values: Any) -> Updates:
        """Show the attention of the patch at a position of a picture, with the chosen model and blocks."""
        height, width = opened(visit).plane.shape
        y, x = zoom_of((height, width)).pixel_at(*position)
        class_name, model_name, blocks_name, *_others = values
        updates = run(visit, ATTENTION, class_name, model_name, blocks_name, PATCH, y, x, False)
        return {kind: ATTENTION, token: PATCH, row: y, column: x} | updates

    inputs = [kind, label, model, blocks, token, row, column, structures]
    results = [shown, summary, files]
    page.on([kind.change, token.change], show_inputs, [kind, token], boxes, message)
    page.on([button.click], run, inputs, results, message, computes=True, shows=result)
    changed = [kind, token, row, column, *results]
    for each in (page.view, shown):
        page.on([each.select], select, inputs, changed, message, computes=True, shows=result, in_open_tab=True)


def _why_no_evidence(classifier: Classifier | None) -> str:
    """Return why there are no maps of evidence, or "" if there are."""
    if classifier is None:
        return (
            "This app has no trained classifier, so that there is no evidence for a class to show. To train one, run "
            "`stedfm finetune classification`, and start the app with `stedfm app --classifier FOLDER`."
        )
    try:
        check_exact(classifier.model)
    except UserError as error:
        return f"There is no evidence for a class to show: {error}."
    return ""


def _classes(classifier: Classifier) -> list[str]:
    """Return the classes to choose from; a regression predicts no class."""
    names = list(names_of(classifier, "labels"))
    return names if classifier.model.config.target_type == "regression" else [PREDICTED, *names]


def _evidence(
    classifier: Classifier, tiles: Tiles, fact: Fact, pixels: np.ndarray, class_name: str | None
) -> Explained:
    """Map the evidence for a class."""
    names = names_of(classifier, "labels")
    number = names.index(class_name) if class_name in names else None
    found = LogitExplainer(classifier, tiles, number)(fact, pixels)
    most = limits_of(found)[1]
    what = "value" if classifier.model.config.target_type == "regression" else "logit"
    total = (
        f"All patches sum to the {what}."
        if found.columns["exact"]
        else f"The image is larger than the crops of the model: all patches sum to the blended {what} of its tiles."
    )
    return Explained(
        found,
        LogitExplainer.unit,
        f"{found.columns['label']}: {what} {found.columns['logit']:+.3g}. Red patches increase the {what}, blue ones "
        f"decrease it, by at most {most:.2g} (full colour). {total} Tokens mix while they pass through the model: a "
        "patch also holds information of others, and the map does not show what would happen without it.",
    )


def _attention(
    loaded: Loaded,
    tiles: Tiles,
    fact: Fact,
    pixels: np.ndarray,
    blocks_name: str,
    query: tuple[int, int] | None,
) -> Explained:
    """Map the attention of the class token, or of the patch at a position in pixels of the file."""
    found = AttentionExplainer(loaded, tiles, BLOCKS[blocks_name], query=query)(fact, pixels)
    low, high = limits_of(found)
    source = "the class token" if found.query is None else f"the marked patch {found.query[0]}, {found.query[1]}"
    notes = []
    if found.query is not None and np.isnan(found.values).any():
        notes.append("Only patches of the tile around the marked one have attention.")
    if found.query is None and loaded.model.config.pooling == "avg":
        notes.append("This model describes an image by the mean of its patches, and does not use the class token.")
    notes.append("Attention shows which patches are combined. It does not prove that they cause a result.")
    return Explained(
        found,
        AttentionExplainer.unit,
        f"Attention of {source} to each patch, {blocks_name}, from {low:.2g} (clear) to {high:.2g} (bright). "
        f"{' '.join(notes)}",
    )


def _colours(loaded: Loaded, tiles: Tiles, fact: Fact, pixels: np.ndarray, only_structures: bool) -> Explained:
    """Map the principal components of the patches, fitted to the image alone.

    Raises:
        UserError: If there are fewer than three patches.
    """
    model = cast(StedFmModel, loaded.model.base_model)
    encoder = Encoder(model, loaded.processor, loaded.name, loaded.weights_sha256)
    tokens = patch_tokens(encoder, tiles, pixels).transpose(1, 2, 0)
    foreground = np.ones(tokens.shape[:2], bool)
    if only_structures:
        foreground = foreground_patches(pixels, tiles.patch_size)
    if foreground.sum() < 3:
        which = "patches with structures" if only_structures else "patches"
        raise UserError(f"the image has {foreground.sum()} {which}, and three colours need 3; choose a larger image")
    mode = "foreground" if only_structures else "none"
    pca = PatchPca.fit([tokens], mode=mode, foreground=[foreground], encoder=encoder)
    found = PcaExplainer(encoder, tiles, pca)(fact, pixels)
    left_out = " Patches without structures are left out." if only_structures else ""
    return Explained(
        found,
        PcaExplainer.unit,
        "The first three principal components of the patch tokens, in red, green and blue "
        f"({pca.explained_variance_ratio.sum():.0%} of the variance). Patches with similar colours are similar to the "
        f"model.{left_out} The components are fitted to this image: colours of different images cannot be compared.",
    )


def _write(
    folder: Path, image: OpenedImage, fact: Fact, pixels: np.ndarray, explained: Explained
) -> tuple[Path, Path, Path]:
    """Write the picture of the page, the map as float32 TIFF with one pixel per patch, and a figure."""
    found, name = explained.found, Path(image.name).stem
    view, tiff, figure = (folder / f"{name}{end}" for end in (".png", ".map.tif", ".figure.png"))
    height, width = image.plane.shape
    cell = found.cell * height / pixels.shape[1], found.cell * width / pixels.shape[2]
    over = at_pixels(np.rint(255 * map_colours(found)).astype(np.uint8), (height, width), cell)
    mark = None if found.query is None else (found.query[0] * cell[0], found.query[1] * cell[1], *cell)
    write_picture(view, image.plane, image.limits, image.pixel_width_nm, over=over, marked=mark)
    write_map_tiff(tiff, found.values, found.names, limits_of(found), cell, fact)
    write_figure(figure, fact, pixels, found, explained.unit)
    return view, tiff, figure
