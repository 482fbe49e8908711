"""The figures of a data set as tables: for the terminal and for the card."""

from __future__ import annotations

from typing import Any

from stedfm_hf.reports import Table


def count_table(record: dict[str, Any], *, most_labels: int | None = None) -> Table:
    """Crops of every label and split, with mean and standard deviation of their scaled pixels.

    Args:
        record: of :meth:`stedfm_hf.data.publishing.statistics.Statistics.to_json`.
        most_labels: labels to list at most, the most frequent ones; None lists all.
    """
    splits = record["splits"]
    several = len(splits) > 1
    rows = []
    listed = list(record["labels"])
    if most_labels is not None and len(listed) > most_labels:
        listed = sorted(listed, key=lambda name: -record["labels"][name]["crops"])[:most_labels]
    for name in listed:
        each = record["labels"][name]
        rows.append((name, *[_count(split["labels"][name]) for split in splits.values()], *_ends(each, several)))
    if left := len(record["labels"]) - len(listed):
        rows.append((f"… and {left} more labels", *[""] * (len(splits) + several + 2)))
    if record["labels"] and record["unlabelled"]:
        without = [split["crops"] - sum(split["labels"].values()) for split in splits.values()]
        rows.append(("no label", *map(_count, without), *[_count(record["unlabelled"])] * several, "", ""))
    total = {"crops": record["crops"], **record["intensity"]}
    rows.append(("all crops", *[_count(split["crops"]) for split in splits.values()], *_ends(total, several)))
    sources = [_count(split["sources"]) for split in splits.values()]
    rows.append(("source images", *sources, *[_count(record["sources"]["total"])] * several, "", ""))
    head = ("label" if record["labels"] else "", *splits, *["all"] * several, "mean", "sd")
    return Table(head, rows)


def _ends(each: dict[str, Any], several: bool) -> tuple[str, ...]:
    return (*[_count(each["crops"])] * several, _intensity(each["mean"]), _intensity(each["sd"]))


def _count(number: int) -> str:
    return f"{number:,}"


def _intensity(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def pixel_table(record: dict[str, Any]) -> Table:
    """Sizes, dtypes, pixel sizes, masks and foreground of the crops.

    Args:
        record: of :meth:`stedfm_hf.data.publishing.statistics.Statistics.to_json`.
    """
    crops = record["crops"]
    sizes = {f"{size['height']} x {size['width']}": size["crops"] for size in record["sizes"]}
    pixel_sizes = {_pixel_size(size["y"], size["x"]): size["crops"] for size in record["pixel_sizes_nm"]}
    if unknown := crops - sum(pixel_sizes.values()):
        pixel_sizes["not known"] = unknown
    scaled = {"scaled": record["scaled"], "as in the source": crops - record["scaled"]}
    rows = [
        ("crop, pixels", _shares(sizes, crops)),
        ("stored as", _shares(record["dtypes"], crops)),
        ("stored pixels", _shares(scaled, crops)),
        ("pixel size", _shares(pixel_sizes, crops)),
        ("with a mask", f"{record['with_mask']:,} of {crops:,}"),
    ]
    if kinds := {", ".join(each["names"]): each["crops"] for each in record["mask_planes"]}:
        rows.append(("planes of the masks", _shares(kinds, record["with_mask"])))
    if record["with_region"]:
        rows.append(("with a region of interest", f"{record['with_region']:,} of {crops:,}"))
    if quantiles := record["foreground_fraction"]:
        low, middle, high = (f"{100 * quantiles[key]:.0f} %" for key in ("0.05", "0.5", "0.95"))
        rows.append(("foreground", f"median {middle} of a crop; 90 % of the crops from {low} to {high}"))
    rows.append(("pixels, uncompressed", _bytes(record["pixel_bytes"])))
    return Table(("", "crops"), rows)


def _pixel_size(y: float, x: float) -> str:
    return f"{y:g} nm" if y == x else f"{y:g} x {x:g} nm (y, x)"


def _shares(counts: dict[str, int], total: int, most: int = 6) -> str:
    """The kinds with their numbers, or the only kind alone."""
    present = {name: count for name, count in counts.items() if count}
    if list(present.values()) == [total]:
        return next(iter(present))
    listed = [f"{name}: {count:,}" for name, count in list(present.items())[:most]]
    if len(present) > most:
        listed.append(f"{len(present) - most} more kinds")
    return "; ".join(listed)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
