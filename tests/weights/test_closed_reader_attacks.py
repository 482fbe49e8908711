"""Hostile checkpoints: each stream is shown to work on Python's own unpickler, and to do nothing to ours."""

from __future__ import annotations

import argparse
import collections
import copyreg
import functools
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stedfm_hf.runs.errors import UserError
from stedfm_hf.weights.checkpoints import read_checkpoint
from stedfm_hf.weights.torch_pickle import TorchUnpickler

EXTENSION = 240


class Call:
    """Pickles as a call of `function(*arguments)` that happens when the stream is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.recipe = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.recipe


def dumps(value: Any, protocol: int = 2) -> bytes:
    return pickle.dumps({"state_dict": value}, protocol=protocol)


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def load_of_another_file(sentinel: str) -> bytes:
    inner = Path(sentinel).with_name("inner.pth")
    torch.save(Call(os.makedirs, sentinel), inner)
    return dumps(Call(functools.partial(torch.load, weights_only=False), str(inner)))


def object_array(sentinel: str) -> bytes:
    array = np.empty(1, dtype=object)
    array[0] = Call(os.makedirs, sentinel)
    return dumps(array)


def namespace_with(attribute: str) -> bytes:
    """A stream that makes an `argparse.Namespace` whose `attribute` is `os.makedirs`."""
    return b"\x80\x02cargparse\nNamespace\n)\x81}" + text(attribute) + b"cos\nmakedirs\nsb"


MAKEDIRS = b"cos\nmakedirs\n"
ATTACKS: dict[str, Callable[[str], bytes]] = {
    "os.system by REDUCE": lambda s: dumps(Call(os.system, f'echo ran > "{s}"')),
    "os.makedirs by REDUCE, protocol 0": lambda s: dumps(Call(os.makedirs, s), 0),
    "os.makedirs by REDUCE, protocol 5": lambda s: dumps(Call(os.makedirs, s), 5),
    "eval": lambda s: dumps(Call(eval, f"__import__('os').makedirs({s!r})")),
    "exec": lambda s: dumps(Call(exec, f"import os; os.makedirs({s!r})")),
    "getattr of a bound method": lambda s: dumps(Call(Path(s).mkdir), 4),
    "open": lambda s: dumps(Call(io.open, s, "w")),
    "pickle.loads": lambda s: dumps(Call(pickle.loads, pickle.dumps(Call(os.makedirs, s)))),
    "torch.load of another file": load_of_another_file,
    "in the arguments of a tensor": lambda s: dumps(
        Call(torch._utils._rebuild_tensor_v2, Call(os.makedirs, s), 0, (1,), (1,), False, None)
    ),
    "in the arguments of a container": lambda s: dumps(
        Call(collections.OrderedDict, [("weight", Call(os.makedirs, s))])
    ),
    "in an object array": object_array,
    "BUILD with a planted __setstate__": lambda s: namespace_with("__setstate__") + text(s) + b"b.",
    "APPEND with a planted append": lambda s: namespace_with("append") + text(s) + b"a.",
    "APPENDS with a planted append": lambda s: namespace_with("append") + b"(" + text(s) + b"e.",
    "INST": lambda s: b"(V" + s.encode() + b"\nios\nmakedirs\n.",
    "OBJ": lambda s: b"(" + MAKEDIRS + text(s) + b"o.",
    "dotted name in protocol 4": lambda s: (
        b"\x80\x04" + text("torch") + text("os.makedirs") + b"\x93" + text(s) + b"\x85R."
    ),
    "extension registry": lambda s: b"\x80\x02\x82" + bytes([EXTENSION]) + text(s) + b"\x85R.",
    "in a persistent id": lambda s: (
        b"\x80\x02(" + text("storage") + MAKEDIRS + text(s) + b"\x85R" + text("0") + text("cpu") + b"K\x04tQ."
    ),
}


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """A path that exists as soon as an attack has run."""
    copyreg.add_extension("os", "mkdir", EXTENSION)  # not makedirs: the other attacks are to name it
    yield tmp_path / "ran"
    copyreg.remove_extension("os", "mkdir", EXTENSION)


def write_archive(path: Path, stream: bytes) -> Path:
    """A file as `torch.save` writes it, around any pickle stream."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", bytes(16))
        archive.writestr("archive/version", "3\n")
    return path


class TrustingUnpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        return pid


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_runs(name: str, sentinel: Path, tmp_path: Path) -> None:
    stream = ATTACKS[name](str(sentinel))
    try:
        TrustingUnpickler(io.BytesIO(stream)).load()
    except Exception:  # what matters is what happened on the way
        pass
    assert sentinel.exists(), "the attack is harmless even to Python's unpickler: it tests nothing"
    shutil.rmtree(sentinel) if sentinel.is_dir() else sentinel.unlink()

    for path in (write_archive(tmp_path / "archive.pth", stream), tmp_path / "bare.pth"):
        if path.name == "bare.pth":
            path.write_bytes(stream)
        try:
            read_checkpoint(path)
        except UserError as error:
            assert path.name in str(error) and "\n" not in str(error)
        assert not sentinel.exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_runs_even_without_the_first_line_of_defence(name: str, sentinel: Path) -> None:
    """The interpreter itself, without the `weights_only` attempt before it."""
    stream = ATTACKS[name](str(sentinel))
    unpickler = TorchUnpickler(stream, lambda dtype, key, numel: torch.zeros(numel, dtype=dtype))
    try:
        unpickler.load()
    except (ValueError, TypeError, LookupError, RuntimeError):
        pass
    assert not sentinel.exists()


def test_a_hostile_default_factory_is_dropped(tmp_path: Path, sentinel: Path) -> None:
    stats: collections.defaultdict[str, Any] = collections.defaultdict(functools.partial(os.makedirs, str(sentinel)))
    stats["loss"] = 1.0
    path = tmp_path / "result.pt"
    torch.save({"stats": stats}, path)
    content = read_checkpoint(path)
    assert type(content["stats"]) is dict and content["stats"] == {"loss": 1.0}
    with pytest.raises(KeyError):
        content["stats"]["missing"]
    assert not sentinel.exists()
    assert content.placeholders == ("functools.partial", "os.makedirs")


def test_attacks_leave_no_trace_in_the_modules_they_name(tmp_path: Path) -> None:
    """BUILD on a class would set attributes of the real class, if the real class were ever reached."""
    stream = b"\x80\x02cargparse\nNamespace\n}" + text("planted") + text("value") + b"sb."
    with pytest.raises(UserError, match=r"argparse\.Namespace"):
        read_checkpoint(write_archive(tmp_path / "class.pth", stream))
    assert not hasattr(argparse.Namespace, "planted")
