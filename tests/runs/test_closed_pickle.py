from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.runs.closed_pickle import ClosedUnpickler, Placeholder

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
PLAIN = st.recursive(
    SCALARS | st.binary(max_size=8),
    lambda children: (
        st.lists(children, max_size=4)
        | st.tuples(children, children)
        | st.dictionaries(SCALARS, children, max_size=4)
        | st.sets(SCALARS, max_size=4)
    ),
    max_leaves=12,
)
PROTOCOLS = st.integers(0, pickle.HIGHEST_PROTOCOL)


@given(PLAIN, PROTOCOLS)
def test_plain_data_comes_back_as_it_was(value: Any, protocol: int) -> None:
    unpickler = ClosedUnpickler(pickle.dumps(value, protocol))
    assert unpickler.load() == value and not unpickler.placeholders


@given(PLAIN, PROTOCOLS, st.data())
def test_broken_streams_end_in_a_plain_error(value: Any, protocol: int, data: st.DataObject) -> None:
    array = np.empty((), object)
    array[()] = value
    stream = bytearray(pickle.dumps(array, protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        ClosedUnpickler(bytes(stream)).load()
    except (ValueError, TypeError, LookupError, RuntimeError, OverflowError):
        pass


@given(PLAIN, PROTOCOLS, st.sampled_from([(), (1,), (2, 3)]))
def test_arrays_of_objects_hold_what_they_held(value: Any, protocol: int, shape: tuple[int, ...]) -> None:
    array = np.empty(shape, object)
    array.fill(value)
    unpickler = ClosedUnpickler(pickle.dumps({"a": array}, protocol))
    found = unpickler.load()["a"]
    assert found.shape == shape and found.dtype == object and not unpickler.placeholders
    assert all(item == value for item in found.flat)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_and_texts_of_numpy(protocol: int) -> None:
    value: dict[str, Any] = {
        "scalars": [np.float64(0.25), np.int32(-3), np.bool_(True), np.str_("STED"), np.bytes_(b"ab")],
        "arrays": [np.arange(6, dtype=np.uint16).reshape(2, 3), np.array(["a", "bcd"]), np.asfortranarray(np.eye(3))],
        "ordered": OrderedDict(a=1),
        "default": defaultdict(list, b=[2]),
    }
    unpickler = ClosedUnpickler(pickle.dumps(value, protocol))
    found = unpickler.load()
    assert not unpickler.placeholders
    assert found["scalars"] == value["scalars"] and found["ordered"] == {"a": 1} and found["default"] == {"b": [2]}
    for one, other in zip(found["arrays"], value["arrays"], strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("claimed", [b"K\x03", b"K\x00", b"J\xff\xff\xff\xff"])
def test_an_array_of_objects_cannot_claim_more_than_it_holds(claimed: bytes) -> None:
    """NumPy would read on behind the list."""
    array = np.empty(2, object)
    stream = pickle.dumps(array, 2)
    assert stream.count(b"K\x02\x85") == 1
    with pytest.raises(ValueError, match="does not fit its shape"):
        ClosedUnpickler(stream.replace(b"K\x02\x85", claimed + b"\x85")).load()


@pytest.mark.parametrize("content", [b"N", b"]", b"U\x08" + bytes(8)])
def test_an_array_of_objects_is_made_of_no_bytes(content: bytes) -> None:
    stream = pickle.dumps(np.empty(1, object), 2)
    assert b"]NaX" not in stream and stream.count(b"]") == 1
    start = stream.index(b"]")
    end = stream.index(b"t", start)
    with pytest.raises(ValueError, match="an array"):
        ClosedUnpickler(stream[:start] + content + stream[end:]).load()


def test_other_objects_are_named_and_inert() -> None:
    unpickler = ClosedUnpickler(pickle.dumps({"run": os.system, "stream": io.BytesIO(b"x")}))
    found = unpickler.load()
    assert isinstance(found["run"], Placeholder) and isinstance(found["stream"], Placeholder)
    assert unpickler.placeholders == {f"{os.system.__module__}.system", "_io.BytesIO"}


def test_plain_data_has_nothing_outside_the_stream() -> None:
    with pytest.raises(ValueError, match="outside"):
        ClosedUnpickler(b"\x80\x02K\x01Q.").load()
