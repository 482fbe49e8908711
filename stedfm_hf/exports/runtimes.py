"""Import onnxruntime and OpenVINO without telemetry, and run exported models with them on the CPU."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from stedfm_hf.runs import UserError

ONNX_FILE, OPENVINO_FILE = "model.onnx", "model.xml"
METADATA = "stedfm"
"""Prefix of the facts that are stored in the file of an exported model."""


def import_extra(name: str, extra: str) -> Any:
    """Import a library of an extra, with the telemetry of onnxruntime and OpenVINO switched off.

    Both read these settings when they are imported, so they must be set before. They stay set, because both libraries
    also send later.

    Args:
        name: Name of the module.
        extra: Extra of this package that installs it.

    Raises:
        UserError: If it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # Its importers take a missing module as "do not send"; the package itself sends unless a file in the user's home
    # folder forbids it. Python takes None as a missing module; the type of `sys.modules` does not allow it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise UserError(f'{library} is not installed; pip install "stedfm-hf[{extra}]"') from error


@cache
def openvino_core() -> Any:
    """Return the core of OpenVINO, which lives until the process ends.

    When the last core is removed in another thread than the one that loaded the first model, OpenVINO leaves that
    thread without a stack for its signal handlers: the next signal, such as Ctrl-C, crashes the process.

    Raises:
        UserError: If OpenVINO is not installed.
    """
    return import_extra("openvino", "openvino").Core()


class Session(Protocol):
    """Exported model that is ready to run.

    Attributes:
        facts: Facts that the export stored: `precision`, `weights_sha256` and `kind`.
        outputs: Names of the outputs.
    """

    facts: dict[str, str]
    outputs: tuple[str, ...]

    def run(self, pixel_values: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Compute some outputs of images (B, C, H, W) float32."""
        ...


class OnnxSession:
    """Exported model that onnxruntime computes, with as many threads as torch uses (see `Session`).

    Args:
        path: File `model.onnx`.
    """

    def __init__(self, path: Path) -> None:
        runtime = import_extra("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Waiting threads that spin slow down other programs; see stedfm_hf.runs.threads.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        stored = self.session.get_modelmeta().custom_metadata_map
        self.facts = {
            name.removeprefix(f"{METADATA}."): value
            for name, value in stored.items()
            if name.startswith(f"{METADATA}.")
        }
        self.outputs = tuple(each.name for each in self.session.get_outputs())

    def run(self, pixel_values: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Compute some outputs of images (B, C, H, W) float32."""
        values = self.session.run(list(names), {"pixel_values": np.ascontiguousarray(pixel_values.numpy())})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


class OpenVinoSession:
    """Exported model that OpenVINO computes, with as many threads as torch uses (see `Session`).

    Args:
        path: File `model.xml`.
    """

    def __init__(self, path: Path) -> None:
        core = openvino_core()
        model = core.read_model(path)
        self.facts = {name: value.astype(str) for name, value in model.get_rt_info(METADATA).astype(dict).items()}
        settings = {
            # On CPUs with bfloat16, OpenVINO would use it without being asked.
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self.facts["precision"]],
            # Several requests at a time, each on a part of the cores: a tenth faster than one on all of them.
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self.compiled = core.compile_model(model, "CPU", settings)
        count = self.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self.requests = [self.compiled.create_infer_request() for _ in range(count)]
        self.outputs = tuple(each.get_any_name() for each in self.compiled.outputs)

    def run(self, pixel_values: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Compute some outputs of images (B, C, H, W) float32."""
        parts = np.array_split(pixel_values.numpy(), min(len(self.requests), len(pixel_values)))
        # Held in a variable: the requests read the memory of the inputs.
        inputs = [np.ascontiguousarray(part) for part in parts]
        used = self.requests[: len(inputs)]
        for request, part in zip(used, inputs, strict=True):
            request.start_async({"pixel_values": part}, share_inputs=True)
        for request in used:
            request.wait()
        found = {name: [request.get_tensor(name).data for request in used] for name in names}
        # Copies, because the next call writes into the same memory.
        return {name: torch.from_numpy(np.concatenate(each)) for name, each in found.items()}
