"""Search for images: the query never counts, exclusion, regions, examples, and bad input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from stedfm_hf.discovery.index import index
from stedfm_hf.discovery.search import search
from stedfm_hf.runs import UserError
from tests.discovery.helpers import clusters, table_index, write_image, write_images, write_model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, images of two conditions with two crops of each source, and an index of them."""
    folder = tmp_path_factory.mktemp("search")
    write_model(folder / "model")
    for number, name in enumerate(("control", "treated")):
        for k in range(6):
            write_image(folder / "images" / name / f"cell{k // 2}_crop{k % 2}.tif", 10 * number + k)
    shutil.copy(folder / "images" / "control" / "cell0_crop0.tif", folder / "images" / "control" / "copy_crop0.tif")
    index(
        folder / "images",
        output=folder / "index",
        model=folder / "model",
        device="cpu",
        source_pattern=r"(.*)_crop\d",
    )
    return folder


def found(world: Path, output: Path, query: str | Path | None = None, **options: Any) -> pd.DataFrame:
    index, model = world / "index", world / "model"
    return search(index, query, output=output, model=model, device="cpu", **options).table.to_pandas()


def test_the_query_is_never_a_result(world: Path, tmp_path: Path) -> None:
    file = world / "images" / "control" / "cell0_crop0.tif"
    renamed = shutil.copy(file, tmp_path / "other-name.tif")
    for number, query in enumerate((file, renamed, "control/cell0_crop0.tif")):
        table = found(world, tmp_path / str(number), query)
        assert len(table) == 11 + (number == 2)  # an equal copy is found only if one item is named
        assert "control/cell0_crop0.tif" not in set(table["path"])
        assert table["rank"].tolist() == list(range(1, len(table) + 1))
        assert table["score"].is_monotonic_decreasing and table["score"].max() <= 1


def test_a_query_from_a_table_without_files_is_excluded_by_name_and_embedding(world: Path, tmp_path: Path) -> None:
    from stedfm_hf.inference import embed

    embed(world / "images", model=world / "model", output=tmp_path / "t.parquet", device="cpu")
    index(tmp_path / "t.parquet", output=tmp_path / "index")
    query = world / "images" / "treated" / "cell1_crop0.tif"
    result = search(tmp_path / "index", query, output=tmp_path / "out", model=world / "model", device="cpu")
    paths = result.table["path"].to_pylist()
    assert "treated/cell1_crop0.tif" not in paths and "control/cell1_crop0.tif" in paths and len(paths) == 12


def test_sources_and_conditions_are_excluded(world: Path, tmp_path: Path) -> None:
    by_source = found(world, tmp_path / "1", "treated/cell1_crop0.tif", exclude="source")
    assert set(by_source["path"]) & {"treated/cell1_crop0.tif", "treated/cell1_crop1.tif"} == set()
    assert len(by_source) == 11 and set(by_source["source"]) >= {"control/cell1"}
    by_condition = found(world, tmp_path / "2", "treated/cell1_crop0.tif", exclude="condition")
    assert set(by_condition["condition"]) == {"control"} and len(by_condition) == 7
    new = write_image(tmp_path / "elsewhere" / "x_crop0.tif", 99)
    with pytest.raises(UserError, match="elsewhere/x_crop0.tif is in none of the folders"):
        found(world, tmp_path / "3", new, exclude="condition")
    new = write_image(tmp_path / "control" / "x_crop0.tif", 99)
    assert set(found(world, tmp_path / "4", new, exclude="condition")["condition"]) == {"treated"}


def test_a_new_image_is_ranked_like_its_embedding(world: Path, tmp_path: Path) -> None:
    from stedfm_hf.evaluation import zscore_by
    from stedfm_hf.inference import embed
    from stedfm_hf.metrics import nearest

    new = write_image(tmp_path / "new.tif", 123, (64, 40))
    table = found(world, tmp_path / "out", new)
    gallery = embed(world / "images", model=world / "model", device="cpu").table
    query = embed(new, model=world / "model", device="cpu").table
    matrices = zscore_by(*(np.stack(each["embedding"].to_numpy()) for each in (gallery, query)))
    rows, similarity = nearest(*matrices, k=13)
    assert table["path"].tolist() == [gallery["path"][int(row)].as_py() for row in rows[0]]
    np.testing.assert_allclose(table["score"], similarity[0], atol=1e-5)


def test_a_region_is_the_mean_of_its_patches(world: Path, tmp_path: Path) -> None:
    """A box, a mask and a ROI of the same pixels give the same result; it differs from that of the whole image."""
    roifile = pytest.importorskip("roifile")
    file = "control/cell2_crop0.tif"
    mask = np.zeros((40, 48), np.uint8)
    mask[8:24, 16:40] = 255
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    corners = np.array([[16, 8], [40, 8], [40, 24], [16, 24]])
    (tmp_path / "region.roi").write_bytes(roifile.ImagejRoi.frompoints(corners).tobytes())
    by_box = found(world, tmp_path / "1", file, box=(16, 8, 24, 16))
    for number, name in enumerate(("mask.tif", "region.roi")):
        other = found(world, tmp_path / f"m{number}", file, mask=tmp_path / name)
        pd.testing.assert_frame_equal(by_box, other, check_exact=False, atol=1e-6)
    like = found(world, tmp_path / "2", like=[f"{file}@16,8,24,16"])
    pd.testing.assert_frame_equal(by_box, like)
    assert not np.allclose(by_box["score"], found(world, tmp_path / "3", file)["score"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box": (40, 0, 10, 10)}, "is not inside the image, which is 48 pixels wide and 40 high"),
        ({"box": (-1, 0, 10, 10)}, "is not inside the image"),
        ({"box": (0, 0, 0, 10)}, "has no area"),
        ({"mask": "empty.tif"}, "marks no pixel"),
        ({"mask": "none.tif"}, "no such file"),
        ({"mask": "small.tif"}, "has 8 x 8 pixels, the image 40 x 48"),
    ],
)
def test_a_region_outside_of_the_image_is_refused(
    world: Path, tmp_path: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("empty.tif", np.zeros((40, 48), np.uint8))
    tifffile.imwrite("small.tif", np.ones((8, 8), np.uint8))
    with pytest.raises(ValueError, match=message):
        found(world, tmp_path / "out", "control/cell0_crop0.tif", **options)


def test_counter_examples_move_the_result_away(tmp_path: Path) -> None:
    """Two directions in the space: one that is wanted and one that is not."""
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(60, 16)).astype(np.float32) * 0.3
    embeddings[:20, :6] += 2  # wanted
    embeddings[10:40, 6:12] += 2  # not wanted
    names = [f"{number:02d}.tif" for number in range(60)]
    table_index(tmp_path / "index", embeddings, names)

    def best(name: str, **options: Any) -> set[int]:
        result = search(tmp_path / "index", output=tmp_path / name, count=7, **options)
        return {int(path[:2]) for path in result.table["path"].to_pylist()}

    assert best("one", query="00.tif") == best("like", like=["00.tif"])
    wanted = set(range(10))
    assert best("mean", like=["12.tif", "13.tif"]) <= set(range(10, 20))
    assert best("minus", like=["12.tif"], unlike=["30.tif"]) <= wanted | set(range(10, 20))
    # Two examples of both kinds, and counter-examples of the second: the model finds the first direction alone.
    assert best("model", like=["12.tif", "13.tif", "01.tif"], unlike=["30.tif", "31.tif"]) <= wanted
    with pytest.raises(UserError, match="cancel each other"):
        best("same", like=["12.tif"], unlike=["12.tif"])


def test_examples_and_counter_examples_are_never_results(tmp_path: Path) -> None:
    table_index(tmp_path / "index", clusters(20, 8), [f"{number}.tif" for number in range(20)])
    result = search(tmp_path / "index", "3.tif", output=tmp_path / "out", like=["4.tif"], unlike=["5.tif"])
    paths = result.table["path"].to_pylist()
    assert {"3.tif", "4.tif", "5.tif"}.isdisjoint(paths) and len(paths) == 17
    page = (tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")
    assert "linear model" in page and "Counter-examples" in page and "file not found" in page


def test_an_index_of_one_item_has_no_result_for_it(tmp_path: Path) -> None:
    """The only item is the mean of the index, which has no direction."""
    table_index(tmp_path / "index", clusters(1, 8), ["only.tif"])
    with pytest.raises(UserError, match="like all images"):
        search(tmp_path / "index", "only.tif", output=tmp_path / "out")


def test_moved_files_are_reported_and_the_search_still_works(tmp_path: Path, world: Path) -> None:
    images = write_images(tmp_path / "images")
    index(images, output=tmp_path / "index", model=world / "model", device="cpu")
    options: dict[str, Any] = {"model": world / "model", "device": "cpu"}
    search(tmp_path / "index", "a/a0.tif", output=tmp_path / "1", **options)
    assert "file not found" not in (tmp_path / "1" / "gallery.html").read_text(encoding="utf-8")
    images.rename(tmp_path / "moved")
    table = search(tmp_path / "index", "a/a0.tif", output=tmp_path / "2", **options).table
    assert len(table) == 5 and "file not found" in (tmp_path / "2" / "gallery.html").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="give its folder with --images"):
        search(tmp_path / "index", "a/a0.tif", output=tmp_path / "3", box=(0, 0, 16, 16), **options)
    moved = tmp_path / "moved"
    search(tmp_path / "index", "a/a0.tif", output=tmp_path / "4", box=(0, 0, 16, 16), images=moved, **options)
    assert "file not found" not in (tmp_path / "4" / "gallery.html").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="--images .*none: no such folder"):
        search(tmp_path / "index", "a/a0.tif", output=tmp_path / "5", images=tmp_path / "none", **options)
    # The index and its images moved together are found.
    (tmp_path / "new").mkdir()
    moved.rename(tmp_path / "new" / "images")
    (tmp_path / "index").rename(tmp_path / "new" / "index")
    search(tmp_path / "new" / "index", "a/a0.tif", output=tmp_path / "6", **options)
    assert "file not found" not in (tmp_path / "6" / "gallery.html").read_text(encoding="utf-8")


def test_a_query_that_does_not_fit_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cell0_crop0.tif: .* did you mean control/cell0_crop0.tif"):
        found(world, tmp_path / "1", "cell0_crop0.tif")
    stack = tmp_path / "stack.npz"
    np.savez(stack, first=np.ones((16, 16)), second=np.ones((16, 16)))
    with pytest.raises(UserError, match=r"has 2 series \(first, second\); choose with --series"):
        found(world, tmp_path / "2", stack)
    assert len(found(world, tmp_path / "3", stack, series="second")) == 13
    with pytest.raises(UserError, match="has other weights than the model of the index"):
        search(world / "index", stack, output=tmp_path / "4", model="demo", series=0, device="cpu")
    with pytest.raises(UserError, match="the index was made with model: give this model with --model"):
        search(world / "index", stack, output=tmp_path / "5", series=0, device="cpu")


def test_results_of_one_file_have_different_names_that_are_examples(world: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 16, 16))
    np.savez(tmp_path / "stack.npz", first=images[0], second=images[1])
    np.save(tmp_path / "single.npy", images[2])
    options: dict[str, Any] = {"model": world / "model", "device": "cpu"}
    index([tmp_path / "stack.npz", tmp_path / "single.npy"], output=tmp_path / "index", **options)
    result = search(tmp_path / "index", "single.npy", output=tmp_path / "1", **options)
    summary = result.summary()
    page = (tmp_path / "1" / "gallery.html").read_text(encoding="utf-8")
    for name in ("stack.npz, first", "stack.npz, second"):
        assert name in summary and name in page
    table = search(tmp_path / "index", like=["stack.npz, second"], output=tmp_path / "2", **options).table
    assert {(row["path"], row["series"]) for row in table.to_pylist()} == {
        ("stack.npz", "first"),
        ("single.npy", "image"),
    }


def test_a_search_of_another_state_of_the_index_is_another_search(tmp_path: Path) -> None:
    table_index(tmp_path / "index", clusters(9, 8))
    search(tmp_path / "index", "1.tif", output=tmp_path / "out")
    search(tmp_path / "index", "1.tif", output=tmp_path / "out")  # finished
    index(output=tmp_path / "index", remove=["2.tif"])
    with pytest.raises(UserError, match="index_version: 1 before, 2 now"):
        search(tmp_path / "index", "1.tif", output=tmp_path / "out")
    assert len(search(tmp_path / "index", "1.tif", output=tmp_path / "out", overwrite=True).table) == 7
