"""Annotated images from folders of image files and their masks (ours)."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.data.splits import file_id
from stedfm_hf.images import ALL_SERIES, ImageReadError, StedImage, list_series, read_image
from stedfm_hf.labels.annotated.annotation_files import read_mask
from stedfm_hf.labels.annotated.pairing import Pair, each_plane, find_pairs
from stedfm_hf.labels.annotated.rows import Checked, MaskedRows, check_shows_something, content_digest, digest_of
from stedfm_hf.labels.annotated.stored import StoredMask, count
from stedfm_hf.labels.labelled.reading import source_of
from stedfm_hf.runs import UserError, some_of


def read_folder(
    folder: Path,
    masks: Path | None,
    *,
    series: str | int | None,
    channel: str | int | None,
    source_pattern: str | None,
) -> dict[str, MaskedRows]:
    """The annotated images of a folder by split; see :func:`~stedfm_hf.labels.annotated.pairing.find_pairs`.

    Every image and mask is decoded once here, so that one that is damaged is known before anything is trained. For
    `series`, `channel` and `source_pattern` see :func:`~stedfm_hf.labels.annotated.read_annotated`.
    """
    splits = find_pairs(folder, masks)
    if series == ALL_SERIES:
        splits = {name: [part for pair in pairs for part in each_plane(pair)] for name, pairs in splits.items()}
        series = None
    check = functools.partial(_check_pair, series=series, channel=channel)
    found = {}
    for split, pairs in splits.items():
        with_mask = [pair for pair in pairs if pair.masks]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            checked = list(pool.map(check, with_mask))
        good = [number for number, each in enumerate(checked) if isinstance(each, Checked)]
        kept = [each for each in checked if isinstance(each, Checked)]
        places = [pair.place for pair in with_mask]
        found[split] = MaskedRows(
            facts=[each.facts for each in kept],
            sources=[
                source_of(with_mask[number].image.path, source_pattern, each.content)
                for number, each in zip(good, kept, strict=True)
            ],
            places=[places[number] for number in good],
            contents=[each.content for each in kept],
            rows=range(len(good)),
            digest=digest_of([series, channel], *(each.digest for each in kept)),
            reads=FileReads(
                tuple(with_mask[number] for number in good), tuple(each.shape for each in kept), series, channel
            ),
            failed={place: each for place, each in zip(places, checked, strict=True) if isinstance(each, str)},
            unmasked=[pair.place for pair in pairs if not pair.masks],
        )
    return found


@dataclass(frozen=True)
class FileReads:
    """Reads pairs of files."""

    pairs: tuple[Pair, ...]
    shapes: tuple[tuple[int, int], ...]
    series: str | int | None
    channel: str | int | None

    def image(self, number: int) -> StedImage:
        """The image of a row."""
        return _image_of(self.pairs[number], self.series, self.channel)

    def mask(self, number: int) -> StoredMask:
        """The mask of a row."""
        return _mask_of(self.pairs[number], self.shapes[number])


def _image_of(pair: Pair, series: str | int | None, channel: str | int | None) -> StedImage:
    return read_image(pair.image.file, series=series if pair.plane is None else pair.plane[0], channel=channel)


def _mask_of(pair: Pair, shape: tuple[int, int]) -> StoredMask:
    return read_mask(pair.masks[0], shape, pair.region, part=pair.plane)


def _check_pair(pair: Pair, *, series: str | int | None, channel: str | int | None) -> Checked | str:
    """What is known of a pair, or why it cannot be used."""
    file = pair.image.file
    try:
        if len(pair.masks) > 1:
            names = ", ".join(each.name for each in pair.masks)
            return f"has several masks ({names}); keep one"
        there = [each.name for each in list_series(file)] if series is None and pair.plane is None else []
        if len(there) > 1:
            return (
                f"holds {len(there)} series ({some_of(there)}): --series all takes each as an image, with the plane "
                "of the mask that has its number; if the planes of the mask are classes, --series 0 takes one"
            )
        image = _image_of(pair, series, channel)
        check_shows_something(image.array)
        height, width = image.array.shape[1:]
        mask = _mask_of(pair, (height, width))
        return Checked(count(mask), (height, width), content_digest(image, mask), file_id(file))
    except UserError:
        raise
    except (ImageReadError, OSError, MemoryError) as error:
        return (" ".join(str(error).split()) or type(error).__name__).rpartition(f"{file.name}: ")[2]
