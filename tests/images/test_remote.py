from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf.images import ImageReadError, find_images, list_series, open_image, read_image
from stedfm_hf.runs import UserError, write_json
from stedfm_hf.runs.storage import as_path
from tests.object_store import Bucket
from tests.server import Site, serve


def npy(value: int, shape: tuple[int, ...] = (4, 5)) -> bytes:
    content = io.BytesIO()
    np.save(content, np.full(shape, value, np.uint16))
    return content.getvalue()


def test_images_are_found_in_a_store_like_in_a_folder(memory: str, tmp_path: Path) -> None:
    names = ["b.npy", "a.npy", "notes.txt", ".hidden.npy", "deep/er/c.npy", ".cache/d.npy", "x.zarr/.zgroup"]
    names += ["x.zarr/0/.zarray", "a.npy.labels1.tif", "cell.oif.files/s.tif", "crops/data/e.npy", "crops/index.json"]
    for root in (as_path(memory), tmp_path):
        for name in names:
            if isinstance(root, Path):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(npy(1))
        if isinstance(root, Path):
            (root / "results").mkdir()
        write_json(root / "results" / "manifest.json", {"command": "segment"})
        (root / "results" / "f.npy").write_bytes(npy(1))
    for pattern in ("", "*.npy", "*/*/*.npy", "**/*.npy", "deep", "a.npy", "x.zarr"):
        remote, local = find_images(f"{memory}/{pattern}".rstrip("/")), find_images(tmp_path / pattern)
        assert [each.path for each in remote.images] == [each.path for each in local.images], pattern
        assert remote.skipped == local.skipped, pattern
        assert {each.name for each in remote.results} == {each.name for each in local.results}, pattern
    assert len({each.path for each in find_images([f"{memory}/deep", tmp_path / "deep"]).images}) == 2
    for missing in (f"{memory}/none", f"{memory}/*.czi"):
        with pytest.raises(UserError, match="no such file or folder|no file matches"):
            find_images(missing)


def test_an_object_is_read_like_a_file(memory: str) -> None:
    path = as_path(f"{memory}/a.npy")
    path.write_bytes(npy(7, (2, 4, 5)))
    assert list_series(path)[0].shape == (2, 4, 5)
    image = read_image(str(path), channel=1)
    assert image.array.shape == (1, 4, 5) and int(image.array.max()) == 7 and image.source == str(path)
    path.write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"memory://store/a.npy: damaged or truncated"):
        read_image(path)
    with pytest.raises(ImageReadError, match=r"memory://store/b.npy: no such file or folder; check the path"):
        read_image(path.with_name("b.npy"))


def test_a_file_of_a_web_server_is_read_after_a_broken_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stedfm_hf.runs.storage.PAUSE", 0.0)
    pytest.importorskip("aiohttp")
    with serve(Site(npy(3, (64, 64))), "a.npy") as site:
        url = f"{site.url}?signature=secret"
        found = find_images(url).images
        assert [each.path for each in found] == ["a.npy"]
        site.drops = [100]
        assert int(read_image(found[0].file).array.max()) == 3
        site.content, site.drops = npy(3), [1] * 100
        with pytest.raises(ImageReadError, match="the connection failed"):
            read_image(f"{site.url}?signature=other")


def test_ome_zarr_is_read_by_region_without_a_copy(bucket: Bucket, tmp_path: Path) -> None:
    from stedfm_hf.inference.zarr_planes import new_zarr_planes

    pixels = np.random.default_rng(0).integers(0, 2**16, (1, 2048, 1024)).astype(np.uint16)
    facts: dict[str, Any] = {"names": ["sted"], "limits": None, "pixel_size_nm": (20.0, 20.0), "about": {}}
    for path in (tmp_path / "x.ome.zarr", as_path(f"{bucket.url}/x.ome.zarr")):
        with new_zarr_planes(path, pixels.shape, pixels.dtype, **facts) as planes:
            planes.write(0, pixels)
    assert bucket.files("x.ome.zarr") == {
        each.relative_to(tmp_path / "x.ome.zarr").as_posix(): each.read_bytes()
        for each in (tmp_path / "x.ome.zarr").rglob("*")
        if each.is_file()
    }
    assert [each.path for each in find_images(bucket.url).images] == ["x.ome.zarr"]
    before = bucket.server.bytes_sent
    with open_image(f"{bucket.url}/x.ome.zarr") as image:
        assert np.array_equal(image.read(slice(10, 20), slice(0, 100)), pixels[:, 10:20, :100])
    assert bucket.server.bytes_sent - before < pixels.nbytes / 4  # one chunk of eight
    assert np.array_equal(read_image(f"{bucket.url}/x.ome.zarr").array, pixels)


@pytest.mark.parametrize("name", ["cell.czi", "cell.nd2"])
def test_readers_that_need_a_file_name_get_a_copy(memory: str, name: str) -> None:
    as_path(f"{memory}/{name}").write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=rf"memory://store/{name}: "):
        read_image(f"{memory}/{name}")
