"""Reports as self-contained HTML pages, which fetch nothing when they are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from stedfm_hf.reports.figures import FIGURE_DPI, png_uri
from stedfm_hf.runs.files import atomic_path
from stedfm_hf.runs.storage import as_path


@dataclass(frozen=True)
class ReportFigure:
    """Figure of a report.

    Attributes:
        uri: Data URI of the image.
        alt: Description for readers who cannot see the image.
        caption: Text below the image.
        width: Width on the page, in CSS pixels; None uses that of the image.
    """

    uri: str
    alt: str
    caption: str = ""
    width: int | None = None

    @classmethod
    def from_png(cls, png: Path, alt: str, caption: str = "") -> ReportFigure:
        """Read a PNG of `save_figure` at its true size, so that text in all figures has the same size."""
        content = png.read_bytes()
        pixels = int.from_bytes(content[16:20], "big")  # the width in the header of a PNG
        return cls(png_uri(content), alt, caption, round(pixels * 96 / FIGURE_DPI))


@dataclass(frozen=True)
class Table:
    """Table of text; all columns but the first are right-aligned.

    Attributes:
        header: Names of the columns.
        rows: Cells of each row.
        caption: Text below the table.
        strong: Index of a row to highlight, or None.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: int | None = None


@dataclass(frozen=True)
class Section:
    """Section of a report: a title, paragraphs, figures and a table.

    Attributes:
        title: Heading.
        text: Paragraphs of plain text.
        figures: Figures, in order.
        table: Table below the figures.
        grid: Whether the figures are small and stand next to each other.
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[ReportFigure] = ()
    table: Table | None = None
    grid: bool = False


def render_page(
    *, title: str, lead: str, facts: Mapping[str, str], sections: Sequence[Section], footer: str = ""
) -> str:
    """Render a report as HTML; all text is escaped.

    Args:
        title: Title of the page.
        lead: Paragraph that summarises the result.
        facts: Short values shown at the top, by name.
        sections: Sections, in order.
        footer: Last line.

    Returns:
        HTML of the page.

    Example:
        >>> page = render_page(title="A & B", lead="", facts={}, sections=[Section("Loss", ["It fell."])])
        >>> "A &amp; B" in page and "It fell." in page
        True
    """
    environment = Environment(
        loader=PackageLoader("stedfm_hf.reports", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breaking"] = _breaking
    template = environment.get_template("page.html")
    return template.render(title=title, lead=lead, facts=facts, sections=sections, footer=footer)


def _breaking(text: str) -> str:
    """Return a text whose spaces and hyphens may break a line: the page breaks names on small screens only."""
    return text.replace("\u00a0", " ").replace("\u2011", "-")


def write_page(
    path: str | Path,
    *,
    title: str,
    lead: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    footer: str = "",
) -> Path:
    """Render a report and write it as one UTF-8 file.

    Args:
        path: File to write.
        title: Title of the page.
        lead: Paragraph that summarises the result.
        facts: Short values shown at the top, by name.
        sections: Sections, in order.
        footer: Last line.

    Returns:
        Path of the file.
    """
    page = render_page(title=title, lead=lead, facts=facts, sections=sections, footer=footer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))  # names of files are not always Unicode
    return as_path(path)
