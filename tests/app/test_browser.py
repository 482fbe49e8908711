"""The app in headless Chromium, as visitors use it; skipped where Chromium or Playwright is not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from stedfm_hf import StedFmForImageClassification, StedFmForSemanticSegmentation
from stedfm_hf.app import visits as visits_module
from stedfm_hf.app.settings import AppSettings
from stedfm_hf.app.tabs.find import parse_places
from stedfm_hf.app.visits import Visits
from stedfm_hf.data import simulate_image
from stedfm_hf.discovery.cluster import cluster
from stedfm_hf.images import read_image
from stedfm_hf.inference import classify, embed, load_autoencoder, reconstruct_image, segment
from tests.images.imspector_files import Stack, write_obf
from tests.models import tiny_config

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from playwright.sync_api import Browser  # noqa: E402

from docs.tools.check_site import find_chromium  # noqa: E402
from tests.app.browsers import Visitor, chromium, served, visit  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.figures,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed"),
]
App = tuple[str, Visits]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several formats, and models with heads."""
    made = tmp_path_factory.mktemp("app")
    image = simulate_image("rings", seed=5, index=0)
    facts: dict[str, Any] = {"imagej": True, "resolution": (50, 50), "metadata": {"unit": "um", "axes": "YX"}}
    tifffile.imwrite(made / "cell.tif", image[:150, :130] * 700, **facts)
    (made / "broken.tif").write_bytes((made / "cell.tif").read_bytes()[:300])
    (made / "virus.exe").write_bytes(b"MZ\0\0 no image")
    (made / "large.npy").write_bytes(bytes(3_000_000))
    Image.fromarray(simulate_image("fibres", seed=5, index=1)[:100, :110].astype(np.uint16) * 900).save(
        made / "fibres.png"
    )
    planes = [simulate_image(name, seed=5, index=2)[:90, :80].astype(np.int16) for name in ("puncta", "rings")]
    write_obf(made / "stacks.msr", Stack(planes[0], name="STED"), Stack(planes[1], name="Confocal"))
    config = tiny_config(id2label={0: "background", 1: "rings"}, num_labels=2)
    StedFmForSemanticSegmentation(config).save_pretrained(made / "segmenter")
    StedFmForImageClassification(tiny_config(id2label={0: "rings", 1: "fibres"})).save_pretrained(made / "classifier")
    cluster([made / "cell.tif", made / "fibres.png"], output=made / "groups", model="demo", partition=2, device="cpu")
    return made


@pytest.fixture(scope="module")
def app(folder: Path) -> Iterator[App]:
    settings = AppSettings(
        classifier=folder / "classifier",
        segmenter=folder / "segmenter",
        groups=folder / "groups",
        device="cpu",
        port=0,
        max_file_mb=2.0,
    )
    with served(settings) as address_and_visits:
        yield address_and_visits


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def visitor(browser: Browser, app: App) -> Iterator[Visitor]:
    made = visit(browser, app[0])
    yield made
    assert made.messages == []
    assert made.hosts <= {app[0].split("/")[2], ""}
    made.page.context.close()


def test_files_of_every_kind_are_opened_or_refused_with_one_sentence(visitor: Visitor, folder: Path) -> None:
    visitor.upload(folder / "cell.tif")
    assert visitor.page.get_by_text("cell.tif: 150 × 130, uint16, 20 × 20 nm pixels, intensities").is_visible()
    visitor.upload(folder / "fibres.png")
    assert visitor.page.get_by_text("fibres.png: 100 × 110, uint16, no pixel size in the file").is_visible()
    visitor.upload(folder / "stacks.msr")
    assert visitor.page.get_by_text("stacks.msr: 90 × 80, int16").is_visible()
    before = visitor.source_of("#image-view img")
    visitor.page.locator("#image-series input").click()
    visitor.page.get_by_role("option", name="Confocal").click()
    visitor.wait_for_another("#image-view img", before)
    visitor.upload(folder / "broken.tif")
    visitor.page.locator("[role=alert]:visible").wait_for()
    assert visitor.alert().startswith("broken.tif: ") and "Traceback" not in visitor.alert()
    visitor.upload(folder / "virus.exe")
    visitor.page.locator("[role=alert]:visible", has_text="virus.exe").wait_for()
    assert len(visitor.alert().splitlines()) == 1 and "/" not in visitor.alert().replace("and/or", "")
    # The server refuses a file above the limit before it is stored.
    visitor.page.set_input_files("#image-file input[type=file]", folder / "large.npy")
    visitor.page.get_by_text("exceed").first.wait_for()
    visitor.press("Example: rings")
    visitor.page.get_by_text("simulated rings.tif: 256 × 256").wait_for()
    assert visitor.page.locator("[role=alert]:visible").count() == 0


def test_the_display_range_changes_the_picture_and_no_pixel(visitor: Visitor, folder: Path, tmp_path: Path) -> None:
    visitor.upload(folder / "cell.tif")
    first = visitor.source_of("#image-view img")
    visitor.page.locator("#image-high input[type=number]").fill("3000")
    visitor.page.locator("#image-high input[type=number]").press("Enter")
    visitor.wait_for_another("#image-view img", first)
    visitor.go_to("Find similar")
    visitor.press("Find similar images")
    written = pq.read_table(visitor.download(".embedding.parquet", tmp_path))
    assert written.equals(embed(folder / "cell.tif", model="demo", device="cpu").table)


def test_every_tab_gives_what_the_library_computes(visitor: Visitor, folder: Path, tmp_path: Path) -> None:
    image = folder / "cell.tif"
    visitor.upload(image)
    visitor.press("Reconstruct")
    expected = reconstruct_image(load_autoencoder("demo", device="cpu"), read_image(image))
    planes = tifffile.imread(visitor.download(".reconstruction.tif", tmp_path))
    assert np.array_equal(planes[2], expected.predicted) and np.array_equal(planes[1], expected.seen.mask)
    visitor.page.wait_for_selector("#reconstruction img")

    visitor.go_to("Find similar")
    visitor.press("Find similar images")
    similar = pq.read_table(visitor.download(".similar.parquet", tmp_path)).to_pylist()
    shown = visitor.page.locator("#similar img")
    shown.nth(7).wait_for()
    captions = visitor.page.locator("#similar .caption-label").all_inner_texts()
    assert captions[0].split() == [f"{similar[0]['similarity']:.2f}", Path(similar[0]["path"]).stem]
    visitor.page.locator("#image-view img").click(position={"x": 100, "y": 120})
    visitor.page.wait_for_selector("#patch-map img")
    assert tifffile.imread(visitor.download(".patches.tif", tmp_path)).shape == (19, 17)

    visitor.go_to("Classify")
    visitor.press("Classify")
    classes = classify(image, model=folder / "classifier", device="cpu", maps=tmp_path / "maps").table
    assert pq.read_table(visitor.download(".classes.parquet", tmp_path)).equals(classes)
    row = classes.to_pylist()[0]
    assert row["label"] in visitor.page.locator("#classes").inner_text()
    assert f"{100 * row['p_rings']:.0f}%" in visitor.page.locator("#classes").inner_text()

    visitor.go_to("Segment")
    visitor.press("Segment")
    segment(image, tmp_path / "segmented", model=folder / "segmenter", device="cpu")
    objects = pq.read_table(visitor.download(".objects.parquet", tmp_path))
    assert objects.equals(pq.read_table(tmp_path / "segmented" / "objects.parquet"))
    for name in ("cell.tif.labels1.tif", "cell.tif.probabilities1.tif"):
        written = tifffile.imread(visitor.download(name, tmp_path))
        assert np.array_equal(written, tifffile.imread(tmp_path / "segmented" / name))
    overlay = visitor.download("cell.tif.overlay1.png", tmp_path)
    assert overlay.read_bytes() == (tmp_path / "segmented" / "cell.tif.overlay1.png").read_bytes()

    visitor.go_to("Explain")
    visitor.press("Explain")
    visitor.page.wait_for_selector("#explained img")
    before = visitor.source_of("#explained img")
    assert "sum to the" in visitor.page.locator("#explain-summary").inner_text()
    visitor.page.locator("#image-view img").click(position={"x": 100, "y": 120})
    visitor.wait_for_another("#explained img", before)
    assert "Attention of the marked patch" in visitor.page.locator("#explain-summary").inner_text()
    assert tifffile.imread(visitor.download(".map.tif", tmp_path)).shape == (19, 17)

    visitor.go_to("Compare two images")
    visitor.upload(folder / "fibres.png", "second")
    visitor.press("Compare")
    both = pq.read_table(visitor.download("embeddings.parquet", tmp_path))
    assert both["path"].to_pylist() == ["cell.tif", "fibres.png"]
    assert both.slice(1).equals(embed(folder / "fibres.png", model="demo", device="cpu").table)


def test_structures_like_the_clicked_ones_are_found(visitor: Visitor, folder: Path, tmp_path: Path) -> None:
    visitor.upload(folder / "cell.tif")
    visitor.go_to("Find structures")
    visitor.page.locator("#find-count input").fill("3")
    visitor.page.locator("#image-view img").click(position={"x": 100, "y": 120})
    visitor.page.wait_for_selector("#find-regions img")
    (first,) = parse_places(visitor.page.locator("#find-places textarea").input_value())
    before = visitor.source_of("#find-regions img")
    visitor.page.locator("#find-regions img").click(position={"x": 200, "y": 60})
    visitor.wait_for_another("#find-regions img", before)
    places = parse_places(visitor.page.locator("#find-places textarea").input_value())
    assert places[0] == first and len(places) == 2
    assert "Templates: the patches at 2 places" in visitor.page.locator("#find-summary").inner_text()
    regions = pq.read_table(visitor.download(".regions.parquet", tmp_path)).to_pylist()
    assert 1 <= len(regions) <= 3 and [each["rank"] for each in regions] == list(range(1, len(regions) + 1))
    assert tifffile.imread(visitor.download(".scores1.tif", tmp_path)).shape[-2:] == (19, 17)
    visitor.press("Clear places")
    visitor.page.wait_for_selector("#find-regions img", state="hidden")
    visitor.press("Find structures")
    assert "no place is clicked" in visitor.alert()


def test_the_tree_of_groups_is_walked_through_and_downloaded(visitor: Visitor, folder: Path, tmp_path: Path) -> None:
    visitor.go_to("Groups")
    visitor.press("Show the tree")
    tree = visitor.page.frame_locator("#groups iframe")
    tree.locator("[data-id='0.1']").click()
    tree.get_by_role("heading", name="Node 0.1").wait_for()
    tree.locator("#details img").first.wait_for()
    assert tree.locator("#details img").count() == 1
    report = visitor.download("groups.html", tmp_path)
    assert report.read_bytes() == (folder / "groups" / "report.html").read_bytes()


def test_the_tabs_work_by_keyboard(visitor: Visitor) -> None:
    visitor.page.get_by_role("tab", name="Reconstruct").focus()
    visitor.page.keyboard.press("Tab")
    visitor.page.keyboard.press("Enter")
    button = visitor.page.get_by_role("button", name="Find similar images", exact=True)
    for _ in range(12):
        if button.evaluate("element => element === document.activeElement"):
            break
        visitor.page.keyboard.press("Tab")
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector("#similar img")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(browser: Browser, app: App, scheme: Any) -> None:
    phone = visit(browser, app[0], viewport={"width": 390, "height": 844}, is_mobile=True, color_scheme=scheme)
    phone.press("Reconstruct")
    phone.page.wait_for_selector("#reconstruction img")
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    dark = phone.page.evaluate("document.body.classList.contains('dark')")
    assert dark == (scheme == "dark")
    phone.page.context.close()


def test_three_visitors_get_their_results_and_a_fourth_waits(
    browser: Browser, app: App, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, release, lock = [0], [0], threading.Event(), threading.Lock()

    def slow(*args: Any, **kwargs: Any) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        release.wait(60)
        with lock:
            running[0] -= 1
        return reconstruct_image(*args, **kwargs)

    monkeypatch.setattr("stedfm_hf.app.tabs.reconstruct.reconstruct_image", slow)
    visitors, files = [visit(browser, app[0]) for _ in range(4)], []
    for number, each in enumerate(visitors):
        file = tmp_path / f"cell{number}.npy"
        np.save(file, simulate_image("puncta", seed=9, index=number)[:64, :72])
        files.append(file)
        each.upload(file)
        each.press("Reconstruct")
    deadline = time.monotonic() + 20
    while running[0] < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    visitors[3].page.get_by_text("queue").first.wait_for()
    assert running[0] == 3
    release.set()
    autoencoder = load_autoencoder("demo", device="cpu")
    for each, file in zip(visitors, files, strict=True):
        planes = tifffile.imread(each.download(".reconstruction.tif", tmp_path))
        assert np.array_equal(planes[2], reconstruct_image(autoencoder, read_image(file)).predicted)
        assert each.messages == []
        each.page.context.close()
    assert most[0] == 3


def test_nothing_is_left_on_disk_after_the_visits(
    browser: Browser, app: App, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, visits = app
    made = visit(browser, address)
    made.upload(folder / "cell.tif")
    made.press("Reconstruct")
    made.page.wait_for_selector("#reconstruction img")
    assert len(visits) >= 1 and any(visits.folder.rglob("cell.tif"))
    made.page.context.close()
    monkeypatch.setattr(visits_module, "STRAY_SECONDS", 0.0)
    deadline = time.monotonic() + 120
    while len(visits) and time.monotonic() < deadline:
        time.sleep(0.2)
    visits.sweep()
    left = [path.name for path in visits.folder.rglob("*") if "app-files" not in path.parts]
    assert left == [] and len(visits) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_stopped_command_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stedfm_hf.cli", "app", "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "the app is at http://127.0.0.1:" in line:
            break
    assert any("the app is at" in line for line in lines), lines
    assert list(tmp_path.glob("stedfm-app-*"))
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and output == "stopped; all files of visitors are deleted\n"
    assert not list(tmp_path.glob("stedfm-app-*"))
