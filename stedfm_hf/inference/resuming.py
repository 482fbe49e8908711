"""What an earlier run leaves to do: files that are new, had failed, or have changed since."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from stedfm_hf.data.sources import Source
from stedfm_hf.runs import FileStamp, Manifest, counted, some_of


def left_to_do(
    manifest: Manifest,
    sources: Sequence[Source],
    forget: Callable[[Collection[str]], None] | None = None,
    *,
    begun: Mapping[str, FileStamp] | None = None,
) -> list[Source]:
    """Find the sources that are not done, or whose file is not the one that was read then.

    A file has changed if its size or its time of modification is another. Where that was not recorded, by versions
    before this or of rows of a data set, nothing has. Results of files that are no longer among the sources stay: an
    output may gather several inputs. Of both, one line says so.

    Args:
        manifest: With the items of earlier runs; those that have changed are taken out, and it learns the stamps of
            the files that it will record.
        sources: All sources.
        forget: Removes what there is of changed files, before the manifest forgets them.
        begun: Files of which a stopped run has done a part, with their stamps.
    """
    now = {source.path: source.stamp for source in sources}
    manifest.stamps = {path: stamp for path, stamp in now.items() if stamp is not None}
    done = {path: status.stamp for path, status in manifest.items.items()}
    changed = [
        path
        for path, stamp in manifest.stamps.items()
        if not {done.get(path), (begun or {}).get(path)} <= {stamp, None}
    ]
    if changed:
        have, are = ("has", "is") if len(changed) == 1 else ("have", "are")
        _say(f"{counted(len(changed), 'file')} {have} changed since and {are} done anew: {some_of(changed)}")
        if forget is not None:
            forget(changed)
        for path in changed:
            manifest.items.pop(path, None)
    if gone := [path for path in manifest.items if path not in now]:
        are, their = ("is", "its") if len(gone) == 1 else ("are", "their")
        files = f"{counted(len(gone), 'file')} of earlier runs {are} not among the inputs now"
        _say(f"{files}; {their} rows stay: {some_of(gone)}")
    return [source for source in sources if source.path not in manifest.items]


def remove_maps(folder: Path, paths: Iterable[str], kinds: Iterable[str]) -> None:
    """Remove the files `<path>.<kind><n>.tif` and `.png` of some sources, whatever `n`."""
    pattern = re.compile(rf"(.+)\.(?:{'|'.join(kinds)})\d+\.(?:tif|png)")
    images = {folder / path for path in paths}
    for place in {image.parent for image in images if image.parent.is_dir()}:
        for file in list(place.iterdir()):
            if (match := pattern.fullmatch(file.name)) and place / match[1] in images:
                file.unlink()


def _say(text: str) -> None:
    print(f"stedfm: {text}", file=sys.stderr)
