"""Backends that compute a model, and the precisions of each. Imports neither torch nor the libraries."""

from __future__ import annotations

from importlib.util import find_spec

from stedfm_hf.runs import UserError
from stedfm_hf.runs.options import BACKENDS

EXPORT_PRECISIONS = {"onnx": ("float32", "int8"), "openvino": ("float32", "bfloat16"), "bioimageio": ("float32",)}
"""Precisions of the exports that are graphs."""
LIBRARIES = {
    "onnx": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
    "bioimageio": ("bioimageio", "onnxruntime", "onnx", "onnxscript"),
}
"""Modules that are needed to export a model and to run it."""


def check_backend(backend: str, precision: str = "float32", device: str = "auto") -> None:
    """Refuse a backend with a precision or device that it does not have, or whose library is not installed.

    Args:
        backend: `torch`, `onnx` or `openvino`.
        precision: Precision, or `auto`.
        device: Device, or `auto`.

    Raises:
        UserError: If the combination is not possible, or a library is missing.

    Example:
        >>> check_backend("torch", "bfloat16", "cuda")
        >>> try:
        ...     check_backend("torch", "int8")
        ... except UserError as error:
        ...     print(error)
        precision int8 needs the backend onnx; add --backend onnx
    """
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r} is unknown; choose {', '.join(BACKENDS)}")
    if backend == "torch":
        if precision == "int8":
            raise UserError("precision int8 needs the backend onnx; add --backend onnx")
        return
    check_export_precision(backend, precision)
    if not set(device.split(",")) <= {"auto", "cpu"}:
        raise UserError(f"the backend {backend} runs on the CPU; remove --device {device}, or use --backend torch")
    check_libraries(backend)


def check_export_precision(backend: str, precision: str) -> None:
    """Refuse a precision that the exports for a backend do not have; `auto` is possible everywhere.

    Raises:
        UserError: If the precision is not possible.
    """
    known = EXPORT_PRECISIONS[backend]
    if precision not in ("auto", *known):
        raise UserError(f"{backend} has no precision {precision}; choose {' or '.join(known)}")


def check_libraries(backend: str) -> None:
    """Refuse a backend whose libraries are not installed.

    Raises:
        UserError: If one is missing; the message names the extra that installs it.
    """
    for name in LIBRARIES[backend]:
        if find_spec(name) is None:
            raise UserError(f'{name} is not installed; pip install "stedfm-hf[{backend}]"')
