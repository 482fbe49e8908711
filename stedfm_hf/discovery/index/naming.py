"""Names of the items of an index: pages show them, and a search takes them as examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def item_name(item: Mapping[str, Any]) -> str:
    """Return the path of an item, with its series and channel where they are not those of a simple image.

    Args:
        item: Row with the columns path, series and channel.

    Example:
        >>> item_name({"path": "a.tif", "series": "image", "channel": "0"})
        'a.tif'
        >>> item_name({"path": "a.lif", "series": "cell 1", "channel": "red"})
        'a.lif, cell 1, channel red'
    """
    parts = [str(item["path"])]
    parts += [str(item["series"])] if item["series"] != "image" else []
    parts += [f"channel {item['channel']}"] if item["channel"] != "0" else []
    return ", ".join(parts)
