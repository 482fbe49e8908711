"""Tiny models of several architectures, with weights that are not at their initial values, and their graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from stedfm_hf.exports.kinds import encoder_of
from stedfm_hf.exports.onnx_format import exported_kind, write_graph
from stedfm_hf.exports.runtimes import METADATA
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from tests.models import tiny_config

ARCHITECTURE_CHANGES: dict[str, dict[str, Any]] = {
    "64-p8": {**ARCHITECTURES["stedfm-vit-64-p8"], "num_hidden_layers": 2},
    "tiny-p16": {**ARCHITECTURES["stedfm-vit-tiny"], "image_size": 64, "patch_size": 16, "num_hidden_layers": 2},
}
"""Sizes of `stedfm-vit-64-p8` and of the family with patches of 16 pixels, with two layers."""


def trained(model_class: type[Any], architecture: str = "64-p8", **changes: Any) -> Any:
    """Return a model in evaluation mode, all of whose weights and statistics differ from their initial values."""
    torch.manual_seed(0)
    model = model_class(tiny_config(**{**ARCHITECTURE_CHANGES[architecture], **changes}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value += 0.1 * torch.rand(value.shape, generator=generator) - 0.05
    return model.eval()


def difference(found: Any, expected: Any) -> float:
    """Return the largest absolute difference of two tensors of equal shape."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().max())


_GRAPHS: dict[str, bytes] = {}
"""Files that `write_graph` wrote, by the kind and the weights of the model."""


@contextmanager
def shared_graphs() -> Iterator[None]:
    """Export the graph of a model once for all tests while the block runs: the exporter of torch takes 6 seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("onnx_format", "openvino_format", "bioimageio_format"):
            patch.setattr(f"stedfm_hf.exports.{module}.write_graph", _write_once)
        yield


def _write_once(model: Any, path: Path, facts: dict[str, str]) -> None:
    """Write the graph of a model with facts, as `write_graph` does."""
    import onnx

    kind = exported_kind(model)
    network = encoder_of(model) if kind == "encoder" else model
    digest = hashlib.sha256(f"{kind} {network}".encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    if (key := digest.hexdigest()) not in _GRAPHS:
        write_graph(model, path, facts)
        _GRAPHS[key] = path.read_bytes()
        return
    graph = onnx.load_from_string(_GRAPHS[key])
    stored = {**facts, "kind": kind}
    onnx.helper.set_model_props(graph, {f"{METADATA}.{name}": value for name, value in stored.items()})
    onnx.save(graph, path)
