"""From a template and facts to the text of a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import CardData, RepoCard

MODEL_TAGS = ("microscopy", "super-resolution", "sted", "fluorescence", "biology", "vision", "stedfm")
_TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent))


def render(template: str, data: CardData, **facts: Any) -> str:
    """Writes a card: YAML front matter and Markdown.

    Args:
        template: name of a template of this folder.
        data: the front matter.
        facts: what the template asks for.

    Returns:
        The text of `README.md`, checked to have a front matter that the Hub reads.
    """
    text = _TEMPLATES.get_template(template).render(card_data=data.to_yaml(), **facts)
    return str(RepoCard(text)).strip() + "\n"
