from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from stedfm_hf.runs.pickle_detection import is_pickle

VALUES = st.recursive(
    st.none() | st.integers() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
)


class Runs:
    """Its pickle calls a function when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("opened",)


@given(VALUES, st.integers(0, 5))
def test_pickles_of_all_protocols_are_found(
    tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int
) -> None:
    file = tmp_path_factory.mktemp("pickle") / "notes.dat"
    file.write_bytes(pickle.dumps(value, protocol))
    assert is_pickle(file)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_found_before_other_bytes(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "notes.dat"
    file.write_bytes(pickle.dumps(Runs(), protocol) + b"\nmore\n")
    assert is_pickle(file)


def test_a_pickle_with_a_brace_in_the_place_of_a_header_is_found(tmp_path: Path) -> None:
    content = pickle.dumps("a{1: 2}", protocol=2)
    assert content[8:9] == b"{"
    (tmp_path / "notes.dat").write_bytes(content)
    assert is_pickle(tmp_path / "notes.dat")


def zipped(content: bytes, name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def test_pickles_in_zips_and_arrays_are_found(tmp_path: Path) -> None:
    (tmp_path / "nested.dat").write_bytes(zipped(zipped(pickle.dumps(1), "notes"), "inner.zip"))
    (tmp_path / "named.zip").write_bytes(zipped(b"", "archive/data.pkl"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.data")
    np.save(tmp_path / "a.npy", np.array([None]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([None]))
    assert [path.name for path in tmp_path.iterdir() if not is_pickle(path)] == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b".",
        b"cat\ndog\n.gitignore\n",
        b"PK\x03\x04 damaged",
        b"\x93NUMPY damaged",
        b"class A:\n    pass\n",
        b"I am.\n",
    ],
)
def test_other_files_are_not_pickles(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.dat").write_bytes(content)
    assert not is_pickle(tmp_path / "file.dat")


@given(st.text())
def test_texts_with_a_line_end_are_not_pickles(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("text") / "notes.txt"
    file.write_text(text + "\n", encoding="utf-8")
    assert not is_pickle(file)


def test_weights_and_tables_are_not_pickles(tmp_path: Path) -> None:
    for length in (1, 40, 128):  # the header of 128 bytes and more begins with other bytes
        save_file({"a" * length: np.zeros(3)}, tmp_path / f"{length}.safetensors")
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    (tmp_path / "model.bin").write_bytes(np.random.default_rng(0).normal(size=1000).tobytes())
    (tmp_path / "model.xml").write_text("<net/>")
    assert [path.name for path in tmp_path.iterdir() if is_pickle(path)] == []
