"""Resuming a build after an interruption, a kill or a full disk: nothing is lost or repeated."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf.data.assembly import assemble as assembly
from stedfm_hf.data.assembly import staging
from stedfm_hf.data.building import build as building
from stedfm_hf.data.building import reading
from stedfm_hf.images import read_series
from stedfm_hf.runs import UserError
from tests.data.building.small_fields import NO_SPLIT, bytes_of, make, reasons, rows_of, spots, write


def many(folder: Path, count: int = 40) -> Path:
    """Write the files of three parts, and one file that fails."""
    write(folder, **{f"{n:03d}": spots(100 + n, (64, 64)) for n in range(count)})
    (folder / "bad.tif").write_bytes(b"II*\x00rubbish")
    return folder


def test_workers_and_repeated_runs_make_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = many(tmp_path / "in")
    one = make(folder, tmp_path / "one", rows_per_shard=50)
    two = make(folder, tmp_path / "two", rows_per_shard=50, workers=2)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert one.manifest.items == two.manifest.items
    assert capsys.readouterr().err.count("error: bad.tif: ") == 2
    again = make(folder, tmp_path / "one", rows_per_shard=50)
    assert (again.crops, again.sources, again.labels) == (one.crops, one.sources, one.labels)
    assert again.manifest.items == one.manifest.items
    assert again.manifest.exit_status == 1
    assert "is finished; replace it with --overwrite" in capsys.readouterr().err


class Stopped(BaseException):
    pass


def stop_after(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, calls: int, error: BaseException) -> None:
    """Make a function raise an error after some calls."""
    function, count = getattr(module, name), [0]

    def stopping(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] > calls:
            raise error
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, stopping)


def test_an_interrupted_run_resumes_and_makes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = many(tmp_path / "in")
    make(folder, tmp_path / "whole")
    for module, name, calls in ((reading, "fit_scale", 20), (building, "write_part", 1), (assembly, "assemble", 0)):
        with monkeypatch.context() as patch:
            stop_after(patch, module, name, calls, Stopped())
            with pytest.raises(Stopped):
                make(folder, tmp_path / "out")
    written: list[str] = []
    write_part = reading.write_part

    def noting(where: staging.Staging, name: str, *args: Any, **options: Any) -> Any:
        written.append(name)
        return write_part(where, name, *args, **options)

    monkeypatch.setattr(building, "write_part", noting)
    make(folder, tmp_path / "out")
    assert written == ["part-000002"]  # the part with the file that failed is tried again
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    assert reasons(tmp_path / "out") == reasons(tmp_path / "whole")
    assert not (tmp_path / "out/.staging").exists()


def test_a_file_that_changes_between_two_runs_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "in", **{f"{n:03d}": spots(n, (64, 64)) for n in range(20)})
    with monkeypatch.context() as patch:
        stop_after(patch, assembly, "assemble", 0, Stopped())
        with pytest.raises(Stopped):
            make(folder, tmp_path / "out")
    write(folder, **{"003": spots(1000, (64, 64))})
    (folder / "004.tif").unlink()
    make(folder, tmp_path / "out")
    make(folder, tmp_path / "fresh")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "fresh")
    assert reasons(tmp_path / "out") == reasons(tmp_path / "fresh")


def test_a_file_that_changes_while_it_is_read_fails_and_leaves_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "in", a=spots(30), c=spots(31))
    np.savez(folder / "b.npz", one=spots(32), two=spots(33))

    def changing(path: Path, **options: Any) -> Iterator[Any]:
        for image in read_series(path, **options):
            yield image
            if path.name == "b.npz":  # after its first series: its crops are in the part already
                path.write_bytes(path.read_bytes() + b"more")

    monkeypatch.setattr(reading, "read_series", changing)
    make(folder, tmp_path / "out", keep_names=True, **NO_SPLIT)
    assert {row["source"] for row in rows_of(tmp_path / "out")} == {"a.tif", "c.tif"}
    state, reason = reasons(tmp_path / "out")["b.npz"]
    assert (state, reason) == ("failed", "changed while it was read; run the command again when the file is complete")


def test_a_full_disk_is_reported_and_the_run_resumes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = many(tmp_path / "in")
    full = OSError(errno.ENOSPC, "No space left on device")
    make(folder, tmp_path / "whole")
    for module, name, calls in ((staging, "crops_to_table", 20), (assembly, "write_card", 0)):
        with monkeypatch.context() as patch:
            stop_after(patch, module, name, calls, full)
            with pytest.raises(
                UserError, match="cannot be written .No space left on device.; .* run the same command again"
            ):
                make(folder, tmp_path / "out")
        left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
        assert left and not any("tmp" in name for name in left)
    make(folder, tmp_path / "out")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_other_settings_inputs_or_contents_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", a=spots(34), b=spots(35))
    make(folder, tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    with pytest.raises(UserError, match=r"stride: 32 before, 16 now"):
        make(folder, tmp_path / "out", stride=16)
    write(folder, c=spots(36))
    with pytest.raises(UserError, match=r"the input files have changed since.*--overwrite"):
        make(folder, tmp_path / "out")
    assert bytes_of(tmp_path / "out") == before
    assert make(folder, tmp_path / "out", stride=16, overwrite=True).manifest.counts()["done"] == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="holds other files"):
        make(folder, tmp_path / "mine", overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        make(folder, folder / "a.tif")


def test_images_of_an_earlier_run_are_not_inputs(tmp_path: Path) -> None:
    write(tmp_path, a=spots(37), b=spots(38))
    make(tmp_path, tmp_path / "out")
    assert list(make(tmp_path, tmp_path / "out").manifest.items) == ["a.tif", "b.tif"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process the POSIX way")
def test_a_killed_command_resumes_and_leaves_no_process_behind(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", **{f"{n:03d}": spots(n, (150, 150)) for n in range(128)})
    words = ["data", "build", str(folder), "--crop-size", "32", "--stride", "16", "--workers", "2"]
    script = "import sys; from stedfm_hf.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, *words, "--output", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            end = time.monotonic() + 120
            while not list((tmp_path / "out").glob(".staging/part-*")):
                assert process.poll() is None and time.monotonic() < end, process.communicate()
                time.sleep(0.01)
        finally:
            process.kill()
        assert process.stderr is not None
        process.stderr.read()  # ends when no process holds the pipe any more: the workers are gone
    parts = list((tmp_path / "out").glob(".staging/part-*"))
    assert 0 < len(parts) < 8
    make(folder, tmp_path / "out", stride=16)
    make(folder, tmp_path / "whole", stride=16)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    assert reasons(tmp_path / "out") == reasons(tmp_path / "whole")


def test_the_message_names_a_folder_without_write_permission(tmp_path: Path) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises((UserError, OSError), match="locked"):
        make(write(tmp_path / "in", a=spots(39)), tmp_path / "locked/out")
