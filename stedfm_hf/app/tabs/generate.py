"""Tab `Generate`: walk from the image along the direction of an attribute, with the attribute measured next to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from stedfm_hf.app.page import Page, Updates, cells, downloads, listed, opened, picture
from stedfm_hf.app.viewing import OpenedImage, write_picture
from stedfm_hf.app.visits import Visit
from stedfm_hf.generation.loading import LoadedPipeline
from stedfm_hf.generation.measures import MEASURES, PIXEL_SIZE_NM, measure_images
from stedfm_hf.generation.walks import Walk, walk_images
from stedfm_hf.inference.plane_files import new_planes
from stedfm_hf.reports.figures import middle
from stedfm_hf.runs import UserError

STEPS, DENOISING_STEPS = 7, 25
"""Number of images of a walk, and of denoising steps for each."""
RANGE = (5, 95)
"""Percentiles of the distances between which the walk leads."""
SHOWN = {
    "brightness": "brightness",
    "objects": "bright spots",
    "area": "area of a spot, px",
    "resolution_nm": "resolution, nm",
}
"""Measured attributes that are shown, with their names."""


def add_generate(page: Page) -> None:
    """Add the tab.

    Args:
        page: The page.
    """
    generator, directions = page.models.generator, page.models.directions
    if generator is None or not directions:
        gr.Markdown(
            "This app has nothing to generate images with. Train a pipeline, fit the direction of an attribute, and "
            "start the app with both:\n\n"
            "```\nstedfm pretrain generation --dataset my-crops --model demo --output my-pipeline\n"
            "stedfm attribute fit --dataset my-crops --model my-pipeline --output activity\n"
            "stedfm app --generator my-pipeline --directions activity\n```"
        )
        return
    size = generator.size_px
    gr.Markdown(
        f"See what an attribute looks like: the centre of your image ({size} × {size} pixels) is generated again "
        "while its embedding moves along the direction of the attribute. Generated images are not measurements: they "
        "show what the model has learnt."
    )
    names = list(directions)
    name = gr.Dropdown(names, value=names[0], label="Attribute", visible=len(names) > 1)
    button = gr.Button("Generate", variant="primary", size="md")
    message = page.message()
    with page.result("image") as result:
        slider = gr.Slider(1, STEPS, value=1, step=1, label="Position along the walk", buttons=[], elem_id="position")
        with gr.Row():
            original = picture("Your image", "The centre of the image", elem_id="walk-original")
            generated = picture("Generated", "The image at this position of the walk", elem_id="walk-generated")
        summary = gr.HTML(container=False, elem_id="generate-summary")
        files = downloads()
    walked = gr.State([])

    def run(visit: Visit, attribute: str) -> Updates:
        """Generate the images of the walk, and show the one whose embedding is nearest to that of the image."""
        image = opened(visit)
        made = _walk(image, generator, directions[attribute])
        nearest = int(np.abs(made.displacements[0]).argmin())
        width = image.pixel_width_nm
        with visit.new_folder("generate") as folder:
            limits = (0.0, max(float(np.percentile(made.originals, 99.8)), 1e-3))
            pictures = [folder / "image.png", *(folder / f"step-{step + 1}.png" for step in range(STEPS))]
            for path, pixels in zip(pictures, [made.originals[0], *made.images[0]], strict=True):
                write_picture(path, pixels, limits, width)
            tiff = _write_tiff(folder / f"{Path(image.name).stem}.walk.tif", made, image, generator)
        steps = [[str(path), text] for path, text in zip(pictures[1:], _texts(made, width), strict=True)]
        return {
            walked: steps,
            slider: gr.Slider(value=nearest + 1),
            original: str(pictures[0]),
            generated: steps[nearest][0],
            summary: steps[nearest][1],
            files: listed(tiff),
        }

    def show(_: Visit, position: float, steps: list[list[str]]) -> Updates:
        """Show the image at a position of the walk.

        Raises:
            UserError: If there is no walk.
        """
        if not steps:
            raise UserError("press Generate first")
        path, text = steps[round(position) - 1]
        return {generated: path, summary: text}

    outputs = [walked, slider, original, generated, summary, files]
    page.on([button.click], run, [name], outputs, message, computes=True, shows=result)
    page.on([slider.release], show, [slider, walked], [generated, summary], message)


def _walk(image: OpenedImage, generator: LoadedPipeline, direction: Any) -> Walk:
    """Walk from the centre of an image between two percentiles of the distances."""
    prepared = generator.encoder.processor.prepare(image.for_model(1))[0]
    if min(prepared.shape) < generator.size_px:
        raise UserError(
            f"{image.name}: has {prepared.shape[0]} × {prepared.shape[1]} pixels; the pipeline needs at least "
            f"{generator.size_px} × {generator.size_px}"
        )
    crop = middle(np.asarray(prepared, np.float32), generator.size_px)
    low, high = (direction.at_percentile(each) for each in RANGE)
    distances = np.linspace(low, high, STEPS)
    return walk_images(generator.pipeline, crop[None], direction, distances, num_inference_steps=DENOISING_STEPS)


def _texts(made: Walk, width_nm: float | None) -> list[str]:
    """Return the distances and the measured attributes at each step as HTML."""
    images = np.concatenate([made.originals, made.images[0]])
    measured = measure_images(images, pixel_size_nm=width_nm or PIXEL_SIZE_NM)
    columns = [MEASURES.index(each) for each in SHOWN]
    texts = []
    for step in range(made.images.shape[1]):
        facts = [
            f"{name}: {_number(measured[step + 1, column])} (your image: {_number(measured[0, column])})"
            for name, column in zip(SHOWN.values(), columns, strict=True)
        ]
        reached = f"Signed distance {made.wanted[0, step]:+.2f}, reached {made.reached[0, step]:+.2f}."
        texts.append(cells(f"{reached} Measured: {'; '.join(facts)}."))
    return texts


def _number(value: float) -> str:
    return "not defined" if np.isnan(value) else f"{value:.3g}"


def _write_tiff(path: Path, made: Walk, image: OpenedImage, generator: LoadedPipeline) -> Path:
    """Write the image and the generated images as a float32 TIFF."""
    planes = np.concatenate([made.originals, made.images[0]])
    with new_planes(
        path,
        planes.shape,
        np.float32,
        names=["image", *(f"distance {each:+.2f}" for each in made.wanted[0])],
        limits=(0, 1),
        pixel_size_nm=image.image.pixel_size_nm,
        about={"path": image.name, "model": generator.name},
    ) as output:
        output.write(0, planes)
    return path
