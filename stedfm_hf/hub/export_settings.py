"""Settings of `export`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.exports.backends import EXPORT_PRECISIONS, check_export_precision, check_libraries
from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import argument, option, settings

FORMATS = ("transformers", "timm", "onnx", "openvino", "bioimageio")
FIXED_SIZE = ("transformers", "timm")
"""Formats whose models take one image size, because positions are stored in a table."""


@settings
class ExportSettings:
    """Export a model for other libraries and runtimes.

    The command runs both models on random images and prints the largest difference. The folder holds a README with
    the code that loads the model.
    """

    model: str | Path = argument(affects_result=False, help="Folder of a model, Hub id, or `demo`.")
    format: str = option(
        choices=FORMATS,
        help="Format to write: transformers (stock classes, without remote code), timm, onnx (onnxruntime), openvino, "
        "or bioimageio (a segmenter for Fiji, ilastik and napari).",
    )
    output: str | Path = option(affects_result=False, metavar="DIR", help="Folder to write.")
    encoder_only: bool = option(False, help="Export the encoder of a model without its decoder or head.")
    image_size: int | None = option(
        None,
        minimum=1,
        help="Image size of the position table for transformers and timm, in pixels; by default that of the model. "
        "onnx and openvino take every size.",
    )
    precision: str = option(
        "float32",
        choices=("float32", "int8", "bfloat16"),
        help="Floating-point or integer type in which the export computes; int8 for onnx, bfloat16 for openvino.",
    )
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse combinations that a format does not have, and formats whose libraries are not installed."""
        if self.format in FIXED_SIZE:
            if self.precision != "float32":
                formats = [each for each, known in EXPORT_PRECISIONS.items() if self.precision in known]
                raise UserError(
                    f"--format {self.format} has no precision {self.precision}; use --format {' or '.join(formats)}"
                )
            return
        if self.image_size is not None:
            raise UserError(f"--format {self.format} takes images of every size; remove --image-size")
        check_export_precision(self.format, self.precision)
        check_libraries(self.format)
