"""Write the folder of an export: weights or graph, settings of the processor, and a README with code to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stedfm_hf.exports.comparing import Comparison
from stedfm_hf.exports.kinds import kind_of
from stedfm_hf.exports.readmes import ReadmeFacts, render_readme
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm import StedFmPreTrainedModel
from stedfm_hf.runs import write_json

PROCESSOR = "preprocessor_config.json"


def write_export(
    model: StedFmPreTrainedModel,
    processor: StedFmImageProcessor,
    folder: Path,
    *,
    format: str,
    name: str,
    title: str,
    weights_sha256: str,
    precision: str = "float32",
    image_size: int | None = None,
    licence: str | None = None,
) -> dict[str, Any]:
    """Write a model in a format, compare both models, and write a README.

    Args:
        model: Model in float32, on the CPU, in evaluation mode.
        processor: Image processor of the model.
        folder: Existing folder to write.
        format: `transformers`, `timm`, `onnx`, `openvino` or `bioimageio`.
        name: Name of the model.
        title: Name of the export.
        weights_sha256: SHA-256 of the weights of the model.
        precision: Precision of the export.
        image_size: Image size of the position table, in pixels, for transformers and timm.
        licence: Licence of the weights, or None if it is unknown.

    Returns:
        Facts for the manifest: description, comparison in words and in numbers.

    Raises:
        UserError: If the format cannot express the model, a library is missing, or the export differs from the model.
    """
    if format == "bioimageio":
        from stedfm_hf.exports.bioimageio_format import export_bioimageio

        comparison = export_bioimageio(
            model, processor, folder, name=name, title=title, weights_sha256=weights_sha256, licence=licence
        )
        return _facts("segmenter for bioimage.io", folder, comparison)
    class_name, how, comparison = _write(model, folder, format, weights_sha256, precision, image_size)
    comparison.check(precision)
    if format in ("onnx", "openvino"):
        write_processor(processor, folder)
    facts = ReadmeFacts(
        title=title,
        name=name,
        weights_sha256=weights_sha256,
        format=format,
        kind=kind_of(model),
        class_name=class_name,
        precision=precision,
        image_size=model.config.image_size if image_size is None else image_size,
        config=model.config,
        processor=processor,
        comparison=comparison,
        licence=licence,
    )
    (folder / "README.md").write_text(render_readme(facts), encoding="utf-8", newline="\n")
    return _facts(f"{class_name} for {format}, {precision}", folder, comparison, how)


def _facts(what: str, folder: Path, comparison: Comparison, how: str = "") -> dict[str, Any]:
    """Return the facts for the manifest; `how` is a note on the comparison."""
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    return {
        "described": f"{what}, {size:.1f} MB",
        "comparison": f"{comparison.describe()}{how}",
        **comparison.record(),
    }


def _write(
    model: StedFmPreTrainedModel,
    folder: Path,
    format: str,
    weights_sha256: str,
    precision: str,
    image_size: int | None,
) -> tuple[str, str, Comparison]:
    """Write the files of a format; return the name of the class, a note on the comparison, and the comparison."""
    # Each format is imported when it is written: the libraries of the others may be missing.
    if format == "transformers":
        from stedfm_hf.exports.transformers_format import export_transformers

        name, comparison = export_transformers(model, folder, image_size=image_size)
        return name, "", comparison
    if format == "timm":
        from stedfm_hf.exports.timm_format import ARCHITECTURE, export_timm

        how, comparison = export_timm(model, folder, image_size=image_size)
        return ARCHITECTURE, f" ({how})", comparison
    if format == "onnx":
        from stedfm_hf.exports.onnx_format import export_onnx, exported_kind

        comparison = export_onnx(model, folder, weights_sha256=weights_sha256, precision=precision)
        return exported_kind(model), "", comparison
    from stedfm_hf.exports.onnx_format import exported_kind
    from stedfm_hf.exports.openvino_format import export_openvino

    comparison = export_openvino(model, folder, weights_sha256=weights_sha256, precision=precision)
    return exported_kind(model), "", comparison


def write_processor(processor: StedFmImageProcessor, folder: Path) -> None:
    """Write the settings of the processor, without the code files that `save_pretrained` would add."""
    settings = processor.to_dict()
    settings.pop("auto_map", None)
    write_json(folder / PROCESSOR, settings)
