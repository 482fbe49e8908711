"""Headers of NumPy files are read as NumPy reads them, one after the other."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.modeling.npy_stedfm import read_npy_header


def stored(array: np.ndarray, version: tuple[int, int] | None = None) -> io.BytesIO:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    stream.seek(0)
    return stream


@given(
    shape=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    dtype=st.sampled_from(["u1", "<u2", ">f4", "c16", "U3"]),
    order=st.sampled_from("CF"),
    version=st.sampled_from([(1, 0), (2, 0), (3, 0)]),
)
def test_headers_of_all_versions(shape: tuple[int, ...], dtype: str, order: Any, version: tuple[int, int]) -> None:
    array = np.zeros(shape, dtype, order=order)
    stream = stored(array, version)
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    assert read_npy_header(stream) == (shape, fortran, np.dtype(dtype))
    assert len(stream.read()) == array.nbytes


def test_a_header_that_declares_gigabytes_is_refused() -> None:
    with pytest.raises(ValueError):
        read_npy_header(io.BytesIO(b"\x93NUMPY\2\0" + b"\xff" * 4 + b" " * 100_000))


def test_headers_are_parsed_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    parsing, most = 0, 0
    parse = np.lib.format.read_array_header_1_0

    def observed(*arguments: Any) -> Any:
        nonlocal parsing, most
        parsing += 1
        most = max(most, parsing)
        time.sleep(0.001)
        found = parse(*arguments)
        parsing -= 1
        return found

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", observed)
    streams = [stored(np.zeros((2, 3))) for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(read_npy_header, streams))) == 40
    assert most == 1
