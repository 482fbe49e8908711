"""Figures and self-contained HTML pages in one style."""

from stedfm_hf.reports.figures import label_colours, png_uri, save_figure, scale_bar, show_image, style
from stedfm_hf.reports.html import ReportFigure, Section, Table, render_page, write_page

__all__ = [
    "ReportFigure",
    "Section",
    "Table",
    "label_colours",
    "png_uri",
    "render_page",
    "save_figure",
    "scale_bar",
    "show_image",
    "style",
    "write_page",
]
