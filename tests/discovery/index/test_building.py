"""Build an index, add, replace and remove items, and interrupt all of it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf.discovery.index import index, open_index
from stedfm_hf.discovery.index.layout import SEGMENTS, read_state
from stedfm_hf.inference import embed
from stedfm_hf.runs import UserError
from stedfm_hf.runs.parts import PartStore
from tests.discovery.helpers import clusters, table_index, write_image, write_images, write_model, write_table


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def paths(folder: Path) -> list[str]:
    return sorted(open_index(folder).items["path"].to_pylist())


def files(folder: Path) -> dict[str, bytes]:
    """Content of everything that searches read."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "manifest.json") and "adding" not in path.parts
    }


def test_an_index_holds_the_embeddings_of_embed(images: Path, model: Path, tmp_path: Path) -> None:
    result = index(images, output=tmp_path / "index", model=model, device="cpu")
    table = embed(images, model=model, device="cpu").table
    found = open_index(tmp_path / "index")
    assert (result.items, result.embeddings) == (6, 6) and result.search == "exact (6 embeddings)"
    assert found.items["path"].to_pylist() == table["path"].to_pylist()
    wanted = np.stack(table["embedding"].to_numpy())
    np.testing.assert_array_equal(found.rows.take(np.arange(6)), wanted)
    np.testing.assert_allclose(found.standardiser.mean, wanted.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.standardiser.scale, wanted.std(axis=0), rtol=1e-4)
    assert found.labels == ["a"] * 3 + ["b"] * 3
    assert found.item(0)["pixel_size_nm"] == pytest.approx([20, 20])


def test_patches_are_those_of_embed_in_half_precision(images: Path, model: Path, tmp_path: Path) -> None:
    result = index(images, output=tmp_path / "index", patches=True, model=model, device="cpu")
    table = embed(images, model=model, device="cpu", pooling="patch").table
    found = open_index(tmp_path / "index")
    assert result.embeddings == len(table) == 6 * 5 * 6
    wanted = np.stack(table["embedding"].to_numpy()).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found.rows.take(np.arange(len(table))), wanted)
    assert found.embeddings(1).shape == (5, 6, 32)
    assert (found.item(1)["patch_height_px"], found.item(1)["first"], found.item(1)["count"]) == (8.0, 30, 30)
    assert found.item_of(np.array([0, 29, 30, 179])).tolist() == [0, 0, 1, 5]


def test_the_same_command_adds_new_and_changed_files(images: Path, model: Path, tmp_path: Path) -> None:
    index(images, output=tmp_path / "index", model=model, device="cpu")
    before = open_index(tmp_path / "index").embeddings(0)
    write_image(images / "c" / "new.tif", 77)
    write_image(images / "a" / "a0.tif", 78)
    os.utime(images / "a" / "a0.tif", (1e9, 1e9))
    result = index(images, output=tmp_path / "index", model=model, device="cpu")
    found = open_index(tmp_path / "index")
    assert result.items == 7 and paths(tmp_path / "index").count("a/a0.tif") == 1
    number = found.items["path"].to_pylist().index("a/a0.tif")
    assert not np.array_equal(found.embeddings(number), before)
    assert read_state(tmp_path / "index").removed == {"000001": [0]}
    # A third run has nothing to do and changes no file.
    kept = files(tmp_path / "index")
    index(images, output=tmp_path / "index", model=model, device="cpu")
    assert files(tmp_path / "index") == kept


def test_items_are_removed_by_globs(images: Path, model: Path, tmp_path: Path) -> None:
    index(images, output=tmp_path / "index", model=model, device="cpu")
    result = index(output=tmp_path / "index", remove=["a/*", "b/b2.tif"])
    assert (result.items, result.removed) == (2, 4)
    assert paths(tmp_path / "index") == ["b/b0.tif", "b/b1.tif"]
    found = open_index(tmp_path / "index")
    rows, similarity = found.nearest(found.standardiser(found.embeddings(0)[0]), 6)
    assert found.items["path"].to_pylist()[found.item_of(rows[0])[0]] == "b/b0.tif"
    assert np.isfinite(similarity).sum() == 2
    with pytest.raises(UserError, match="no item matches z/"):
        index(output=tmp_path / "index", remove=["z/*"])
    index(output=tmp_path / "index", remove=["b/b?.tif"])  # its last item: the segment is deleted
    assert not list((tmp_path / "index" / SEGMENTS).iterdir())
    with pytest.raises(UserError, match="the index is empty; add images"):
        open_index(tmp_path / "index")
    # The same inputs again, without those that --remove names.
    index(images, output=tmp_path / "index", model=model, device="cpu", remove=["a/a1.tif"])
    assert len(paths(tmp_path / "index")) == 5


def test_other_models_and_settings_are_refused(images: Path, model: Path, tmp_path: Path) -> None:
    index(images, output=tmp_path / "index", model=model, device="cpu")
    with pytest.raises(UserError, match="normalization: 'percentile' before, 'minmax' now"):
        index(images, output=tmp_path / "index", model=model, device="cpu", normalization="minmax")
    with pytest.raises(UserError, match="pooling: 'avg' before, 'patch' now"):
        index(images, output=tmp_path / "index", model=model, device="cpu", patches=True)
    with pytest.raises(UserError, match="model: 'tiny' before, 'demo"):
        index(images, output=tmp_path / "index", model="demo", device="cpu")
    other = write_table(tmp_path / "other.parquet", np.ones((2, 32)), model="tiny", weights="1" * 64)
    with pytest.raises(UserError, match="weights_sha256"):
        index(other, output=tmp_path / "index")
    table = tmp_path / "scaled.parquet"
    embed(images, model=model, output=table, device="cpu", normalization="none")
    with pytest.raises(UserError, match="normalization"):
        index(table, output=tmp_path / "index")


def test_a_table_of_embed_gives_the_same_index_as_the_folder(images: Path, model: Path, tmp_path: Path) -> None:
    for name, pooling, patches in (("images", "avg", False), ("patches", "patch", True)):
        table = tmp_path / f"{name}.parquet"
        embed(images, model=model, output=table, device="cpu", pooling=pooling)
        index(table, output=tmp_path / f"{name}-table", images=images)
        index(images, output=tmp_path / f"{name}-folder", model=model, device="cpu", patches=patches)
        first, second = (files(tmp_path / f"{name}-{kind}") for kind in ("table", "folder"))
        assert {path for path in first if first[path] != second[path]} <= {"segments/000001/items.parquet"}
        one, other = (open_index(tmp_path / f"{name}-{kind}").items for kind in ("table", "folder"))
        assert one.equals(other)
        # And the folder may be added to the index of the table: all files are known.
        assert index(images, output=tmp_path / f"{name}-table", model=model, device="cpu", patches=patches).items == 6


def test_rows_that_are_not_finite_and_repeated_rows_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embeddings = clusters(6, 8)
    embeddings[2, 3] = np.nan
    names = ["a.tif", "b.tif", "bad.tif", "c.tif", "a.tif", "d.tif"]
    result = table_index(tmp_path / "index", embeddings, names)
    assert "1 row with values that are not finite, skipped" in capsys.readouterr().err
    assert paths(tmp_path / "index") == ["a.tif", "b.tif", "c.tif", "d.tif"]
    assert result.manifest.items["bad.tif"].state == "skipped" and result.manifest.counts()["done"] == 4


@pytest.mark.parametrize(("name", "message"), [("t.csv", "write the table as"), ("t.parquet", "has no t.parquet.m")])
def test_a_table_without_what_is_needed_is_refused(tmp_path: Path, name: str, message: str) -> None:
    write_table(tmp_path / "whole.parquet", clusters(3, 8))
    shutil.copy(tmp_path / "whole.parquet", tmp_path / name)
    with pytest.raises(UserError, match=message):
        index(tmp_path / name, output=tmp_path / "index")


def test_a_full_disk_leaves_the_index_intact_and_the_run_resumes(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    index(images / "a", output=folder, model=model, device="cpu")
    before = files(folder)
    work: Any = PartStore.write
    left = iter(range(1))

    def full(*args: Any, **kwargs: Any) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        work(*args, **kwargs)

    for stop in range(2):  # while a part is written, then while the segment is
        left = iter(range(stop))
        with monkeypatch.context() as patch:
            patch.setattr(PartStore, "write", full)
            with pytest.raises(UserError, match="the index is unchanged. Free some space"):
                index(images / "b", output=folder, model=model, device="cpu")
        same = {path: content for path, content in files(folder).items() if path in before}
        assert same == before and len(open_index(folder)) == 3
    result = index(images / "b", output=folder, model=model, device="cpu")
    assert result.items == 6 and len(open_index(folder).segments) == 2


KILLED = """
import sys
from stedfm_hf.discovery.index import building, derived, layout
from stedfm_hf.inference import stepwise
import time, pathlib
stepwise.CHUNK = 1
where = sys.argv[1]
def wait(*args, **kwargs):
    print("here", flush=True)
    time.sleep(60)
if where == "parts":
    from stedfm_hf.runs.parts import PartStore
    write = PartStore.write
    def written(self, *args):
        write(self, *args)
        wait()
    PartStore.write = written
elif where == "segment":
    derived.derive = wait
else:
    layout.write_state = wait
building.index(sys.argv[2], output=sys.argv[3], model=sys.argv[4], device="cpu")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("where", ["parts", "segment", "state"])
def test_a_kill_leaves_the_index_intact_and_the_run_resumes(
    images: Path, model: Path, tmp_path: Path, where: str
) -> None:
    folder = tmp_path / "index"
    index(images / "a", output=folder, model=model, device="cpu")
    before = files(folder)
    command = [sys.executable, "-c", KILLED, where, str(images / "b"), str(folder), str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    same = {path: content for path, content in files(folder).items() if path in before}
    assert same == before and len(open_index(folder)) == 3
    result = index(images / "b", output=folder, model=model, device="cpu")
    whole = index([images / "a"], output=tmp_path / "whole", model=model, device="cpu")
    whole = index(images / "b", output=tmp_path / "whole", model=model, device="cpu")
    assert result.items == whole.items == 6
    assert files(folder) == files(tmp_path / "whole")
    assert {path.name for path in (folder / SEGMENTS).iterdir()} == {"000001", "000002"}


def test_one_command_at_a_time_changes_an_index(images: Path, model: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    index(images, output=tmp_path / "index", model=model, device="cpu")
    with FileLock(tmp_path / "index" / ".lock"), pytest.raises(UserError, match="another command is changing"):
        index(output=tmp_path / "index", remove=["a/*"])


def test_an_unreadable_file_is_listed_and_the_others_are_indexed(images: Path, model: Path, tmp_path: Path) -> None:
    (images / "a" / "broken.tif").write_bytes(b"II*\0")
    result = index(images, output=tmp_path / "index", model=model, device="cpu")
    assert result.items == 6 and result.exit_status == 1
    assert list(result.manifest.failures()) == ["a/broken.tif"]


def test_what_is_not_an_index_is_refused(tmp_path: Path, images: Path) -> None:
    for folder, message in ((tmp_path / "none", "no such folder"), (images, "is not an index")):
        with pytest.raises(UserError, match=message):
            open_index(folder)
    with pytest.raises(UserError, match="INPUT is missing"):
        index(output=tmp_path / "index")
    table_index(tmp_path / "index", clusters(4, 8))
    (tmp_path / "index" / "segments" / "000001" / "embeddings.npy").unlink()
    with pytest.raises(UserError, match="is missing or damaged"):
        open_index(tmp_path / "index")
