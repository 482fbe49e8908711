"""From images in a bucket to embeddings, masks, an index and a search in it, compared with the same in folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedfm_hf import StedFmForImageClassification, StedFmForSemanticSegmentation, StedFmModel
from stedfm_hf.cli import main
from stedfm_hf.runs import read_json
from tests.models import tiny_config
from tests.object_store import Bucket


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("rings/a", "rings/b", "fibres/c"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "images" / f"{name}.npy", rng.poisson(5.0, (64, 64)).astype(np.uint16))
    return tmp_path / "images"


@pytest.fixture
def model(tmp_path: Path) -> Callable[[type], str]:
    def save(kind: type) -> str:
        kind(tiny_config(id2label={0: "rings", 1: "fibres"})).save_pretrained(tmp_path / kind.__name__)
        return str(tmp_path / kind.__name__)

    return save


def table(bucket: Bucket, name: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(bucket.system.cat_file(f"{bucket.name}/{name}")))


@pytest.mark.parametrize("command", ["embed", pytest.param("classify", marks=pytest.mark.slow)])
def test_a_table_in_a_bucket_equals_the_local_one_and_resumes(
    bucket: Bucket, images: Path, tmp_path: Path, model: Callable[[type], str], command: str
) -> None:
    folder = model(StedFmModel if command == "embed" else StedFmForImageClassification)
    inputs, options = bucket.put(images, "images"), ["--model", folder, "--device", "cpu"]
    assert main([command, str(images), "--output", str(tmp_path / "t.parquet"), *options]) == 0
    assert main([command, inputs, "--output", f"{bucket.url}/t.parquet", *options]) == 0
    assert table(bucket, "t.parquet").equals(pq.read_table(tmp_path / "t.parquet"))
    np.save(tmp_path / "images" / "new.npy", np.zeros((64, 64)))
    bucket.put(images, "images")  # the others are newer, too
    assert main([command, inputs, "--output", f"{bucket.url}/t.parquet", *options]) == 0
    assert (
        table(bucket, "t.parquet").num_rows == 4
        and "new.npy" in read_json(f"{bucket.url}/t.parquet.manifest.json")["items"]
    )
    assert sorted(bucket.system.find(bucket.name, withdirs=False)) == sorted(
        f"{bucket.name}/{name}" for name in (*bucket_names(images), "t.parquet", "t.parquet.manifest.json")
    )


def bucket_names(images: Path) -> list[str]:
    return [f"images/{each.relative_to(images).as_posix()}" for each in images.rglob("*.npy")]


def test_a_file_whose_connection_is_cut_fails_and_is_done_by_the_next_run(
    bucket: Bucket,
    images: Path,
    model: Callable[[type], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    arguments = ["embed", bucket.put(images, "images"), "--output", f"{bucket.url}/t.parquet", "--device", "cpu"]
    arguments += ["--model", model(StedFmModel), "--workers", "1"]
    bucket.server.cut_downloads = 10**6
    assert main(arguments) == 1
    errors = capsys.readouterr().err
    assert "rings/a.npy: the connection failed" in errors and "run the same command again to resume" in errors
    bucket.server.cut_downloads = 0
    assert main(arguments) == 0
    assert table(bucket, "t.parquet").num_rows == 3


@pytest.mark.parametrize("format", ["tiff", "ome-zarr"])
def test_masks_in_a_bucket_equal_the_local_ones(
    bucket: Bucket, images: Path, tmp_path: Path, model: Callable[[type], str], format: str
) -> None:
    options = ["--model", model(StedFmForSemanticSegmentation), "--device", "cpu", "--format", format]
    assert main(["segment", str(images), "--output", str(tmp_path / "masks"), *options]) == 0
    assert main(["segment", bucket.put(images, "images"), "--output", f"{bucket.url}/masks", *options]) == 0
    stored = bucket.files("masks")
    local = {each.relative_to(tmp_path / "masks").as_posix(): each for each in (tmp_path / "masks").rglob("*")}
    assert stored.keys() == {name for name, each in local.items() if each.is_file()}
    assert [name for name in stored if stored[name] != local[name].read_bytes()] == ["manifest.json"]


def test_an_index_in_a_bucket_finds_what_the_local_one_finds(
    bucket: Bucket, images: Path, tmp_path: Path, model: Callable[[type], str], capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, options = bucket.put(images, "images"), ["--model", model(StedFmModel), "--device", "cpu"]
    for given, index, similar in (
        (str(images), str(tmp_path / "index"), str(tmp_path / "similar")),
        (inputs, f"{bucket.url}/index", f"{bucket.url}/similar"),
    ):
        assert main(["index", f"{given}/rings", "--output", index, *options]) == 0
        assert main(["index", f"{given}/fibres", "--output", index, *options]) == 0
        assert main(["search", index, f"{given}/rings/a.npy", "--output", similar, *options]) == 0
    assert table(bucket, "similar/results.parquet").equals(pq.read_table(tmp_path / "similar" / "results.parquet"))
    assert sorted(bucket.files("index")) == sorted(
        each.relative_to(tmp_path / "index").as_posix()
        for each in (tmp_path / "index").rglob("*")
        if each.is_file() and each.name != ".lock"
    )
    capsys.readouterr()
    arguments = ["index", inputs, "--output", f"{bucket.url}/index2", "--cluster", "tcp://127.0.0.1:1", *options]
    assert main(arguments) == 2
    assert "which a cluster does not see" in capsys.readouterr().err
    assert main(["search", f"{bucket.url}/none", f"{inputs}/rings/a.npy", "--output", str(tmp_path / "x")]) == 2
    assert f"{bucket.url}/none" in capsys.readouterr().err
