"""Rendering of card templates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import CardData, RepoCard

MODEL_TAGS = ("microscopy", "super-resolution", "sted", "fluorescence", "biology", "vision", "stedfm")
_TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent))


def render(template: str, data: CardData, **facts: Any) -> str:
    """Render a card: YAML front matter and Markdown.

    Args:
        template: Name of a template in this folder.
        data: Front matter.
        facts: Variables of the template.

    Returns:
        Text of `README.md`, with a front matter that the Hub accepts.
    """
    text = _TEMPLATES.get_template(template).render(card_data=data.to_yaml(), **facts)
    text = re.sub(r"[ \t]+\n", "\n", str(RepoCard(text)).strip())
    return re.sub(r"\n{3,}", "\n\n", text) + "\n"
