"""Find the sources that a resumed run has to process: new, failed and changed files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from stedfm_hf.data.sources import Source
from stedfm_hf.runs import FileStamp, Manifest, counted, some_of
from stedfm_hf.runs.files import remove_leftovers, remove_path


def unfinished(
    manifest: Manifest,
    sources: Sequence[Source],
    remove_results: Callable[[Collection[str]], None] | None = None,
    *,
    begun: Mapping[str, FileStamp] | None = None,
) -> list[Source]:
    """Find the sources that are not done, or whose file has changed since.

    A file has changed if its size or its time of modification differs from the record. Results of files that are not
    among the sources any more are kept, because an output may combine more than one input. Both are reported.

    Args:
        manifest: Manifest with the items of earlier runs; changed items are removed from it.
        sources: All sources.
        remove_results: Function that removes the results of changed files.
        begun: Stamps of the files that an interrupted run has processed in part.

    Returns:
        The sources that the manifest does not record any more.
    """
    now = {source.path: source.stamp for source in sources}
    items, parts = manifest.items, begun or {}
    changed = [
        path
        for path, stamp in now.items()
        if stamp and not {items[path].stamp if path in items else None, parts.get(path)} <= {stamp, None}
    ]
    if changed:
        have, are = ("has", "is") if len(changed) == 1 else ("have", "are")
        _say(f"{counted(len(changed), 'file')} {have} changed and {are} processed again: {some_of(changed)}")
        if remove_results is not None:
            remove_results(changed)
        for path in changed:
            manifest.items.pop(path, None)
    if gone := [path for path in manifest.items if path not in now]:
        are, their = ("is", "its") if len(gone) == 1 else ("are", "their")
        files = f"{counted(len(gone), 'file')} of earlier runs {are} not among the inputs"
        _say(f"{files}; {their} rows are kept: {some_of(gone)}")
    return [source for source in sources if source.path not in manifest.items]


def remove_maps(folder: Path, paths: Iterable[str], kinds: Iterable[str]) -> None:
    """Remove the files `<path>.<kind><n>.tif`, `.ome.tif`, `.ome.zarr`, `.png` and `.zip` of some sources.

    Files that a killed process was writing are removed, too, of all sources.
    Paths that lead out of the folder are ignored: they can come from a manifest that somebody else wrote.
    """
    pattern = re.compile(rf"(.+)\.(?:{'|'.join(kinds)})\d+\.(?:(?:ome\.)?tif|ome\.zarr|png|zip)")
    images = {folder / path for path in paths if not Path(path).is_absolute() and ".." not in Path(path).parts}
    for place in {image.parent for image in images if image.parent.is_dir()}:
        for file in list(place.iterdir()):
            if (match := pattern.fullmatch(file.name)) and place / match[1] in images:
                remove_path(file)
    remove_leftovers(folder)


def _say(text: str) -> None:
    print(f"stedfm: {text}", file=sys.stderr)
