"""Every tab shows and writes what the library computes for the same file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from stedfm_hf import StedFmForImageClassification, StedFmForSemanticSegmentation, StedFmModel
from stedfm_hf.app import examples
from stedfm_hf.app.tabs import generate
from stedfm_hf.data import simulate_image
from stedfm_hf.discovery.cluster import cluster
from stedfm_hf.discovery.index import index
from stedfm_hf.generation import Direction, walk_images
from stedfm_hf.generation.loading import load_pipeline
from stedfm_hf.images import read_image
from stedfm_hf.inference import classify, embed, load_encoder, segment
from stedfm_hf.inference.one_image import embed_patches, patch_similarity
from stedfm_hf.inference.reconstruction import load_autoencoder, reconstruct_image
from stedfm_hf.runs import UserError
from tests.app.pages import RecordedPage, make_page
from tests.generation_models import tiny_pipeline, tiny_unet
from tests.models import tiny_config

STEPS = 4


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Simulate fewer and smaller images, and denoise in fewer steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "EXAMPLES", {name: (made, 64) for name, (made, _) in examples.EXAMPLES.items()})
        patch.setattr(examples, "INDEX_SIZE", 64)
        patch.setattr(examples, "INDEX_COUNT", 3)
        patch.setattr(generate, "DENOISING_STEPS", STEPS)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("app")
    image = simulate_image("rings", seed=5, index=0)[:100, :90]
    facts: dict[str, Any] = {"imagej": True, "resolution": (50, 50), "metadata": {"unit": "um", "axes": "YX"}}
    tifffile.imwrite(made / "cell.tif", image, **facts)
    tifffile.imwrite(made / "other.tif", image.T[:64, :70].copy(), **facts)
    names = {0: "background", 1: "rings"}
    config = tiny_config(id2label=names, num_labels=2, target_type="multi_label")
    StedFmForSemanticSegmentation(config).save_pretrained(made / "segmenter")
    StedFmForImageClassification(tiny_config(id2label={0: "rings", 1: "fibres"})).save_pretrained(made / "classifier")
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[RecordedPage]:
    made = make_page(folder / "work", classifier=folder / "classifier", segmenter=folder / "segmenter")
    yield made
    made.visits.close()


def table(files: list[str], end: str) -> pa.Table:
    return pq.read_table(next(file for file in files if file.endswith(end)))


def test_reconstruct(page: RecordedPage, folder: Path) -> None:
    visit = page.open(folder / "cell.tif")
    shown = page.press("Reconstruct", visit, 50, 3)
    expected = reconstruct_image(
        load_autoencoder("demo", device="cpu"), read_image(folder / "cell.tif"), seed=3, mask_ratio=0.5
    )
    written = tifffile.imread(shown["Downloads"][0])
    assert np.array_equal(written[0], expected.original) and np.array_equal(written[2], expected.predicted)
    assert np.array_equal(written[1], expected.seen.mask)
    assert "Mean squared error of the hidden pixels" in shown["reconstruct-summary"]
    assert Path(shown["reconstruction"]).is_relative_to(visit.folder)


def test_find_similar(page: RecordedPage, folder: Path) -> None:
    shown = page.press("Find similar images", page.open(folder / "cell.tif"))
    assert table(shown["Downloads"], ".embedding.parquet").equals(
        embed(folder / "cell.tif", model="demo", device="cpu").table
    )
    similar = table(shown["Downloads"], ".similar.parquet")
    assert similar["similarity"].to_pylist() == sorted(similar["similarity"].to_pylist(), reverse=True)
    assert len(shown["similar"].value) == 8
    # An image of the index is most similar to itself.
    shown = page.press("Find similar images", page.open(folder / "work" / "index" / "rings" / "rings_02.tif"))
    best = table(shown["Downloads"], ".similar.parquet").to_pylist()[0]
    assert best["path"] == "rings/rings_02.tif" and best["folder"] == "rings" and best["similarity"] > 0.999999


def test_similar_patches(page: RecordedPage, folder: Path) -> None:
    visit = page.open(folder / "cell.tif")
    shown = page.press("Show similar patches", visit, 17, 80)
    patches = embed_patches(load_encoder("demo", device="cpu"), read_image(folder / "cell.tif"))
    assert patches.embeddings.shape == (13, 12, 128) and patches.patch_at(17, 80) == (2, 10)
    with tifffile.TiffFile(shown["Downloads"][0]) as file:
        assert np.array_equal(file.asarray(), patch_similarity(patches.embeddings, 2, 10))
        x = file.pages.first.tags["XResolution"].value
        assert x[1] / x[0] == pytest.approx(8 * 0.02)
    with pytest.raises(UserError, match="row 100, column 0 is outside of the image of 100 × 90 pixels"):
        page.press("Show similar patches", visit, 100, 0)


def test_classify(page: RecordedPage, folder: Path) -> None:
    shown = page.press("Classify", page.open(folder / "cell.tif"))
    expected = classify(folder / "cell.tif", model=folder / "classifier", device="cpu", maps=folder / "maps")
    assert table(shown["Downloads"], ".classes.parquet").equals(expected.table)
    row = expected.table.to_pylist()[0]
    assert shown["classes"] == {"rings": row["p_rings"], "fibres": row["p_fibres"]}
    map_file = next(file for file in shown["Downloads"] if file.endswith(".map1.tif"))
    assert np.array_equal(tifffile.imread(map_file), tifffile.imread(folder / "maps" / "cell.tif.map1.tif"))


def test_segment(page: RecordedPage, folder: Path) -> None:
    shown = page.press("Segment", page.open(folder / "cell.tif"), 0.4, 2)
    segment(
        folder / "cell.tif", folder / "out", model=folder / "segmenter", device="cpu", threshold=0.4, min_area_px=2
    )
    for kind in ("labels", "objects", "probabilities"):
        written = next(file for file in shown["Downloads"] if file.endswith(f".{kind}1.tif"))
        assert np.array_equal(tifffile.imread(written), tifffile.imread(folder / "out" / f"cell.tif.{kind}1.tif"))
    objects = pq.read_table(folder / "out" / "objects.parquet")
    assert table(shown["Downloads"], ".objects.parquet").equals(objects)
    assert f"Objects: {len(objects.filter(pa.compute.equal(objects['class'], 'background')))} of" in str(
        shown["segment-summary"]
    )


def test_compare(page: RecordedPage, folder: Path) -> None:
    visit = page.open(folder / "cell.tif")
    with pytest.raises(UserError, match="drop the second image first"):
        page.press("Compare", visit)
    visit.images["second"] = page.open(folder / "other.tif").images["image"]
    shown = page.press("Compare", visit)
    expected = [embed(folder / name, model="demo", device="cpu").table for name in ("cell.tif", "other.tif")]
    assert table(shown["Downloads"], "embeddings.parquet").equals(pa.concat_tables(expected))
    vectors = [np.asarray(each["embedding"].to_pylist()[0]) for each in expected]
    assert f"{page.models.index.similarity(*vectors):.2f}" in shown["compare-summary"]
    assert "For comparison, the median of two images" in shown["compare-summary"]
    visit.images["second"] = visit.images["image"]
    shown = page.press("Compare", visit)
    assert "Cosine similarity of the embeddings: 1.00" in shown["compare-summary"]
    best = tifffile.imread(next(file for file in shown["Downloads"] if file.endswith("similarity.tif")))
    assert best.shape == (13, 12) and best.min() > 0.9999


def test_without_trained_heads_the_tabs_say_what_to_do(folder: Path) -> None:
    encoder = folder / "encoder"
    StedFmModel(tiny_config()).save_pretrained(encoder)
    page = make_page(folder / "bare", model=encoder)
    assert page.models.autoencoder is None and not {"Reconstruct", "Segment"} & set(page.buttons)
    shown = page.press("Classify", page.open(folder / "cell.tif"))
    assert sum(shown["classes"].values()) == pytest.approx(1)
    assert len(table(shown["Downloads"], ".neighbours.parquet")) == 10
    page.visits.close()


def test_an_index_of_a_table_is_searched_and_checked(folder: Path) -> None:
    images = folder / "own"
    for name in ("a/1", "a/2", "b/1", "b/2"):
        file = images / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, simulate_image("puncta", seed=7, index=len(list(images.rglob("*.npy"))))[:64, :64])
    made = folder / "own.parquet"
    embed(images, made, model="demo", device="cpu")
    page = make_page(folder / "table", index=made)
    shown = page.press("Find similar images", page.open(images / "b/2.npy"))
    assert table(shown["Downloads"], ".similar.parquet")["path"].to_pylist()[0] == "b/2.npy"
    assert shown["similar"].visible is False  # without --index-images there are no pictures, but a list
    page.visits.close()
    page = make_page(folder / "pictures", index=made, index_images=images)
    assert len(page.press("Find similar images", page.open(images / "b/2.npy"))["similar"].value) == 4
    page.visits.close()
    index(made, output=folder / "finished", images=images)
    page = make_page(folder / "finished-index", index=folder / "finished")
    assert len(page.press("Find similar images", page.open(images / "b/2.npy"))["similar"].value) == 4
    page.visits.close()
    index(images / "a", output=folder / "patches", patches=True, model="demo", device="cpu")
    with pytest.raises(UserError, match="patches: holds patches; make an index of images"):
        make_page(folder / "of-patches", index=folder / "patches")
    embed(images, folder / "tiny.parquet", model=folder / "classifier", device="cpu")
    index(folder / "tiny.parquet", output=folder / "tiny-index")
    with pytest.raises(UserError, match="was made with the model classifier, and the app runs demo"):
        make_page(folder / "other-model", index=folder / "tiny-index")
    with pytest.raises(UserError, match=r"index .*tiny\.parquet: is not a table of `stedfm embed` with 128 numbers"):
        make_page(folder / "wrong", index=folder / "tiny.parquet")


def test_the_tab_of_groups_shows_the_page_of_the_tree(folder: Path, page: RecordedPage) -> None:
    assert "Show the tree" not in page.buttons  # without --groups, the tab says how to make them
    groups = folder / "my groups"
    cluster([folder / "cell.tif", folder / "other.tif"], output=groups, model="demo", device="cpu")
    with_groups = make_page(folder / "with-groups", groups=groups)
    visit = with_groups.visits.of("visitor")
    shown = with_groups.press("Show the tree", visit)
    report = (groups / "report.html").read_bytes()
    (copy,) = [Path(file) for file in shown["Downloads"]]
    assert copy.name == "my groups.html" and copy.read_bytes() == report and copy.is_relative_to(visit.folder)
    frame = ElementTree.fromstring(shown["groups"])
    # The scripts of the page run, but without the origin of the app.
    assert frame.get("sandbox") == "allow-scripts" and frame.get("srcdoc", "").split() == report.decode().split()
    (groups / "report.html").unlink()
    with pytest.raises(UserError, match="my groups: the page of the groups is not there any more"):
        with_groups.press("Show the tree", visit)
    with_groups.visits.close()
    for other in (groups, folder, folder / "nowhere"):
        with pytest.raises(UserError, match="holds no tree; give a finished folder of `stedfm cluster`"):
            make_page(folder / "no-groups", groups=other)


def test_generate(folder: Path) -> None:
    tiny_pipeline(unet=tiny_unet(sample_size=32)).save_pretrained(folder / "pipeline")
    percentiles = {"all": np.linspace(-2, 2, 21).tolist()}
    direction = Direction(np.random.default_rng(0).normal(size=32), name="activity", percentiles=percentiles)
    direction.save(folder / "activity")
    page = make_page(
        folder / "generator", generator=folder / "pipeline", directions=[str(folder / "activity")], model="demo"
    )
    visit = page.open(folder / "cell.tif")
    shown = page.press("Generate", visit, "activity")
    planes = tifffile.imread(next(file for file in shown["Downloads"] if file.endswith(".walk.tif")))
    expected = walk_images(
        load_pipeline(folder / "pipeline", device="cpu").pipeline,
        planes[:1],
        direction,
        np.linspace(-1.8, 1.8, 7),
        num_inference_steps=STEPS,
    )
    assert planes.shape == (8, 32, 32)
    np.testing.assert_allclose(planes[1:], expected.images[0], atol=1e-4)
    assert "Signed distance" in shown["generate-summary"] and "bright spots" in shown["generate-summary"]
    assert Path(shown["walk-generated"]).is_relative_to(visit.folder)
    with pytest.raises(UserError, match="at least 32 × 32"):
        small = folder / "small.tif"
        tifffile.imwrite(small, np.ones((20, 20), np.uint16))
        page.press("Generate", page.open(small), "activity")
    page.visits.close()


def test_the_packaged_generator_walks_along_its_attributes(folder: Path) -> None:
    page = make_page(folder / "packaged", model="demo")
    assert {"density_per_um2", "fwhm_nm", "ring_visibility"} == set(page.models.directions)
    shown = page.press("Generate", page.open(folder / "cell.tif"), "fwhm_nm")
    assert "Signed distance" in shown["generate-summary"]
    page.visits.close()


def test_a_generator_needs_directions() -> None:
    with pytest.raises(UserError, match="belong together"):
        make_page(Path("unused"), directions=["activity"])
