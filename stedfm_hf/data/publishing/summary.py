"""Tables of the statistics of a data set, for the terminal and the card."""

from __future__ import annotations

from typing import Any

from stedfm_hf.reports import Table


def count_table(record: dict[str, Any], *, max_labels: int | None = None) -> Table:
    """Make a table of the crops of each label and split, with mean and standard deviation of their scaled pixels.

    Args:
        record: Result of `to_json`.
        max_labels: Largest number of labels to list, the most frequent ones; None lists all.
    """
    splits = record["splits"]
    with_total = len(splits) > 1  # a column "all" after those of the splits; counts as 0 or 1 cells
    rows = []
    listed = list(record["labels"])
    if max_labels is not None and len(listed) > max_labels:
        listed = sorted(listed, key=lambda name: -record["labels"][name]["crops"])[:max_labels]
    for name in listed:
        each = record["labels"][name]
        rows.append((name, *[_count(split["labels"][name]) for split in splits.values()], *_totals(each, with_total)))
    if others := len(record["labels"]) - len(listed):
        rows.append((f"… and {others} more labels", *[""] * (len(splits) + with_total + 2)))
    if record["labels"] and record["unlabelled"]:
        without = [split["crops"] - sum(split["labels"].values()) for split in splits.values()]
        rows.append(("no label", *map(_count, without), *[_count(record["unlabelled"])] * with_total, "", ""))
    total = {"crops": record["crops"], **record["intensity"]}
    rows.append(("all crops", *[_count(split["crops"]) for split in splits.values()], *_totals(total, with_total)))
    sources = [_count(split["sources"]) for split in splits.values()]
    rows.append(("source images", *sources, *[_count(record["sources"]["total"])] * with_total, "", ""))
    head = ("label" if record["labels"] else "", *splits, *["all"] * with_total, "mean", "sd")
    return Table(head, rows)


def _totals(each: dict[str, Any], with_total: bool) -> tuple[str, ...]:
    """Return the last cells of a row: crops of all splits, mean and standard deviation."""
    return (*[_count(each["crops"])] * with_total, _intensity(each["mean"]), _intensity(each["sd"]))


def _count(number: int) -> str:
    return f"{number:,}"


def _intensity(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def pixel_table(record: dict[str, Any]) -> Table:
    """Make a table of sizes, dtypes, pixel sizes, masks and foreground of the crops.

    Args:
        record: Result of `to_json`.
    """
    crops = record["crops"]
    sizes = {f"{size['height']} x {size['width']}": size["crops"] for size in record["sizes"]}
    pixel_sizes = {_pixel_size(size["y"], size["x"]): size["crops"] for size in record["pixel_sizes_nm"]}
    if unknown := crops - sum(pixel_sizes.values()):
        pixel_sizes["unknown"] = unknown
    scaled = {"scaled": record["scaled"], "as in the source": crops - record["scaled"]}
    rows = [
        ("size in pixels", _counts(sizes, crops)),
        ("dtype", _counts(record["dtypes"], crops)),
        ("stored pixels", _counts(scaled, crops)),
        ("pixel size", _counts(pixel_sizes, crops)),
        ("with a mask", f"{record['with_mask']:,} of {crops:,}"),
    ]
    if planes := {", ".join(each["names"]): each["crops"] for each in record["mask_planes"]}:
        rows.append(("planes of the masks", _counts(planes, record["with_mask"])))
    if record["with_region"]:
        rows.append(("with a region of interest", f"{record['with_region']:,} of {crops:,}"))
    if quantiles := record["foreground_fraction"]:
        low, middle, high = (f"{100 * quantiles[key]:.0f} %" for key in ("0.05", "0.5", "0.95"))
        rows.append(("foreground", f"median {middle} of the pixels; {low} to {high} in 90 % of the crops"))
    rows.append(("uncompressed size", _bytes(record["pixel_bytes"])))
    return Table(("", "crops"), rows)


def _pixel_size(y: float, x: float) -> str:
    return f"{y:g} nm" if y == x else f"{y:g} x {x:g} nm (y, x)"


def _counts(counts: dict[str, int], total: int, limit: int = 6) -> str:
    """Return the values with their counts, or only the value if all crops have the same one."""
    present = {name: count for name, count in counts.items() if count}
    if list(present.values()) == [total]:
        return next(iter(present))
    listed = [f"{name}: {count:,}" for name, count in list(present.items())[:limit]]
    if len(present) > limit:
        listed.append(f"{len(present) - limit} more values")
    return "; ".join(listed)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
