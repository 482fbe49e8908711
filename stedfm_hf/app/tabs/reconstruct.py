"""Tab `Reconstruct`: hide patches of the image, and predict them with the masked autoencoder."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import numpy as np

from stedfm_hf.app.page import Page, Updates, cells, downloads, listed, opened, picture
from stedfm_hf.app.viewing import write_picture
from stedfm_hf.app.visits import Visit
from stedfm_hf.inference.plane_files import new_planes
from stedfm_hf.inference.reconstruction import hidden_errors, reconstruct_image
from stedfm_hf.reports.figures import display_limits


def add_reconstruct(page: Page) -> None:
    """Add the tab.

    Args:
        page: The page.
    """
    autoencoder = page.models.autoencoder
    gr.Markdown("Hide a part of the image, and let the model predict it from the rest.")
    if autoencoder is None:
        gr.Markdown(
            f"The model of this app, {page.models.encoder.name}, has no decoder for pixels. Start the app with a "
            "model of `stedfm pretrain` or `stedfm convert`: `stedfm app --model ./stedfm-vit-small`."
        )
        return
    config = autoencoder.model.config
    with gr.Row():
        ratio = gr.Slider(10, 90, value=round(100 * config.mask_ratio), step=5, label="Hidden patches (%)", buttons=[])
        seed = gr.Number(0, label="Random seed of the mask", precision=0, minimum=0, maximum=2**31 - 1)
    button = gr.Button("Reconstruct", variant="primary", size="md")
    message = page.message()
    with page.result("image") as result:
        with gr.Row():
            seen = picture("Visible patches", "The image with its hidden patches in blue", elem_id="seen")
            predicted = picture("Reconstruction", "The image with the predicted patches", elem_id="reconstruction")
        summary = gr.HTML(container=False, elem_id="reconstruct-summary")
        files = downloads()

    def run(visit: Visit, percent: float, number: float | None) -> Updates:
        """Reconstruct the image; the TIFF has the planes image, mask and reconstruction."""
        image = opened(visit)
        filled = reconstruct_image(
            autoencoder, image.for_model(config.num_channels), seed=int(number or 0), mask_ratio=percent / 100
        )
        limits = display_limits(filled.original)
        hidden = np.ma.getmaskarray(filled.seen)
        width, name = image.pixel_width_nm, Path(image.name).stem
        with visit.new_folder("reconstruct") as folder:
            pictures = folder / f"{name}.visible.png", folder / f"{name}.reconstruction.png"
            write_picture(pictures[0], filled.original, limits, width, hidden=hidden)
            write_picture(pictures[1], filled.predicted, limits, width)
            tiff = folder / f"{name}.reconstruction.tif"
            planes = np.stack([filled.original, hidden, filled.predicted])
            with new_planes(
                tiff,
                planes.shape,
                np.float32,
                names=["image", "hidden", "reconstruction"],
                limits=(0, 1),
                pixel_size_nm=image.image.pixel_size_nm,
                about={"path": image.name, "seed": int(number or 0), "mask_ratio": percent / 100} | _model(page),
            ) as output:
                output.write(0, planes)
        error, constant = hidden_errors(filled)
        return {
            seen: str(pictures[0]),
            predicted: str(pictures[1]),
            summary: cells(
                f"Mean squared error of the hidden pixels, scaled to [0, 1]: {error:.4f}. Predicting the mean of the "
                f"visible pixels everywhere has {constant:.4f}."
            ),
            files: listed(tiff, pictures[1]),
        }

    page.on(
        [button.click], run, [ratio, seed], [seen, predicted, summary, files], message, computes=True, shows=result
    )


def _model(page: Page) -> dict[str, str]:
    encoder = page.models.encoder
    return {"model": encoder.name, "weights_sha256": encoder.weights_sha256}
