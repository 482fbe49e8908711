from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from PIL import Image

from stedfm_hf import StedFmForPreTraining, StedFmImageProcessor, StedFmModel, adapt_channels
from stedfm_hf.cli import main
from stedfm_hf.inference import embed
from stedfm_hf.inference.preparation import Preparation
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.runs import Manifest, UserError, manifest_path
from stedfm_hf.runs.executors import InThisProcess, Workers
from stedfm_hf.runs.parts import PartStore
from tests.models import tiny_config

PROCESSOR = StedFmImageProcessor(patch_size=8)


def counts(shape: tuple[int, ...] = (32, 32), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60000, shape).astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "stedfm-vit-test"
    StedFmForPreTraining(tiny_config()).eval().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> StedFmModel:
    return StedFmModel.from_pretrained(folder).eval()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Seven files in two folders, three of them larger than the model's crops."""
    root = tmp_path / "images"
    for index in range(7):
        file = root / ("rings" if index % 2 else "fibres") / f"{index}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(file, counts((32, 32) if index < 4 else (40, 33 + index), seed=index))
    return root


def vector(model: StedFmModel, image: np.ndarray, **kwargs: Any) -> np.ndarray:
    return next(encode_images(model, [PROCESSOR.prepare(image)], **kwargs))


def test_one_row_per_image(folder: Path, model: StedFmModel, images: Path, tmp_path: Path) -> None:
    result = embed(images, model=folder, output=tmp_path / "emb.parquet")
    frame: Any = pd.read_parquet(tmp_path / "emb.parquet")
    assert frame["path"].tolist() == [f"fibres/{i}.tif" for i in (0, 2, 4, 6)] + [f"rings/{i}.tif" for i in (1, 3, 5)]
    for row in frame.itertuples():
        image = tifffile.imread(images / row.path)
        np.testing.assert_allclose(row.embedding, vector(model, image), atol=1e-5)
        assert (row.height, row.width) == image.shape and row.pixel_size_nm is None
        assert row.model == "stedfm-vit-test" and len(row.weights_sha256) == 64
    assert frame["embedding"].iloc[0].dtype == np.float32
    assert result.table.num_rows == 7 and result.manifest.exit_status == 0
    record = Manifest.load(tmp_path / "emb.parquet.manifest.json")
    assert record.counts()["done"] == 7 and record.settings["pooling"] == "avg" and record.ended is not None
    assert sorted(p.name for p in tmp_path.glob("emb*")) == ["emb.parquet", "emb.parquet.manifest.json"]


def test_two_devices_share_the_images(
    folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes do so in tests/runs/test_dask_cluster.py."""
    opened = []

    def open_here(count: int, devices: Sequence[str]) -> AbstractContextManager[Workers]:
        opened.append((count, *devices))
        return nullcontext(InThisProcess())

    embed(images, model=folder, output=tmp_path / "one.parquet", device="cpu")
    monkeypatch.setattr("stedfm_hf.runs.workers.open_processes", open_here)
    embed(images, model=folder, output=tmp_path / "two.parquet", device="cpu,cpu")
    assert opened == [(2, "cpu", "cpu")]
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_series_and_channels_have_rows_of_their_own(folder: Path, model: StedFmModel, tmp_path: Path) -> None:
    stack = counts((2, 3, 32, 40))
    names = ["STED", "confocal", "DAPI"]
    tifffile.imwrite(
        tmp_path / "stack.ome.tif",
        stack,
        ome=True,
        metadata={"axes": "ZCYX", "PhysicalSizeX": 0.02, "PhysicalSizeY": 0.03, "Channel": {"Name": names}},
    )
    frame: Any = embed(tmp_path / "stack.ome.tif", model=folder).table.to_pandas()
    assert frame["channel"].tolist() == names * 2
    assert frame["series"].str.extract(r"z=(\d)")[0].tolist() == list("000111")
    assert frame["pixel_size_nm"].iloc[0].tolist() == pytest.approx([30, 20])
    for row, (z, c) in zip(frame.itertuples(), itertools.product(range(2), range(3)), strict=True):
        np.testing.assert_allclose(row.embedding, vector(model, stack[z, c]), atol=1e-5)
    one: Any = embed(tmp_path / "stack.ome.tif", model=folder, series=1, channel="DAPI").table.to_pandas()
    np.testing.assert_allclose(one["embedding"].iloc[0], vector(model, stack[1, 2]), atol=1e-5)


def test_patches(folder: Path, model: StedFmModel, tmp_path: Path) -> None:
    image = counts((40, 50))
    np.save(tmp_path / "image.npy", image)
    frame: Any = embed(tmp_path / "image.npy", model=folder, pooling="patch").table.to_pandas()
    expected = vector(model, image, pooling="patch")
    assert frame[["row", "col"]].to_numpy().tolist() == [list(place) for place in np.ndindex(5, 7)]
    assert frame[["y_px", "x_px"]].to_numpy().tolist() == [[8 * r, 8 * c] for r, c in np.ndindex(5, 7)]
    np.testing.assert_allclose(np.stack(frame["embedding"]), expected.reshape(35, 32), atol=1e-5)


def test_corners_of_patches_are_pixels_of_the_file(folder: Path, tmp_path: Path) -> None:
    resampling = tmp_path / "resampling"
    loaded = StedFmModel.from_pretrained(folder)
    StedFmImageProcessor(patch_size=8, target_pixel_size_nm=20).save_pretrained(resampling)
    loaded.save_pretrained(resampling)
    tifffile.imwrite(tmp_path / "a.tif", counts((32, 32)), imagej=True, resolution=(25, 25), metadata={"unit": "um"})
    frame: Any = embed(tmp_path / "a.tif", model=resampling, pooling="patch").table.to_pandas()
    assert len(frame) == 64 and frame["y_px"].max() == 28 and (frame["height"] == 32).all()


def test_csv_holds_the_same_numbers(folder: Path, images: Path, tmp_path: Path) -> None:
    expected = embed(images, model=folder, output=tmp_path / "emb.parquet").table
    result = embed(images, model=folder, output=tmp_path / "emb.csv").table
    assert result.equals(expected)
    frame: Any = pd.read_csv(tmp_path / "emb.csv")
    values = frame.filter(regex="^embedding_").to_numpy(dtype=np.float32)
    assert np.array_equal(values, np.stack(expected.to_pandas()["embedding"]))
    assert {"pixel_size_y_nm", "pixel_size_x_nm", "path"} <= set(frame)


def test_a_bad_file_costs_only_itself(
    folder: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "rings" / "broken.tif").write_bytes(b"II*\0nothing")
    (images / "empty.tif").write_bytes(b"")
    result = embed(images, model=folder, output=tmp_path / "emb.parquet")
    assert result.table.num_rows == 7 and result.manifest.exit_status == 1
    assert set(result.manifest.failures()) == {"rings/broken.tif", "empty.tif"}
    printed = capsys.readouterr().err
    assert "broken.tif" in printed and "empty.tif" in printed


@pytest.mark.parametrize(
    "image",
    [
        np.full((20, 20), np.nan),
        np.full((20, 20), 3, dtype=np.int16),
        np.full((20, 20), 65535, dtype=np.uint16),
        np.array([[7]], dtype=np.uint8),
        counts((1, 300)),
        np.where(counts((30, 30)) > 100, np.inf, 0),
    ],
    ids=["nan", "constant", "saturated", "1x1", "1x300", "infinite"],
)
def test_odd_images_have_finite_vectors(folder: Path, image: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "odd.npy", image)
    for pooling in ("avg", "token", "patch"):
        values = np.stack(embed(tmp_path / "odd.npy", model=folder, pooling=pooling).table.to_pandas()["embedding"])
        assert np.isfinite(values).all() and len(values)


def test_a_vector_that_is_not_finite_never_reaches_the_table(folder: Path, tmp_path: Path) -> None:
    broken = StedFmModel.from_pretrained(folder)
    with torch.no_grad():
        broken.norm.weight[0] = float("nan")
    broken.save_pretrained(tmp_path / "broken")
    np.save(tmp_path / "image.npy", counts())
    result = embed(tmp_path / "image.npy", model=tmp_path / "broken")
    assert result.table.num_rows == 0 and "not finite" in result.manifest.failures()["image.npy"]


def test_differences_below_the_8_bit_step_reach_the_vector(folder: Path, tmp_path: Path) -> None:
    image = counts()
    image[0, :2] = 0, 60000
    np.save(tmp_path / "a.npy", image)
    image[8:16, 8:16] ^= 15
    np.save(tmp_path / "b.npy", image)
    first, second = embed(tmp_path, model=folder).table.to_pandas()["embedding"]
    assert not np.array_equal(first, second)


class Killed(Exception):
    pass


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make reading stop the process after some files, as a kill would between two chunks."""
    read, chunk = Preparation.__call__, 2

    def arm(files: int) -> None:
        left = itertools.count(files, -1)

        def stop(self: Preparation, source: Any) -> Any:
            if next(left) <= 0:
                raise Killed
            return read(self, source)

        monkeypatch.setattr(Preparation, "__call__", stop)

    monkeypatch.setattr("stedfm_hf.inference.stepwise.CHUNK", chunk)
    monkeypatch.setattr("stedfm_hf.inference.source_batches.AHEAD", (1, 2**20))
    yield arm
    monkeypatch.undo()


@pytest.mark.parametrize("stops", [[1], [3, 2], [5]])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    folder: Path, images: Path, tmp_path: Path, killed_after: Any, monkeypatch: pytest.MonkeyPatch, stops: list[int]
) -> None:
    embed(images, model=folder, output=tmp_path / "whole.parquet")
    read = Preparation.__call__
    for files in stops:
        monkeypatch.setattr(Preparation, "__call__", read)
        killed_after(files)
        with pytest.raises(Killed):
            embed(images, model=folder, output=tmp_path / "stopped.parquet")
        assert not (tmp_path / "stopped.parquet").exists()
    monkeypatch.setattr(Preparation, "__call__", read)
    result = embed(images, model=folder, output=tmp_path / "stopped.parquet")
    assert result.manifest.counts()["done"] == 7
    assert (tmp_path / "stopped.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_rows_that_a_full_disk_refused_are_computed_again(
    folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stedfm_hf.inference.stepwise.CHUNK", 2)
    embed(images, model=folder, output=tmp_path / "whole.parquet")
    write, free = PartStore.write, itertools.count(2, -1)

    def refuse(self: PartStore, *args: Any, **kwargs: Any) -> None:
        if next(free) <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(PartStore, "write", refuse)
        with pytest.raises(OSError, match="No space left"):
            embed(images, model=folder, output=tmp_path / "refused.parquet")
    assert len(Manifest.load(manifest_path(tmp_path / "refused.parquet", folder=False)).items) == 4
    result = embed(images, model=folder, output=tmp_path / "refused.parquet")
    assert result.manifest.counts()["done"] == 7
    assert (tmp_path / "refused.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_complete_run_takes_up_what_is_new_and_what_had_failed(folder: Path, images: Path, tmp_path: Path) -> None:
    (images / "late.tif").write_bytes(b"")
    output = tmp_path / "emb.parquet"
    assert embed(images, model=folder, output=output).manifest.exit_status == 1
    before = output.read_bytes()
    assert embed(images, model=folder, output=output).manifest.exit_status == 1
    assert pq.read_table(output).num_rows == 7
    tifffile.imwrite(images / "late.tif", counts())
    tifffile.imwrite(images / "new.tif", counts())
    result = embed(images, model=folder, output=output)
    assert result.manifest.exit_status == 0 and result.manifest.counts()["done"] == 9
    paths = result.table["path"].to_pylist()
    assert len(set(paths)) == len(paths) == 9 and before != output.read_bytes()
    unchanged = output.read_bytes()
    embed(images, model=folder, output=output)
    assert output.read_bytes() == unchanged


def test_other_settings_are_refused_and_named(folder: Path, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "emb.parquet"
    embed(images, model=folder, output=output)
    with pytest.raises(UserError, match="pooling: 'avg' before, 'token' now"):
        embed(images, model=folder, output=output, pooling="token")
    with pytest.raises(UserError, match="normalization: 'percentile' before, 'fixed' now"):
        embed(images, model=folder, output=output, intensity_range=(0, 100))
    assert embed(images, model=folder, output=output, pooling="token", overwrite=True).table.num_rows == 7
    (tmp_path / "emb.parquet.manifest.json").unlink()
    with pytest.raises(UserError, match="exists without"):
        embed(images, model=folder, output=output)


def test_a_deleted_table_is_made_again(folder: Path, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "emb.parquet"
    embed(images, model=folder, output=output)
    output.unlink()
    assert embed(images, model=folder, output=output).table.num_rows == 7


def test_a_dataset(folder: Path, model: StedFmModel, tmp_path: Path) -> None:
    pictures = [Image.fromarray(counts(seed=i)) for i in range(3)]
    rows = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 0]}).cast_column("image", datasets.Image())
    (tmp_path / "repo" / "data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "repo" / "data" / "train-00000-of-00001.parquet")
    frame: Any = embed(tmp_path / "repo", model=folder).table.to_pandas()
    assert frame["path"].tolist() == ["train/0", "train/1", "train/2"]
    for row, picture in zip(frame.itertuples(), pictures, strict=True):
        np.testing.assert_allclose(row.embedding, vector(model, np.asarray(picture)), atol=1e-5)
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "repo" / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(UserError, match="no image column .its columns are text"):
        embed(tmp_path / "repo", model=folder)


def test_a_model_of_several_channels_takes_them_together(folder: Path, tmp_path: Path) -> None:
    wide = adapt_channels(StedFmModel.from_pretrained(folder), 2)
    wide.save_pretrained(tmp_path / "wide")
    np.save(tmp_path / "two.npy", counts((2, 32, 32)))
    np.save(tmp_path / "one.npy", counts((32, 32)))
    result = embed([tmp_path / "two.npy", tmp_path / "one.npy"], model=tmp_path / "wide")
    assert result.table["channel"].to_pylist() == ["0+1"]
    assert "has 1 channels, and the model takes 2" in result.manifest.failures()["one.npy"]


def test_precision(folder: Path, images: Path) -> None:
    exact, half = (
        np.array(embed(images, model=folder, precision=precision).table["embedding"].to_pylist())
        for precision in ("float32", "bfloat16")
    )
    cosine = (exact * half).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(half, axis=1)
    assert (cosine > 0.999).all() and not np.array_equal(exact, half)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pooling": "max"}, "pooling 'max' is unknown"),
        ({"precision": "int4"}, "precision 'int4' is unknown"),
        ({"device": "tpu"}, "device 'tpu' is unknown"),
        ({"device": "cuda:99"}, "not available|invalid"),
        ({"tile_size": 12}, "multiple of 8"),
        ({"model": "nowhere/at-all"}, "model nowhere/at-all: the Hub cannot be reached .*stedfm convert"),
        ({"model": "nowhere"}, "model nowhere: no such folder"),
        ({"model": "./no-such-folder"}, "no-such-folder: no such folder"),
        ({"model": __file__}, "is a file; if it is a checkpoint: stedfm convert"),
        ({"output": "table.xlsx"}, "parquet or"),
        ({"normalization": "fixed"}, "intensity range"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"inputs": "missing.tif"}, "missing.tif"),
        ({"inputs": []}, "no input"),
    ],
)
def test_mistakes_are_named(folder: Path, images: Path, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        embed(**{"inputs": images, "model": folder, **kwargs})


def test_the_command(folder: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "emb.csv"
    words = ["embed", str(images), "--model", str(folder), "--output", str(output), "--device", "cpu"]
    assert main(words) == 0
    assert "7 rows from 7 files" in capsys.readouterr().out
    assert main([*words, "--tile-size", "none"]) == 2
    assert "tile_size: 'auto' before, None now" in capsys.readouterr().err
    (images / "empty.tif").write_bytes(b"")
    assert main([*words, "--json"]) == 1
    captured = capsys.readouterr()
    assert '"failed": 1' in captured.out and "empty.tif" in captured.err
