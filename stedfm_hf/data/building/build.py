"""`stedfm data build`: folders of microscope images as a data set that anyone can read and stream.

Files are read in runs of a few, each run by one process and into one part on disk. A run that was killed keeps the
complete parts, and makes the same data set as one that was not.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedfm_hf.data.assembly.output import DatasetSummary, open_dataset, read_summary
from stedfm_hf.data.assembly.staging import Staging, part_name
from stedfm_hf.data.building.cropping import MIN_FOREGROUND, REFERENCE_MIN_FOREGROUND, CropRule
from stedfm_hf.data.building.labels import FROM_FOLDERS, label_files
from stedfm_hf.data.building.masks import mask_stems, pair_masks
from stedfm_hf.data.building.reading import InputFile, ReadingRules, write_part
from stedfm_hf.data.building.selection import Selection
from stedfm_hf.data.repository.layout import INDEX_FILE
from stedfm_hf.data.settings import BuildSettings
from stedfm_hf.images import find_images
from stedfm_hf.runs import Manifest, Progress, UserError, counted, manifest_path, print_note, sha256_file
from stedfm_hf.runs.executors import cores, run_items
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.parts import Part
from stedfm_hf.runs.settings import takes_settings

if TYPE_CHECKING:
    from stedfm_hf.data.publishing.card import CardFacts

COMMAND = "data build"
FILES_PER_PART = 16
BYTES_PER_PART = 2**26
"""A part is what a kill can cost, and what one process does at a time."""
_WORTH_A_PROCESS = 4
"""Parts: a new process takes some seconds to begin."""


@takes_settings(BuildSettings)
def build(settings: BuildSettings) -> DatasetSummary:
    """Make a data set of image files: one row for every crop of every channel.

    Each field is scaled by its 0.1 and 99.9 percentile and cut on a grid whose last crops are shifted inward; crops
    with enough foreground by Otsu's threshold are kept. Exact copies of an image are taken once. The bytes of a file
    decide its split. The manifest has the reason of every file that is skipped or fails; the others go on. The same
    call resumes an interrupted run. A script that takes several workers needs `if __name__ == "__main__":`.

    Raises:
        UserError: An option or an input is wrong, the output is something else or was begun with other settings, no
            crop is left, or the disk is full.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> folder = Path(tempfile.mkdtemp())
        >>> rng = np.random.default_rng(0)
        >>> for name in ("actin/a", "actin/b", "tubulin/c", "tubulin/d"):
        ...     (folder / name).parent.mkdir(parents=True, exist_ok=True)
        ...     np.save(folder / f"{name}.npy", rng.poisson(5.0, (64, 64)).astype(np.uint16))
        >>> summary = build(folder, folder / "crops", crop_size=32, labels="folder", workers=1)
        >>> summary.labels, sum(summary.crops.values())
        (('actin', 'tubulin'), 16)
    """
    output, rules = Path(settings.output), _rules(settings)
    check_output(output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    found = _find(settings)
    inputs = _digest(found.files)
    if not settings.overwrite:
        _refuse_other_files(output, inputs)
    resolved = {
        "stride": rules.crop.step,
        "min_foreground": rules.crop.min_foreground,
        "min_size": rules.selection.min_size,
        "labels": _labels_setting(settings.labels),
        "masks": settings.masks is not None,
    }
    with open_dataset(
        output, COMMAND, settings, resolved=resolved, options={"inputs": inputs, **found.notes}
    ) as opened:
        if opened.finished:
            return read_summary(output, opened.manifest)
        staging, manifest = Staging(output), opened.manifest
        missing = _stage(staging, found, rules, settings)
        for path, reason in found.left_out.items():
            manifest.skipped(path, reason)
        for what, count in missing.items():
            manifest.options[f"files_without_{what.replace(' ', '_')}"] = count
            print_note(f"note: {count} of {len(found.files)} files have no {what}")
        from stedfm_hf.data.assembly.assemble import assemble  # imports torch and datasets

        return assemble(
            staging,
            output,
            manifest=manifest,
            card=_card(output, manifest),
            shares=settings.shares,
            seed=settings.seed,
            rows_per_shard=settings.rows_per_shard,
        )


def _rules(settings: BuildSettings) -> ReadingRules:
    reference = settings.protocol == REFERENCE
    default = REFERENCE_MIN_FOREGROUND if reference else MIN_FOREGROUND
    foreground = default if settings.min_foreground is None else settings.min_foreground
    size = settings.min_size or settings.crop_size
    return ReadingRules(
        crop=CropRule(settings.crop_size, settings.stride, foreground),
        selection=Selection(settings.series, settings.channel, size, settings.max_size, settings.snr, reference),
        raw=settings.pixels == "raw",
        pixel_size_nm=settings.pixel_size_nm,
        assume_pixel_size_nm=settings.assume_pixel_size_nm,
        keep_names=settings.keep_names,
        keep_metadata=settings.keep_metadata,
    )


def _refuse_other_files(output: Path, inputs: str) -> None:
    """Refuse a finished data set of other files.

    Raises:
        UserError: The files have changed.
    """
    record = manifest_path(output, folder=True)
    old = Manifest.load(record) if record.exists() else None
    if old is not None and old.ended is not None and old.options.get("inputs") != inputs:
        raise UserError(
            f"{output}: is finished, and the input files have changed since; choose another output, or replace it "
            "with --overwrite"
        )


class _Found:
    """The files to read, those that are left out beforehand with the reason, and what is worth a note."""

    def __init__(self) -> None:
        self.files: list[InputFile] = []
        self.left_out: dict[str, str] = {}
        self.notes: dict[str, Any] = {}


def _find(settings: BuildSettings) -> _Found:
    output, labels, masks = Path(settings.output), settings.labels, settings.masks
    found, images = _Found(), find_images(settings.inputs)
    found.notes["skipped_files"] = images.skipped
    # Pictures of an earlier run, or of any other data set, are no inputs.
    folders = {folder for each in images.images for folder in Path(os.path.realpath(each.file)).parents}
    made = {Path(os.path.realpath(output)), *filter(_is_repository, folders)}
    taken = [each for each in images.images if made.isdisjoint(Path(os.path.realpath(each.file)).parents)]
    if left := len(images.images) - len(taken):
        found.notes["skipped_dataset_images"] = left
        print_note(f"note: skipped {counted(left, 'image')} that belong to data sets")
    pairs: dict[str, tuple[Path, ...]] = {}
    if masks is not None and taken:
        if not Path(masks).is_dir():
            raise UserError(f"--masks {masks}: no such folder")
        paired = pair_masks(taken, masks)
        taken, pairs = list(paired.images), dict(paired.masks)
        if not pairs:
            wanted = " or ".join(f"{stem}.*" for stem in mask_stems(taken[0].path)) if taken else "an image"
            raise UserError(f"--masks {masks}: holds the mask of no image; that of the first would be {wanted}")
    if not taken:
        raise UserError(f"{output}: all images of the inputs lie in it or in other data sets; name another --output")
    if masks is None and (called := sum(Path(each.path).stem.endswith("_mask") for each in taken)):
        print_note(
            f"note: {called} files are called *_mask and are taken as images; --masks FOLDER takes them as masks"
        )
    named = None if labels is None else label_files([each.path for each in taken], labels)
    if named is not None and named.unused:
        found.notes["label_rows_without_file"] = len(named.unused)
        examples = ", ".join(named.unused[:3])
        print_note(f"warning: {len(named.unused)} rows of the table of labels name no file, such as {examples}")
    for each in taken:
        label = None if named is None else named.labels.get(each.path)
        if named is not None and label is None and not settings.keep_unlabelled:
            found.left_out[each.path] = named.missing
        else:
            found.files.append(InputFile(each.file, each.path, label, pairs.get(each.path, ())))
    return found


def _is_repository(folder: Path) -> bool:
    return (folder / INDEX_FILE).is_file() and (folder / "data").is_dir()


def _labels_setting(labels: str | Path | None) -> str | None:
    if labels is None or os.fspath(labels) == FROM_FOLDERS:
        return None if labels is None else FROM_FOLDERS
    return f"table {sha256_file(labels)[:16]}"


def _digest(files: Sequence[InputFile]) -> str:
    """Tells whether the files are the same as another time, by their paths, sizes and dates."""
    return sha256(json.dumps([[one.path, *one.stamp()] for one in files]).encode()).hexdigest()


def _stage(staging: Staging, found: _Found, rules: ReadingRules, settings: BuildSettings) -> Counter[str]:
    """Read all files that no part on disk covers yet, and count what the used ones lack."""
    parts = {part_name(number): files for number, files in enumerate(_runs(found.files))}
    staging.remove(part.name for part in staging if not _still_holds(part, parts.get(part.name, ())))
    present = set(staging.names())
    left = {name: files for name, files in parts.items() if name not in present}
    write = partial(write_part, masked=settings.masks is not None)
    calls = ((staging, name, files, rules) for name, files in left.items())
    most = settings.workers or max(1, min(cores(), len(left) // _WORTH_A_PROCESS))
    total, to_do = len(found.files), sum(map(len, left.values()))
    with Progress(total, description="build", unit="files", done=total - to_do) as progress:
        for statuses in run_items(write, calls, workers=min(most, len(left))):
            for path, status in statuses.items():
                if status.state == "failed":
                    progress.note(f"stedfm: error: {path}: {status.reason}")
            progress.update(len(statuses))
    missing: Counter[str] = Counter()
    for part in staging:
        missing.update(part.notes["missing"])
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


def _still_holds(part: Part, files: Sequence[InputFile]) -> bool:
    """Whether a part covers just these files, as they are now, and none of them failed."""
    same = part.notes["files"] == [[one.path, *one.stamp()] for one in files]
    return same and all(status.state != "failed" for status in part.items.values())


def _card(output: Path, manifest: Manifest) -> CardFacts:
    from stedfm_hf.data.publishing.card import CardFacts

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
        made_by=f"stedfm {COMMAND}",
        settings=chosen,
        limits=tuple(limits),
    )
