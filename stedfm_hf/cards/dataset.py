"""Card of a data set."""

from __future__ import annotations

from typing import Any

from huggingface_hub import DatasetCardData

from stedfm_hf.cards.rendering import render


def render_dataset_card(data: DatasetCardData, **facts: Any) -> str:
    """Render the card of a data set for the Hugging Face Hub: YAML front matter and Markdown.

    Args:
        data: Front matter.
        facts: Variables of the template; see `write_card`.

    Returns:
        Text of `README.md`.
    """
    return render("dataset.md.jinja", data, **facts)
