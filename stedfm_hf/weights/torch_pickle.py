"""Reader of pickle streams with tensors, as written by `torch.save`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from stedfm_hf.runs.closed_pickle import PLAIN_BUILDERS, ClosedUnpickler, Placeholder

__all__ = ["TorchUnpickler"]

_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


def _storage_dtype(name: str) -> torch.dtype | None:
    module, _, storage = name.rpartition(".")
    if storage == "UntypedStorage" and module in ("torch", "torch.storage"):
        return torch.uint8
    return _STORAGE_DTYPES.get(storage) if module in ("torch", "torch.cuda") else None


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    numbers = (offset, *size, *stride)
    if not isinstance(storage, torch.Tensor) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise ValueError("a tensor has an impossible shape")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)  # refuses numbers outside of the storage


def _parameter(tensor: Any, *_: Any) -> Any:
    if not isinstance(tensor, torch.Tensor):
        raise ValueError("a parameter does not hold a tensor")
    return tensor


class TorchUnpickler(ClosedUnpickler):
    """Reader of the tensors and plain data in one pickle stream.

    Args:
        data: Complete stream, of any pickle protocol.
        load_storage: Function that returns the flat tensor of a torch storage, given `(dtype, key, numel)`.

    Example:
        >>> import pickle
        >>> TorchUnpickler(pickle.dumps({"epoch": 3}), load_storage=lambda dtype, key, numel: torch.empty(0)).load()
        {'epoch': 3}
    """

    builders = PLAIN_BUILDERS | {
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch.Size": lambda sizes=(): tuple(sizes),
    }

    def __init__(self, data: bytes, load_storage: Callable[[torch.dtype, str, int], torch.Tensor]) -> None:
        super().__init__(data)
        self._load_storage = load_storage

    def knows(self, name: str) -> bool:
        """Return whether an object of this name is rebuilt without loss."""
        return super().knows(name) or _storage_dtype(name) is not None

    def persistent(self, persistent_id: Any) -> torch.Tensor:
        """Return the storage of a persistent id."""
        kind, storage_type, key, _, numel = persistent_id
        if kind != "storage" or not isinstance(storage_type, Placeholder) or not isinstance(numel, int) or numel < 0:
            raise ValueError("a persistent id is not a torch storage")
        dtype = _storage_dtype(storage_type.name)
        if dtype is None:
            raise ValueError(f"the storage type {storage_type.name} is not supported")
        if not isinstance(key, str):
            raise ValueError("the pickle holds an object where a name belongs")
        return self._load_storage(dtype, key, numel)
