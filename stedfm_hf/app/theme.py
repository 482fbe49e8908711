"""Look of the app: fonts of the system, so that nothing is loaded from another host; light and dark."""

from __future__ import annotations

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONOSPACE = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CSS = """
.gradio-container { max-width: 1500px !important; }
.facts, .picture-title { margin: 0; color: var(--body-text-color); font-size: var(--text-sm); line-height: 1.45; }
.facts { opacity: 0.8; }
.picture-title { font-weight: 600; }
.picture { gap: 0.25rem !important; }
.html-container { padding: 0 !important; }
.message p { margin: 0; padding: 0.6rem 0.8rem; border-left: 4px solid #d55e00; border-radius: 4px;
  background: var(--background-fill-secondary); color: var(--body-text-color); }
[aria-label="Remove this file"] { display: none !important; }
#similar .grid-wrap, #similar .grid-container { height: auto !important; max-height: none !important; }
#similar .caption-label { white-space: normal; }
iframe.groups { width: 100%; height: 80vh; border: 0; border-radius: 8px; display: block; }
.title h1 { margin: 0; font-size: 1.5rem; }
.title p { margin: 0.15rem 0 0; }
:focus-visible { outline: 3px solid #e69f00 !important; outline-offset: 2px; }
"""


def make_theme() -> gr.themes.Base:
    """Return the theme."""
    return gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=MONOSPACE)
