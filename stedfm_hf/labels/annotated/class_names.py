"""What the numbers in masks mean, as a data set says (ours)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from stedfm_hf.data.simulation.fields import class_id
from stedfm_hf.data.simulation.structures import STRUCTURES
from stedfm_hf.labels.annotated.stored import BACKGROUND
from stedfm_hf.runs import read_json

_CARD_ROW = re.compile(r"^\| `mask` \|.*?;((?: \d+: [^|;]+)+)\|", re.MULTILINE)
_CARD_NAME = re.compile(r"(\d+): (.+?)(?=, \d+: |\s*$)")


def names_of(data: str | os.PathLike[str]) -> dict[int, str]:
    """What the numbers in the masks mean, as the data set says: its card, or the manifest of the simulator.

    Returns:
        Names by number; {} where nothing is said.
    """
    from huggingface_hub import DatasetCard

    folder = Path(data)
    for manifest in (folder / "manifest.json", folder.parent / "manifest.json") if folder.is_dir() else ():
        if manifest.is_file() and (record := dict(read_json(manifest))).get("verb") == "data simulate":
            names = [name for name in record.get("settings", {}).get("structures", ()) if name in STRUCTURES]
            return {0: BACKGROUND, **dict(sorted((class_id(name), name) for name in names))}
    if folder.is_dir() and not (folder / "README.md").is_file():
        return {}
    try:
        card = DatasetCard.load(folder / "README.md" if folder.is_dir() else os.fspath(data).partition("@")[0])
    except (OSError, ValueError):
        return {}
    return names_in_card(str(card.content))


def names_in_card(text: str) -> dict[int, str]:
    """Names by number, of the line of the column `mask` in a card of ours.

    >>> names_in_card("| `mask` | a number for every pixel, one byte each; 0: background, 4: puncta |")
    {0: 'background', 4: 'puncta'}
    """
    row = _CARD_ROW.search(text.replace("\r", ""))
    return {int(number): name for number, name in _CARD_NAME.findall(row[1].strip())} if row else {}
