"""Reports: one self-contained HTML file, nothing to install and nothing fetched when it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from stedfm_hf.reports.figures import FIGURE_DPI, png_uri
from stedfm_hf.runs.files import atomic_path


@dataclass(frozen=True)
class ReportFigure:
    """A picture with its words.

    Args:
        uri: data URI of the image.
        alt: what is to be seen, for those who cannot see it.
        caption: text below it.
        width: width on the page in CSS pixels; None takes that of the image.
    """

    uri: str
    alt: str
    caption: str = ""
    width: int | None = None

    @classmethod
    def from_png(cls, png: Path, alt: str, caption: str = "") -> ReportFigure:
        """A figure that `save_figure` wrote, at its true size: text in all figures is equally large."""
        content = png.read_bytes()
        pixels = int.from_bytes(content[16:20], "big")  # width in the header that every PNG begins with
        return cls(png_uri(content), alt, caption, round(pixels * 96 / FIGURE_DPI))


@dataclass(frozen=True)
class Table:
    """A table of text; columns after the first are set as numbers.

    Args:
        header: names of the columns.
        rows: cells, one sequence a row.
        caption: text below it.
        strong: number of the row to stress, or None.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: int | None = None


@dataclass(frozen=True)
class Section:
    """A part of a report: a title, paragraphs, then figures and a table.

    Attributes:
        title: Heading.
        text: Paragraphs, plain text.
        figures: Figures in order.
        table: Table after the figures.
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[ReportFigure] = ()
    table: Table | None = None


def render_page(
    *, title: str, lead: str, facts: Mapping[str, str], sections: Sequence[Section], footer: str = ""
) -> str:
    """Renders a report; all text is escaped.

    Args:
        title: title of the page.
        lead: one paragraph that says what this is and how it came out.
        facts: short named figures shown at the top.
        sections: the parts.
        footer: last line.

    Returns:
        The HTML.

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
    template = environment.get_template("page.html")
    return template.render(title=title, lead=lead, facts=facts, sections=sections, footer=footer)


def write_page(
    path: str | Path,
    *,
    title: str,
    lead: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    footer: str = "",
) -> Path:
    """Renders a report and writes it as one UTF-8 file; arguments as in :func:`render_page`.

    Returns:
        The path.
    """
    page = render_page(title=title, lead=lead, facts=facts, sections=sections, footer=footer)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return Path(path)
