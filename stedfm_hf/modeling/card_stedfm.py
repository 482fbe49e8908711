"""Card of a pushed model: the template of transformers is empty, and must not replace a card."""

from pathlib import Path

CARD = "README.md"
_NEW_CARD = """---
library_name: transformers
pipeline_tag: {task}
tags: [microscopy, sted, super-resolution, fluorescence, biology, vision, stedfm]
---

# {name}

A STED-FM model ({kind}) for super-resolution STED microscopy images. Its author has not written a card yet: ask for
the training data, the pixel size and the licence before you use it.

## Use

```python
from transformers import AutoImageProcessor, {auto}

model = {auto}.from_pretrained("{name}", trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained("{name}", trust_remote_code=True)
```
"""
_TASKS = {
    "StedFmForImageClassification": ("image-classification", "AutoModelForImageClassification"),
    "StedFmForSemanticSegmentation": ("image-segmentation", "AutoModelForSemanticSegmentation"),
}


def new_card(kind: str, name: str) -> str:
    """Return the card of a model that was not loaded from a folder with a card: what it is and how to load it.

    Args:
        kind: Name of the class of the model.
        name: Hub id.
    """
    task, auto = _TASKS.get(kind, ("image-feature-extraction", "AutoModel"))
    return _NEW_CARD.format(name=name, kind=kind, task=task, auto=auto)


def has_empty_card(folder: Path) -> bool:
    """Return whether a folder has no card, or the template of transformers in which everything is to be written."""
    card = folder / CARD
    return not card.is_file() or "[More Information Needed]" in card.read_text(encoding="utf-8", errors="replace")


__all__ = ["CARD", "has_empty_card", "new_card"]
