from __future__ import annotations

import math
import os
import stat
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.runs import UserError, atomic_path, read_json, sha256_file, write_json

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Crash(Exception):
    pass


@given(value=plain)
def test_json_comes_back_as_it_was_written(value: object) -> None:
    with TemporaryDirectory() as folder:
        write_json(Path(folder) / "value.json", value)
        assert read_json(Path(folder) / "value.json") == value


@given(old=st.none() | st.binary(), half=st.binary())
def test_a_crash_leaves_the_old_file_and_no_temporary_one(old: bytes | None, half: bytes) -> None:
    with TemporaryDirectory() as folder:
        target = Path(folder) / "table.parquet"
        if old is not None:
            target.write_bytes(old)
        with pytest.raises(Crash), atomic_path(target) as temporary:
            temporary.write_bytes(half)
            raise Crash
        assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == (
            {} if old is None else {"table.parquet": old}
        )


@given(old=st.none() | st.binary(), new=st.binary())
def test_a_finished_block_replaces_the_file(old: bytes | None, new: bytes) -> None:
    with TemporaryDirectory() as folder:
        target = Path(folder) / "table.parquet"
        if old is not None:
            target.write_bytes(old)
        with atomic_path(target) as temporary:
            assert temporary.suffix == ".parquet" and temporary.parent == Path(os.path.realpath(folder))
            temporary.write_bytes(new)
        assert [path.read_bytes() for path in Path(folder).iterdir()] == [new]


def test_ctrl_c_leaves_no_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old", encoding="utf-8")
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text(encoding="utf-8") == "old"


def test_parents_are_made_and_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b" / "c.json", 1)
    with pytest.raises(UserError, match=r"c\.json.*the folder cannot be made"):
        write_json(tmp_path / "a" / "b" / "c.json" / "d" / "e.json", 1)
    with pytest.raises(UserError, match="is a folder"):
        write_json(tmp_path / "a", 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_permissions_are_those_of_the_old_file_or_of_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    mask = os.umask(0o027)
    try:
        write_json(target, 1)
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        target.chmod(0o444)
        write_json(target, 2)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o444 and read_json(target) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a privilege on Windows")
def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "target.json")
    write_json(tmp_path / "link.json", [1])
    assert (tmp_path / "link.json").is_symlink() and read_json(tmp_path / "real" / "target.json") == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf, {"loss": -math.inf}])
def test_nan_is_refused_because_it_is_no_json(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_broken_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.json: cannot be read"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "half.json").write_bytes(b'{"a": \xff')
    with pytest.raises(UserError, match=r"half\.json: is not valid JSON"):
        read_json(tmp_path / "half.json")


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
