from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.cli import main
from stedfm_hf.data.sources import find_sources
from stedfm_hf.data.streaming.stream import stream
from stedfm_hf.runs import UserError, read_json
from tests.object_store import ACCESS_KEY, SECRET_KEY, Bucket


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("actin/a", "actin/b", "tubulin/c", "tubulin/d"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "images" / f"{name}.npy", rng.poisson(5.0, (64, 64)).astype(np.uint16))
    return tmp_path / "images"


def build(inputs: object, output: object, *more: str) -> int:
    options = ["--crop-size", "32", "--labels", "folder", "--workers", "1", "--rows-per-shard", "4", *more]
    return main(["data", "build", str(inputs), "--output", str(output), *options])


def test_a_data_set_in_a_bucket_equals_the_local_one(
    bucket: Bucket, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, output = bucket.put(images, "images"), f"{bucket.url}/crops"
    assert build(images, tmp_path / "crops") == 0
    assert build(inputs, output) == 0
    local = {each.relative_to(tmp_path / "crops").as_posix(): each for each in (tmp_path / "crops").rglob("*.*")}
    stored = bucket.files("crops")
    assert stored.keys() == {name for name, each in local.items() if each.is_file()}
    assert [name for name in stored if stored[name] != local[name].read_bytes()] == ["manifest.json"]
    assert read_json(f"{output}/manifest.json")["items"].keys() == read_json(local["manifest.json"])["items"].keys()
    capsys.readouterr()
    assert build(inputs, output) == 0
    assert f"{output}: is finished" in capsys.readouterr().err
    assert main(["data", "stats", output, "--json"]) == 0
    from_bucket = capsys.readouterr().out
    assert main(["data", "stats", str(tmp_path / "crops"), "--json"]) == 0
    assert capsys.readouterr().out.replace(str(tmp_path / "crops"), output) == from_bucket


def test_batches_of_a_bucket_equal_the_local_ones_also_after_cut_connections(
    bucket: Bucket, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)  # the library takes a bucket for the Hub
    assert build(images, tmp_path / "crops", "--pixels", "raw") == 0
    url = bucket.put(tmp_path / "crops", "crops")
    batches = {}
    for repo in (str(tmp_path / "crops"), url):
        bucket.server.cut_downloads = 2
        crops = stream(repo, "train", batch_size=2, open_shards=2)
        state = crops.state_dict()
        batches[repo] = [batch["pixels"].numpy().tolist() for batch in crops]
        crops.load_state_dict(state | {"position": 4})
        assert [batch["pixels"].numpy().tolist() for batch in crops] == batches[repo][2:]
    assert batches[url] == batches[str(tmp_path / "crops")]
    assert bucket.server.cut_downloads == 0
    rows, _ = find_sources(url)
    assert len(rows) == 16 and rows[0].read(None, None)[0].array.shape == (1, 32, 32)


def test_an_interrupted_build_resumes(
    bucket: Bucket, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stedfm_hf.data.building.build.FILES_PER_PART", 1)
    inputs, output = bucket.put(images, "images"), f"{bucket.url}/crops"
    from stedfm_hf.data.assembly.staging import Staging

    write, written = Staging.open_crops, list[str]()

    def interrupted(self: Staging, name: str) -> object:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(name)
        return write(self, name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Staging, "open_crops", interrupted)
        from stedfm_hf.data.building.build import build as build_data

        build_data(inputs, output, crop_size=32, labels="folder", workers=1)
    assert sorted(bucket.files("crops")) == [f".staging/part-{n:06d}.parquet" for n in range(2)] + ["manifest.json"]
    assert build(inputs, output, "--rows-per-shard", "1024") == 0
    assert build(images, tmp_path / "crops", "--rows-per-shard", "1024") == 0
    stored = bucket.files("crops")
    assert not [name for name in stored if name.startswith(".")]
    assert stored["index.json"] == (tmp_path / "crops" / "index.json").read_bytes()


def test_errors_of_a_bucket_are_one_sentence(bucket: Bucket, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = bucket.put(images, "images")
    for given, output, message in (
        ("s3://no-such-bucket/images", f"{bucket.url}/crops", "s3://no-such-bucket/images: the bucket does not exist"),
        (inputs, "s3://no-such-bucket/crops", "s3://no-such-bucket/crops: the bucket does not exist; check its name"),
        (f"{bucket.url}/none", f"{bucket.url}/crops", f"{bucket.url}/none: no such file or folder; check the path"),
        (inputs, "https://127.0.0.1/crops", "a web server cannot be written; choose another output"),
    ):
        assert build(given, output) == 2
        errors = capsys.readouterr().err
        assert message in errors and errors.count("\n") == 1
    bucket.server.check_credentials(True)
    assert build(inputs, f"{bucket.url}/crops") == 2
    errors = capsys.readouterr().err
    assert "access was refused; check the credentials" in errors and errors.count("\n") == 1
    assert ACCESS_KEY not in errors and SECRET_KEY not in errors
    bucket.server.check_credentials(False)
    assert not bucket.files("crops")
    with pytest.raises(UserError, match=r"s3://no-such-bucket/?: the bucket does not exist; check its name"):
        stream("s3://no-such-bucket", "train", batch_size=2)
    with pytest.raises(UserError, match="has no readable index.json"):
        stream("memory://store/none", "train", batch_size=2)
