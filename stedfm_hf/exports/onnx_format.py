"""Export to ONNX: encoder, classifier and segmenter with dynamic batch, height and width."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from stedfm_hf.exports.comparing import Comparison, Outputs, compare, random_images, two_sizes
from stedfm_hf.exports.kinds import Kind, encoder_of, kind_of
from stedfm_hf.exports.runtimes import METADATA, ONNX_FILE, OnnxSession, Session, import_extra
from stedfm_hf.exports.transformers_format import folded_head
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification, StedFmPreTrainedModel

HEAD_FILE = "head.safetensors"
"""Weight and bias of the head of a classifier, for embeddings of images that are larger than a crop."""
OUTPUTS: dict[Kind, tuple[str, ...]] = {
    "encoder": ("last_hidden_state", "pooler_output"),
    "classifier": ("logits", "last_hidden_state"),
    "segmenter": ("logits",),
}
"""Outputs of the graph of every kind of model."""


def export_onnx(
    model: StedFmPreTrainedModel, folder: Path, *, weights_sha256: str, precision: str = "float32"
) -> Comparison:
    """Write a model for ONNX, and compare both models at two image sizes.

    The folder gets `model.onnx`, `config.json` and, for a classifier, its head in `head.safetensors`.

    Args:
        model: Model in float32, in evaluation mode; of a masked autoencoder the encoder is exported.
        folder: Existing folder to write.
        weights_sha256: SHA-256 of the weights, which is stored in the file.
        precision: `"float32"`, or `"int8"` for matrix products of 8-bit integers.

    Raises:
        UserError: If ONNX or onnxruntime is not installed.
    """
    path = folder / ONNX_FILE
    write_graph(model, path, {"weights_sha256": weights_sha256, "precision": "float32"})
    if precision == "int8":
        _quantize(path)
    write_settings(model, folder)
    return compare_session(model, OnnxSession(path))


def write_graph(model: StedFmPreTrainedModel, path: Path, facts: dict[str, str]) -> None:
    """Write the float32 graph of a model.

    Args:
        model: Model in float32, in evaluation mode.
        path: File to write.
        facts: Facts to store in the file; the kind of the model is added.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        import_extra(name, "onnx")
    graph = Graph(model)
    patch_size = model.config.patch_size
    (size, _), _ = two_sizes(model.config)
    # Unequal lengths, so that the exporter does not take one for another.
    example = torch.rand(2, model.config.num_channels, size + 2 * patch_size, size + 3 * patch_size)
    dynamic = {
        0: torch.export.Dim("batch"),
        2: patch_size * torch.export.Dim("rows"),
        3: patch_size * torch.export.Dim("cols"),
    }
    with _quiet_exporter():
        program: Any = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            input_names=["pixel_values"],
            output_names=list(OUTPUTS[graph.kind]),
            dynamic_shapes=(dynamic,),
            verbose=False,
        )
    stored = {**facts, "kind": graph.kind}
    program.model.metadata_props.update({f"{METADATA}.{name}": value for name, value in stored.items()})
    program.save(path, external_data=False)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide warnings of the exporter, of which none is about the model: it names operators of torchvision, for one."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def write_settings(model: StedFmPreTrainedModel, folder: Path) -> None:
    """Write the configuration, and the head of a classifier.

    Args:
        model: Exported model.
        folder: Folder to write.
    """
    exported = encoder_of(model) if kind_of(model) == "pretraining" else model
    config = copy.deepcopy(model.config)
    config.architectures = [type(exported).__name__]
    for name in ("auto_map", "custom_pipelines"):  # there is no code in the folder
        config.__dict__.pop(name, None)
    config.to_json_file(folder / "config.json", use_diff=True)
    if isinstance(model, StedFmForImageClassification):
        weight, bias = folded_head(model.classifier)
        save_file({"weight": weight, "bias": bias}, folder / HEAD_FILE)


def compare_session(model: StedFmPreTrainedModel, session: Session) -> Comparison:
    """Compare an exported model with the original, at two image sizes.

    Args:
        model: Model in float32, in evaluation mode.
        session: Exported model.
    """
    kind = exported_kind(model)

    def reference(images: torch.Tensor) -> Outputs:
        return dict(zip(OUTPUTS[kind], outputs_of(model, kind, images), strict=True))

    return compare(
        reference,
        lambda images: session.run(images, OUTPUTS[kind]),
        random_images(model.config, two_sizes(model.config)),
    )


def exported_kind(model: StedFmPreTrainedModel) -> Kind:
    """Return the kind of the export of a model: an encoder for a masked autoencoder, else that of the model."""
    kind = kind_of(model)
    return "encoder" if kind == "pretraining" else kind


def outputs_of(model: Any, kind: Kind, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the tensors of `OUTPUTS` of a model, for images (B, C, H, W)."""
    if kind == "segmenter":
        return (model(pixel_values).logits,)
    encoder = encoder_of(model)
    output = encoder(pixel_values)
    if kind == "encoder":
        return output.last_hidden_state, output.pooler_output
    return model.classify(output.pooler_output), output.last_hidden_state


def _quantize(path: Path) -> None:
    """Replace the matrix products with weights by products of 8-bit integers, with the scale of each batch."""
    onnx, quantization = import_extra("onnx", "onnx"), import_extra("onnxruntime.quantization", "onnx")
    preprocessing = import_extra("onnxruntime.quantization.shape_inference", "onnx")
    prepared = path.with_name(f"prepared-{path.name}")
    preprocessing.quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantization.quantize_dynamic(
        prepared,
        path,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        # 7 bits: with 8, CPUs without VNNI instructions saturate sums.
        reduce_range=True,
        extra_options={"MatMulConstBOnly": True},
    )
    prepared.unlink()
    model = onnx.load(path)
    for each in model.metadata_props:
        if each.key == f"{METADATA}.precision":
            each.value = "int8"
    onnx.save(model, path)


class Graph(nn.Module):
    """Model as a function of images that returns the tensors of `OUTPUTS`.

    Args:
        model: Model to export; of a masked autoencoder the encoder is taken. It is not changed.
    """

    def __init__(self, model: StedFmPreTrainedModel) -> None:
        super().__init__()
        self.kind = exported_kind(model)
        network: Any = encoder_of(model) if self.kind == "encoder" else model
        # Frozen, so that the exporter records no gradients.
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        _replace_pooling(self.network)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs for images (B, C, H, W)."""
        return outputs_of(self.network, self.kind, pixel_values)


def matrix_pool(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Pool maps (B, C, h, w) adaptively to (B, C, size, size), as two matrix products.

    The exporter would fix the windows of `nn.AdaptiveAvgPool2d` to the size of its example.

    Args:
        maps: Maps of any size.
        size: Height and width of the result.

    Example:
        >>> maps = torch.rand(1, 2, 5, 7)
        >>> torch.allclose(matrix_pool(maps, 3), nn.AdaptiveAvgPool2d(3)(maps))
        True
    """
    rows, cols = (_windows(maps, axis, size) for axis in (2, 3))
    return rows @ maps @ cols.transpose(0, 1)


def _windows(maps: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """Return the weights (size, n) of windows of an axis: from floor(i * n / size) to ceil((i + 1) * n / size)."""
    length = maps.shape[axis]
    positions = torch.arange(length, device=maps.device)
    number = torch.arange(size, device=maps.device)
    start = number * length // size
    stop = ((number + 1) * length + size - 1) // size
    inside = (positions >= start[:, None]) & (positions < stop[:, None])
    return inside.to(maps.dtype) / (stop - start)[:, None].to(maps.dtype)


def _replace_pooling(network: nn.Module) -> None:
    """Compute the adaptive pooling of a network with `matrix_pool`."""
    for module in network.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d):
            assert isinstance(module.output_size, int), module.output_size
            # Not another module: the UperNet head keeps its modules in lists, too. The checker does not know that a
            # method of one object can be replaced.
            module.forward = partial(matrix_pool, size=module.output_size)  # type: ignore[method-assign]
