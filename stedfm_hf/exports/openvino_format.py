"""Export to OpenVINO: encoder, classifier and segmenter with dynamic batch, height and width."""

from __future__ import annotations

import tempfile
from pathlib import Path

from stedfm_hf.exports.comparing import Comparison
from stedfm_hf.exports.onnx_format import compare_session, exported_kind, write_graph, write_settings
from stedfm_hf.exports.runtimes import METADATA, OPENVINO_FILE, OpenVinoSession, import_extra, openvino_core
from stedfm_hf.modeling.modeling_stedfm import StedFmPreTrainedModel


def export_openvino(
    model: StedFmPreTrainedModel, folder: Path, *, weights_sha256: str, precision: str = "float32"
) -> Comparison:
    """Write a model for OpenVINO, and compare both models at two image sizes.

    The folder gets `model.xml`, `model.bin`, `config.json` and, for a classifier, its head in `head.safetensors`. The
    weights stay float32 in both precisions: OpenVINO computes in the precision that its user asks for, and
    `OpenVinoSession` asks for the stored one.

    Args:
        model: Model in float32, in evaluation mode; of a masked autoencoder the encoder is exported.
        folder: Existing folder to write.
        weights_sha256: SHA-256 of the weights, which is stored in the file.
        precision: `"float32"` or `"bfloat16"`.

    Raises:
        UserError: If OpenVINO or ONNX is not installed.
    """
    openvino = import_extra("openvino", "openvino")
    with tempfile.TemporaryDirectory(prefix="stedfm-export-") as work:
        path = Path(work, "model.onnx")
        write_graph(model, path, {})
        found = openvino_core().read_model(path)
        facts = {"weights_sha256": weights_sha256, "precision": precision, "kind": exported_kind(model)}
        for name, value in facts.items():
            found.set_rt_info(value, [METADATA, name])
        openvino.save_model(found, folder / OPENVINO_FILE, compress_to_fp16=False)
        del found  # it maps the file, which Windows then does not remove
    write_settings(model, folder)
    return compare_session(model, OpenVinoSession(folder / OPENVINO_FILE))
