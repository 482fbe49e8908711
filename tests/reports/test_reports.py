"""Figures and pages: readable files, nothing fetched from outside, nothing unescaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from stedfm_hf.reports import ReportFigure, Section, Table, label_colours, png_uri, save_figure, show_image, style
from stedfm_hf.reports.figures import PALETTE, display_limits, middle, scale_bar, scatter_images
from stedfm_hf.reports.html import render_page, write_page


def _figure() -> Figure:
    with style():
        figure = Figure(figsize=(2, 2))
        show_image(figure.subplots(), np.random.default_rng(0).random((40, 60)), pixel_size_nm=20.0, frame=PALETTE[0])
        return figure


@pytest.mark.figures
def test_a_figure_is_written_as_png_and_svg_and_the_same_every_time(tmp_path: Path) -> None:
    png = save_figure(_figure(), tmp_path / "one", "image")
    again = save_figure(_figure(), tmp_path / "two", "image")
    assert png == tmp_path / "one" / "image.png"
    assert Image.open(png).width > 100
    assert "<svg" in png.with_suffix(".svg").read_text(encoding="utf-8")
    assert png.read_bytes() == again.read_bytes()
    assert png.with_suffix(".svg").read_bytes() == again.with_suffix(".svg").read_bytes()
    picture = ReportFigure.from_png(png, "noise")
    assert picture.uri.startswith("data:image/png;base64,iVBOR")
    assert picture.width == round(Image.open(png).width * 96 / 160)


@pytest.mark.parametrize(
    ("width", "pixel_size_nm", "words", "pixels"),
    [(224, 20.0, "1 µm", 50), (64, 20.0, "0.5 µm", 25), (64, 100.0, "2 µm", 20), (8, 1000.0, "2 µm", 2)],
)
def test_scale_bars_are_round_and_as_long_as_they_say(
    width: int, pixel_size_nm: float, words: str, pixels: float
) -> None:
    axes = Figure().subplots()
    scale_bar(axes, (width, width), pixel_size_nm)
    assert [text.get_text() for text in axes.texts] == [words]
    assert axes.patches[0].get_width() == pytest.approx(pixels)  # type: ignore[attr-defined]


def test_a_scale_bar_avoids_points() -> None:
    for points, right, bottom in (([[90, 90]], False, False), ([[90, 90], [10, 10], [90, 10]], False, True)):
        axes = Figure().subplots()
        scale_bar(axes, (100, 100), 20.0, avoid=np.array(points))
        (bar,) = axes.patches
        y, x = bar.get_y(), bar.get_x()  # type: ignore[attr-defined]
        assert (x > 50, y > 50) == (right, bottom)


def test_the_style_is_left_without_a_change_to_other_settings() -> None:
    with matplotlib.rc_context():
        matplotlib.rcParams["font.size"], matplotlib.rcParams["interactive"] = 12.0, False
        with style():
            assert matplotlib.rcParams["font.size"] != 12.0
            matplotlib.rcParams["interactive"] = True  # as Jupyter's backend does when pyplot loads it
        assert matplotlib.rcParams["font.size"] == 12.0
        assert matplotlib.rcParams["interactive"]


def test_every_label_has_its_own_colour_however_many_there_are() -> None:
    for count in (1, 4, 8, 20):
        colours = label_colours([f"label {number}" for number in range(count)] * 2)
        assert len(set(colours.values())) == count
    assert label_colours("ab") == {"a": PALETTE[0], "b": PALETTE[1]}


def test_an_image_without_contrast_is_shown_all_the_same() -> None:
    assert display_limits(np.zeros((3, 3))) == (0.0, 1.0)
    show_image(Figure().subplots(), np.zeros((3, 3)))


def test_the_map_of_images_shows_pictures_that_do_not_overlap() -> None:
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 2)) * (100.0, 1.0)
    scatter_images(axes, points, [rng.random((20, 30))] * 60, [PALETTE[0]] * 60, most=15)
    boxes = [artist for artist in axes.artists if type(artist).__name__ == "AnnotationBbox"]
    assert 5 <= len(boxes) <= 15
    figure.canvas.draw()
    extents = [box.get_window_extent() for box in boxes]
    assert not any(one.overlaps(other) for k, one in enumerate(extents) for other in extents[:k])


def test_the_map_of_one_image_is_drawn() -> None:
    scatter_images(Figure().subplots(), np.zeros((1, 2)), [np.zeros((4, 4))], [PALETTE[0]])


def test_middle_is_a_centred_square() -> None:
    assert middle(np.arange(25).reshape(5, 5), 3).tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_a_page_is_one_file_that_fetches_nothing_and_escapes_everything(tmp_path: Path) -> None:
    path = write_page(
        tmp_path / "report.html",
        title="<script>alert(1)</script>",
        lead="µm & more",
        facts={"images": "12"},
        sections=[
            Section(
                "Loss",
                ["It fell <b>a lot</b>."],
                [ReportFigure(png_uri(b"x"), 'a "curve"', "caption")],
                Table(["method", "accuracy"], [["chance", "0.25"], ["network", "0.58"]], "a table", strong=1),
            )
        ],
        footer="made by a test",
    )
    page = path.read_text(encoding="utf-8")
    links = _Links()
    links.feed(page)
    assert links.sources == [png_uri(b"x")]
    assert "script" not in links.tags
    assert "b" not in links.tags
    assert not re.search(r"url\(|@import|https?://", page)
    assert '<tr class="strong"><td>network</td>' in page
    assert "µm &amp; more" in page
    assert not list(tmp_path.glob(".*"))


def test_large_figures_and_tables_scroll_on_a_small_screen(tmp_path: Path) -> None:
    large, small = (ReportFigure(png_uri(b"x"), "curves", width=width) for width in (740, 300))
    table = Table(["a"], [["b"]])

    def page(section: Section) -> str:
        return write_page(tmp_path / "page.html", title="", lead="", facts={}, sections=[section]).read_text("utf-8")

    assert page(Section("s", figures=[large, small])).count("Scroll sideways to see the whole figure.") == 1
    assert "Scroll sideways" not in page(Section("s", figures=[large], grid=True))
    assert '<div class="wide" tabindex="0" role="region" aria-label="Table: s">' in page(Section("s", table=table))


def test_names_break_on_a_small_screen_only() -> None:
    table = Table(["method"], [["raw\u00a0k\u2011NN"], ["chance"]])
    page = render_page(title="", lead="", facts={}, sections=[Section("s", table=table)])
    assert '<td class="name">raw k-NN</td>' in page and "<td>chance</td>" in page


def test_a_page_without_pictures_tables_and_facts_is_whole(tmp_path: Path) -> None:
    page = write_page(tmp_path / "bare.html", title="t", lead="l", facts={}, sections=[Section("s")]).read_text(
        "utf-8"
    )
    assert "<dl>" not in page
    assert "<table>" not in page
    assert "<footer>" not in page
    assert page.rstrip().endswith("</html>")
