"""Summary of folders: groups of equal files, masks, doubtful files, and what every command would read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from stedfm_hf.images.mask_names import find_masks
from stedfm_hf.info.described import DescribedFile, series_cells
from stedfm_hf.labels.annotated.folders import find_pairs
from stedfm_hf.runs import UserError, counted, some_of
from stedfm_hf.runs.notes import ItemNotes
from stedfm_hf.runs.wording import text_table

CROP = 224
"""Crop size of the published models, in pixels."""
_MOST_GROUPS = 30


def summarise(inputs: Sequence[Path], described: Sequence[DescribedFile]) -> str:
    """Return the lines of a summary.

    Args:
        inputs: Inputs of the command.
        described: All files of the inputs, including masks.
    """
    masks = set(find_masks([each.found for each in described]))
    images = [each for each in described if each.found not in masks]
    readable = [each for each in images if each.error is None]
    failed = len(described) - len([each for each in described if each.error is None])
    formats = Counter(each.format for each in readable)
    shown = ", ".join(f"{number} {name}" for name, number in formats.most_common())
    head = [f"{counted(len(readable), 'image file')} ({shown})" if shown else "no readable image file"]
    head += [counted(len(masks), "mask")] if masks else []
    head += [counted(failed, "unreadable file")] if failed else []
    lines = [", ".join(head), "", *_group_lines(readable)]
    if doubts := list(_doubts(readable)):
        lines += ["", "look at:", *(f"  {line}" for line in doubts)]
    return "\n".join([*lines, "", *_command_lines(inputs, readable)])


def _group_lines(files: Sequence[DescribedFile]) -> Iterator[str]:
    """Yield a table with a row for each group of files with equal content."""
    groups: dict[tuple[str, ...], list[DescribedFile]] = {}
    for each in files:
        cells = list(dict.fromkeys(series_cells(series) for series in each.series))
        columns = [" / ".join(dict.fromkeys(column)) for column in zip(*cells, strict=True)]
        groups.setdefault((str(len(each.series)), *columns), []).append(each)
    rows = [
        (str(len(group)), group[0].found.path, *cells)
        for cells, group in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
    head = ("files", "example", "series", "channels", "height x width", "type", "pixel size (y x)")
    if rows:
        yield from text_table(head, rows[:_MOST_GROUPS]).splitlines()
    if len(rows) > _MOST_GROUPS:
        yield f"and {len(rows) - _MOST_GROUPS} more kinds of files; --json lists every file"


def _doubts(files: Sequence[DescribedFile]) -> Iterator[str]:
    """Yield what a person should check before a command reads the files."""
    notes = ItemNotes()
    for each in files:
        sizes = {series.pixel_size_nm for series in each.series}
        found = list(each.notes)
        if None in sizes:
            found.append("the file has no pixel size: scale bars, areas and resampling need one")
        if each.format == "JPEG":
            found.append("JPEG changes the pixel values: do not measure on them")
        if any(series.channel_names == ("red", "green", "blue") for series in each.series):
            found.append("a colour image, whose colours are read as three channels")
        if any(min(series.shape[1:]) < CROP for series in each.series):
            found.append(f"smaller than {CROP} pixels, the crops of the published models")
        notes.add(each.found.path, found)
    yield from notes.lines()
    known = Counter(
        "{:.4g} x {:.4g} nm".format(*series.pixel_size_nm)
        for each in files
        for series in each.series
        if series.pixel_size_nm is not None
    )
    if len(known) > 1:
        yield f"{len(known)} pixel sizes ({some_of([size for size, _ in known.most_common()])}): compare equal ones"


def _command_lines(inputs: Sequence[Path], files: Sequence[DescribedFile]) -> Iterator[str]:
    """Yield a table of what every command would read."""
    single = [each for each in files if len(each.series) == 1]
    rows = [
        ("embed, classify", f"{counted(len(files), 'file')}: {counted(sum(each.rows for each in files), 'row')}"),
        ("segment", counted(len(single), "file") + _several(len(files) - len(single))),
        ("data build", counted(len(files), "file")),
    ]
    classes = Counter(each.found.path.split("/")[0] for each in files if "/" in each.found.path)
    if len(classes) > 1:
        listed = some_of([f"{name} ({number})" for name, number in classes.most_common()], most=6)
        rows.append(("finetune classification", f"{len(classes)} classes from folders: {listed}"))
    for each in inputs:
        if each.is_dir():
            rows += [("finetune segmentation", line) for line in _pair_lines(each)]
    yield from text_table(("command", "reads"), rows).splitlines()


def _several(number: int) -> str:
    if not number:
        return ""
    return f"; {counted(number, 'file')} with several series {'needs' if number == 1 else 'need'} --series"


def _pair_lines(folder: Path) -> Iterator[str]:
    """Yield how many images of a folder have a mask; nothing if none has."""
    try:
        pairs = [pair for split in find_pairs(folder, None).values() for pair in split]
    except UserError as error:
        yield str(error)
        return
    with_mask = [pair for pair in pairs if len(pair.masks) == 1]
    several = [pair for pair in pairs if len(pair.masks) > 1]
    if with_mask or several:
        example = f" (such as {with_mask[0].masks[0].name} for {with_mask[0].image.path})" if with_mask else ""
        without = len(pairs) - len(with_mask) - len(several)
        yield (
            f"{counted(len(with_mask), 'image')} with a mask{example}"
            + (f", {len(several)} with several masks" if several else "")
            + (f", {without} without" if without else "")
        )
