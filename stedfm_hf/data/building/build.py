"""`stedfm data build`: folders of microscope images as a data set repository that anyone can read and stream.

Files are read in runs of a few, each run by one process and into one part on disk. A run that was killed keeps the
parts that are whole, and makes the same repository as one that was not. (Behaviour: ours; cropping: reference.)
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from stedfm_hf.data.assembly.assemble import WHAT_IS_MADE, DatasetSummary, assemble, read_summary
from stedfm_hf.data.assembly.staging import Staging
from stedfm_hf.data.building.cropping import LEGACY_MIN_FOREGROUND, MIN_FOREGROUND, CropRule
from stedfm_hf.data.building.labels import FROM_FOLDERS, label_files
from stedfm_hf.data.building.masks import mask_stems, pair_masks
from stedfm_hf.data.building.reading import InputFile, ReadingRules, write_part
from stedfm_hf.data.building.selection import Selection
from stedfm_hf.data.publishing.card import CardFacts
from stedfm_hf.data.repository.layout import INDEX_FILE
from stedfm_hf.data.repository.shards import ROWS_PER_SHARD
from stedfm_hf.data.splits import SHARES, SplitShares
from stedfm_hf.images import find_images
from stedfm_hf.runs import Manifest, Progress, UserError, manifest_path, sha256_file
from stedfm_hf.runs.executors import cores, run_items

VERB = "data build"
PIXELS = ("8bit", "raw")
FILES_PER_PART = 16
BYTES_PER_PART = 2**26
"""A part is what a kill can cost, and what one process does at a time."""
_WORTH_A_PROCESS = 4
"""Parts: a new process takes some seconds to begin."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

Input = str | os.PathLike[str]


def build(
    inputs: Input | Iterable[Input],
    output: Input,
    *,
    crop: int = 224,
    stride: int | None = None,
    min_foreground: float | None = None,
    legacy: bool = False,
    pixels: str = "8bit",
    series: str | int | None = None,
    channel: str | int | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    snr: tuple[float, float] | None = None,
    reference_selection: bool = False,
    labels: Input | None = None,
    keep_unlabelled: bool = False,
    masks: Input | None = None,
    pixel_size_nm: float | None = None,
    assume_pixel_size_nm: float | None = None,
    shares: SplitShares = SHARES,
    seed: int = 0,
    rows_per_shard: int = ROWS_PER_SHARD,
    keep_names: bool = False,
    keep_metadata: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
) -> DatasetSummary:
    """Makes a data set repository out of image files: one row for every crop of every channel.

    Each field is scaled by its 0.1 and 99.9 percentile, cut on a grid whose last crops are shifted inward, and of its
    crops those are kept that have enough foreground by Otsu's threshold. Exact copies of an image are taken once.
    Splits are by file. Whatever is left out or fails is in the manifest with the reason; the others go on. The same
    call again goes on where a stopped one was, and tries again what had failed.

    Args:
        inputs: files, folders and globs of the formats of :func:`stedfm_hf.read_image`.
        output: the repository to make.
        crop: side of a crop in pixels.
        stride: from one crop to the next; None takes `crop`.
        min_foreground: a crop is kept if more than this share of it is foreground; None takes 0.01.
        legacy: take 0.001 as the reference did, which admits nearly empty crops.
        pixels: "8bit" stores scaled pixels, "raw" those of the file as they are, with the scaling beside them.
        series: name of the series to take, a pattern for it (`STED*`) or its number; None takes all.
        channel: name or number of the channel to take; None takes all.
        min_size: least length of both sides of a field; None takes `crop`.
        max_size: greatest length of both sides.
        snr: least and greatest mean of the foreground over standard deviation of the background.
        reference_selection: take what the reference took, see :class:`stedfm_hf.data.building.selection.Selection`.
        labels: "folder" for the first folder below the input, or a table, see
            :func:`stedfm_hf.data.building.labels.label_files`; None makes no labels.
        keep_unlabelled: take files that have no label as well.
        masks: folder with masks, see :func:`stedfm_hf.data.building.masks.pair_masks`.
        pixel_size_nm: resample every field to this pixel size; those that have none are left out.
        assume_pixel_size_nm: pixel size of files that do not say theirs.
        shares: shares of the splits; a file's split is decided by its bytes alone, see
            :func:`stedfm_hf.data.splits.split_of`.
        seed: random seed of the order on disk.
        rows_per_shard: crops of a shard at most.
        keep_names: use the relative path of a file as its id, which is else a hash of its bytes, and keep names of
            series that look like names of files.
        keep_metadata: keep all that the files say, free text as well; else technical facts only.
        workers: processes; None takes as many as there are cores. A script that takes more than one needs
            `if __name__ == "__main__":`.
        overwrite: begin anew.

    Returns:
        What is in the repository.

    Raises:
        UserError: an option or an input is wrong, the output is something else or was begun with other settings, no
            crop is left, or the disk is full.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> folder = Path(tempfile.mkdtemp())
        >>> rng = np.random.default_rng(0)
        >>> for name in ("actin/a", "actin/b", "tubulin/c", "tubulin/d"):
        ...     (folder / name).parent.mkdir(parents=True, exist_ok=True)
        ...     np.save(folder / f"{name}.npy", rng.poisson(5.0, (64, 64)).astype(np.uint16))
        >>> summary = build(folder, folder / "crops", crop=32, labels="folder", workers=1)
        >>> summary.labels, sum(summary.crops.values())
        (('actin', 'tubulin'), 16)
    """
    output = Path(output)
    if pixels not in PIXELS:
        raise UserError(f"--pixels {pixels!r} is unknown; choose {' or '.join(PIXELS)}")
    if legacy and min_foreground is not None:
        raise UserError("--legacy is a foreground of 0.001; leave out --min-foreground")
    if min_foreground is None:
        min_foreground = LEGACY_MIN_FOREGROUND if legacy else MIN_FOREGROUND
    for name, value in (("pixel-size-nm", pixel_size_nm), ("assume-pixel-size-nm", assume_pixel_size_nm)):
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name} {value} is no pixel size; give nanometres above 0")
    for name, number in (("workers", workers), ("rows-per-shard", rows_per_shard)):
        if number is not None and number < 1:
            raise UserError(f"--{name} {number} is too small; the least is 1")
    if min_size is not None and min_size < crop:
        raise UserError(f"--min-size {min_size} is below the crop of {crop} pixels; a smaller field gives none")
    rules = ReadingRules(
        crop=CropRule(crop, stride, min_foreground),
        selection=Selection(series, channel, min_size or crop, max_size, snr, reference_selection),
        raw=pixels == "raw",
        pixel_size_nm=pixel_size_nm,
        assume_pixel_size_nm=assume_pixel_size_nm,
        keep_names=keep_names,
        keep_metadata=keep_metadata,
    )
    found = _find(inputs, output, labels, masks, keep_unlabelled)
    manifest = Manifest(
        VERB,
        settings={
            "crop": crop,
            "stride": rules.crop.step,
            "min_foreground": min_foreground,
            "pixels": pixels,
            "series": series,
            "channel": channel,
            "min_size": rules.selection.min_size,
            "max_size": max_size,
            "snr": snr,
            "reference_selection": reference_selection,
            "labels": _labels_setting(labels),
            "keep_unlabelled": keep_unlabelled,
            "masks": masks is not None,
            "pixel_size_nm": pixel_size_nm,
            "assume_pixel_size_nm": assume_pixel_size_nm,
            "validation": shares.validation,
            "test": shares.test,
            "rows_per_shard": rows_per_shard,
            "keep_names": keep_names,
            "keep_metadata": keep_metadata,
        },
        options={"inputs": _digest(found.files), **found.notes},
        seed=seed,
    )
    with _mendable(output):
        if _begin(output, manifest, overwrite):
            return read_summary(output, manifest)
        staging = Staging(output)
        missing = _stage(staging, found, rules, masks is not None, workers)
        for path, reason in found.left_out.items():
            manifest.skipped(path, reason)
        for what, count in missing.items():
            manifest.options[f"files_without_{what.replace(' ', '_')}"] = count
            _tell(f"note: {count} of {len(found.files)} files have no {what}")
        return assemble(
            staging,
            output,
            manifest=manifest,
            card=_card(output, manifest),
            shares=shares,
            seed=seed,
            rows_per_shard=rows_per_shard,
        )


# ------------------------------------------------------------------------------------- what there is


class _Found:
    """The files to read, those that are left out beforehand with the reason, and what is worth a note."""

    def __init__(self) -> None:
        self.files: list[InputFile] = []
        self.left_out: dict[str, str] = {}
        self.notes: dict[str, Any] = {}


def _find(
    inputs: Input | Iterable[Input],
    output: Path,
    labels: Input | None,
    masks: Input | None,
    keep_unlabelled: bool,
) -> _Found:
    found, images = _Found(), find_images(inputs)
    found.notes["skipped_files"] = images.skipped
    # Pictures of an earlier run, or of any other data set, are no inputs.
    folders = {folder for each in images.images for folder in Path(os.path.realpath(each.file)).parents}
    made = {Path(os.path.realpath(output)), *filter(_is_repository, folders)}
    taken = [each for each in images.images if made.isdisjoint(Path(os.path.realpath(each.file)).parents)]
    if left := len(images.images) - len(taken):
        found.notes["pictures_of_data_sets"] = left
        _tell(f"note: {left} pictures that belong to data sets are passed over")
    pairs: dict[str, tuple[Path, ...]] = {}
    if masks is not None and taken:
        if not Path(masks).is_dir():
            raise UserError(f"--masks {masks}: is no folder")
        paired = pair_masks(taken, masks)
        taken, pairs = list(paired.images), dict(paired.masks)
        if not pairs:
            wanted = " or ".join(f"{stem}.*" for stem in mask_stems(taken[0].path)) if taken else "an image"
            raise UserError(f"--masks {masks}: holds the mask of no image; that of the first would be {wanted}")
    if not taken:
        raise UserError(f"{output}: all images of the inputs lie in it or in other data sets; name another --output")
    if masks is None and (called := sum(Path(each.path).stem.endswith("_mask") for each in taken)):
        _tell(f"note: {called} files are called *_mask and are taken as images; --masks FOLDER takes them as masks")
    named = None if labels is None else label_files([each.path for each in taken], labels)
    if named is not None and named.unused:
        found.notes["label_rows_without_file"] = len(named.unused)
        examples = ", ".join(named.unused[:3])
        _tell(f"warning: {len(named.unused)} rows of the table of labels name no file, such as {examples}")
    for each in taken:
        label = None if named is None else named.labels.get(each.path)
        if named is not None and label is None and not keep_unlabelled:
            found.left_out[each.path] = named.missing
        else:
            found.files.append(InputFile(each.file, each.path, label, pairs.get(each.path, ())))
    return found


def _is_repository(folder: Path) -> bool:
    return (folder / INDEX_FILE).is_file() and (folder / "data").is_dir()


def _labels_setting(labels: Input | None) -> str | None:
    if labels is None or os.fspath(labels) == FROM_FOLDERS:
        return None if labels is None else FROM_FOLDERS
    return f"table {sha256_file(labels)[:16]}"


def _digest(files: Sequence[InputFile]) -> str:
    """Tells whether the files are the same as another time, by their paths, sizes and dates."""
    return sha256(json.dumps([[one.path, *one.stamp()] for one in files]).encode()).hexdigest()


def _tell(text: str) -> None:
    Progress(None, description=VERB).note(f"stedfm: {text}")


# ------------------------------------------------------------------------------------- the run


def _begin(output: Path, manifest: Manifest, overwrite: bool) -> bool:
    """Takes up what an earlier run left; whether that had come to its end."""
    record = manifest_path(output, folder=True)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; name a folder")
    if not record.exists():
        if output.is_dir() and any(not each.name.startswith(".") for each in output.iterdir()):
            raise UserError(f"{output}: holds other files; name a new folder")
        Staging(output).remove()
    elif overwrite:
        # The parts go first: they must not be taken for parts of the new run.
        Staging(output).remove()
        manifest.save(record)
        for name in WHAT_IS_MADE:
            path = output / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    else:
        old = Manifest.load(record)
        if old.ended is None and not Staging(output).numbers():
            manifest.save(record)  # nothing is there yet that the settings could have decided
            return False
        manifest.resume_from(old)
        if old.ended is not None:
            if old.options.get("inputs") != manifest.options["inputs"]:
                raise UserError(
                    f"{output}: is finished, and the input files have changed since; name another output, or give "
                    "--overwrite to build it anew"
                )
            Staging(output).remove()
            _tell(f"{output} is finished already; --overwrite builds it anew")
            manifest.items, manifest.options = old.items, old.options
            manifest.ended, manifest.seconds = old.ended, old.seconds
            return True
        manifest.items.clear()  # the parts tell
    manifest.save(record)
    return False


def _stage(staging: Staging, found: _Found, rules: ReadingRules, masked: bool, workers: int | None) -> Counter[str]:
    """Reads all files that no part on disk covers yet; returns what how many of the used ones lack."""
    for leftover in staging.folder.glob(".*.tmp.*"):
        leftover.unlink()
    parts = dict(enumerate(_runs(found.files)))
    for number in staging.numbers():
        if number not in parts or not _still_holds(staging, number, parts[number]):
            staging.path(number).unlink()
    left = {number: files for number, files in parts.items() if not staging.path(number).exists()}
    write = partial(write_part, masked=masked)
    calls = ((staging, number, files, rules) for number, files in left.items())
    most = workers or max(1, min(cores(), len(left) // _WORTH_A_PROCESS))
    total, to_do = len(found.files), sum(map(len, left.values()))
    with Progress(total, description="build", unit="files", done=total - to_do) as progress:
        for statuses in run_items(write, calls, workers=min(most, len(left))):
            for path, status in statuses.items():
                if status.state == "failed":
                    progress.note(f"stedfm: error: {path}: {status.reason}")
            progress.update(len(statuses))
    missing: Counter[str] = Counter()
    for number in parts:
        missing.update(staging.read_part(number).notes["missing"])
    return missing


def _runs(files: Sequence[InputFile]) -> Iterator[list[InputFile]]:
    """Files that make a part: a few, and if they are more than one, not too large together."""
    run, used = list[InputFile](), 0
    for one in files:
        size = one.stamp()[0]
        if run and (len(run) == FILES_PER_PART or used + size > BYTES_PER_PART):
            yield run
            run, used = [], 0
        run.append(one)
        used += size
    if run:
        yield run


def _still_holds(staging: Staging, number: int, files: Sequence[InputFile]) -> bool:
    """Whether a part covers just these files, as they are now, and none of them failed."""
    part = staging.read_part(number)
    same = part.notes.get("files") == [[one.path, *one.stamp()] for one in files]
    return same and all(status.state != "failed" for status in part.statuses.values())


@contextmanager
def _mendable(output: Path) -> Iterator[None]:
    """What the world does to a run, in a line that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        # What the last step had written is of no use, and takes the room that is wanted.
        shutil.rmtree(Staging(output).folder / "assembled", ignore_errors=True)
        raise UserError(
            f"{output}: no room is left on the disk; make room, and the same command goes on where it stopped"
        ) from error


def _card(output: Path, manifest: Manifest) -> CardFacts:
    settings = {name.replace("_", "-"): value for name, value in manifest.settings.items()}
    chosen = {name: value for name, value in settings.items() if value not in (None, False)}
    limits = []
    if manifest.settings["pixels"] == "8bit":
        limits.append(
            "Every field was scaled to 8 bit by its own 0.1 and 99.9 percentile: brightness of different fields "
            "cannot be compared."
        )
    return CardFacts(
        title=output.resolve().name,
        made_by=f"stedfm {VERB}",
        settings=chosen | {"seed": manifest.seed},
        limits=tuple(limits),
    )
