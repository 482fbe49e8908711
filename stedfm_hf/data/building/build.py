"""`stedfm data build`: a data set of crops from folders of microscope images.

Each process reads a few files and writes their crops as one part on disk. After an interruption, complete parts are
kept, and the resumed run writes the same data set as a run without interruption.
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
from stedfm_hf.data.building.reading import InputFile, ReadingRules, write_part
from stedfm_hf.data.building.selection import Selection
from stedfm_hf.data.repository.layout import INDEX_FILE
from stedfm_hf.data.settings import BuildSettings
from stedfm_hf.images import FoundImage, find_images
from stedfm_hf.images.mask_names import (
    describe_masks,
    describe_same_names,
    find_masks,
    is_mask_name,
    mask_examples,
    pair_masks,
)
from stedfm_hf.runs import Manifest, Progress, UserError, counted, manifest_path, print_note, sha256_file
from stedfm_hf.runs.attempts import BATCH_ATTEMPTS
from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.executors import Workers, cores, run_items
from stedfm_hf.runs.notes import ItemNotes
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.parts import Part
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.storage import as_path, is_remote, protocol_of, real_path
from stedfm_hf.runs.workers import open_workers

if TYPE_CHECKING:
    from stedfm_hf.data.publishing.card import CardFacts

COMMAND = "data build"
FILES_PER_PART = 16
BYTES_PER_PART = 2**26
"""Size of the files of a part, in bytes. A part is the unit of work of a process; a killed run repeats at most one."""
_PARTS_PER_PROCESS = 4
"""Smallest number of parts for which a process is started, which takes some seconds."""


@takes_settings(BuildSettings)
def build(settings: BuildSettings) -> DatasetSummary:
    """Make a data set from image files, with one row for each crop of each channel.

    Each field is scaled by its 0.1 and 99.9 percentiles and cropped on a grid; the last crops are shifted inward to
    end at the border. Crops with enough foreground (Otsu's threshold) are kept. Exact copies of an image are used
    once. A hash of the bytes of a file decides its split. Files that cannot be used are skipped, and the manifest has
    the reason for each of them. The same call resumes an interrupted run. A script with several workers needs
    `if __name__ == "__main__":`.

    Returns:
        Number of crops and source images in each split, names of the classes, and notes.

    Raises:
        UserError: An option or input is invalid, the output folder has other content or was started with other
            settings, no crop is left, or the disk is full.

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
    output, rules = as_path(settings.output), _rules(settings)
    check_output(output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    inputs = _find_inputs(settings)
    digest = _digest(inputs.files)
    if not settings.overwrite:
        _refuse_other_files(output, digest)
    resolved = {
        "stride": rules.crop.step,
        "min_foreground": rules.crop.min_foreground,
        "min_size": rules.selection.min_size,
        "labels": _labels_setting(settings.labels),
        "masks": settings.masks is not None,
    }
    with (
        open_cluster(settings.cluster) as cluster,
        open_dataset(
            output, COMMAND, settings, resolved=resolved, options={"inputs": digest, **inputs.notes}
        ) as opened,
    ):
        if opened.finished:
            return read_summary(output, opened.manifest)
        staging, manifest = Staging(output), opened.manifest
        missing = _stage(staging, inputs, rules, settings, cluster)
        for path, reason in inputs.skipped.items():
            manifest.skipped(path, reason)
        for name, count in missing.items():
            manifest.options[f"files_without_{name.replace(' ', '_')}"] = count
            print_note(f"note: {count} of {len(inputs.files)} files have no {name}")
        from stedfm_hf.data.assembly.assemble import assemble  # imports torch and datasets

        return assemble(
            staging,
            output,
            manifest=manifest,
            card=_card(output, manifest),
            fractions=settings.split_fractions,
            seed=settings.seed,
            rows_per_shard=settings.rows_per_shard,
            processes=settings.workers or cores(),
            cluster=cluster,
        )


def _rules(settings: BuildSettings) -> ReadingRules:
    """Convert the settings to rules for reading files, with the defaults of the protocol."""
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


def _refuse_other_files(output: Path, digest: str) -> None:
    """Check that a finished data set was made from the files with this digest; unfinished ones can resume.

    Raises:
        UserError: The files have changed.
    """
    record = manifest_path(output, folder=True)
    old = Manifest.load(record) if record.exists() else None
    if old is not None and old.ended is not None and old.options.get("inputs") != digest:
        raise UserError(
            f"{output}: is finished, but the input files have changed since; choose another output, or replace it "
            "with --overwrite"
        )


class _Inputs:
    """Input files to read, skipped files with the reason, and entries for the options of the manifest."""

    def __init__(self) -> None:
        self.files: list[InputFile] = []
        self.skipped: dict[str, str] = {}
        self.notes: dict[str, Any] = {}


def _find_inputs(settings: BuildSettings) -> _Inputs:
    """Find the input files with their masks and labels.

    Images in the output and in other data sets are ignored. Files without a label are skipped if labels are requested.
    Notes and warnings about ignored files and unused rows of the table of labels are printed.

    Raises:
        UserError: No image is left, no mask matches an image, or the labels cannot be read.
    """
    output, labels, masks = as_path(settings.output), settings.labels, settings.masks
    inputs, found = _Inputs(), find_images(settings.inputs, leave_out=find_masks if masks is None else None)
    inputs.notes["skipped_files"] = found.skipped
    if results := found.describe_results():
        print_note(f"note: {results}")
    if found.left_out:
        inputs.notes["skipped_masks"] = len(found.left_out)
        print_note(f"{describe_masks(found.left_out)}, and to use masks as masks, give their folder with --masks")
    # Figures and previews of data sets, such as an earlier output, are not inputs.
    folders = {folder for each in found.images for folder in as_path(real_path(each.file)).parents}
    datasets = {as_path(real_path(output)), *filter(_is_repository, folders)}
    images = [each for each in found.images if datasets.isdisjoint(as_path(real_path(each.file)).parents)]
    if others := len(found.images) - len(images):
        inputs.notes["skipped_dataset_images"] = others
        print_note(f"note: skipped {counted(others, 'image')} in the folders of data sets")
    masks_of: dict[str, tuple[Path, ...]] = {}
    same_name: dict[str, str] = {}
    if masks is not None and images:
        if not Path(masks).is_dir():
            raise UserError(f"--masks {masks}: no such folder; check the path")
        paired = pair_masks(images, masks)
        images, masks_of, same_name = list(paired.images), dict(paired.masks), dict(paired.shared)
        for note in paired.notes.lines():
            print_note(note)
        if not masks_of:
            example = images[0].path if images else found.images[0].path
            names = " or ".join(f"`{name}`" for name in mask_examples(example))
            raise UserError(
                f"--masks {masks}: no mask found for any of the images; name each mask like its image: in that "
                f"folder, save the mask of `{example}` as {names}"
            )
    if not images:
        raise UserError(
            f"{output}: all input images are in this folder or in other data sets; choose another --output"
        )
    if masks is None:
        _report_masks(images)
    if same_names := describe_same_names(images):
        print_note(same_names)
    labelled = {each.path: each.file for each in (*images, *found.left_out)}
    file_labels = None if labels is None else label_files(labelled, labels)
    if file_labels is not None and file_labels.unused:
        inputs.notes["label_rows_without_file"] = len(file_labels.unused)
        examples = ", ".join(file_labels.unused[:3])
        print_note(
            f"warning: {counted(len(file_labels.unused), 'path')} in the table of labels match no file, such as "
            f"{examples}"
        )
    for each in images:
        label = None if file_labels is None else file_labels.labels.get(each.path)
        if file_labels is not None and label is None and not settings.keep_unlabelled:
            inputs.skipped[each.path] = file_labels.missing
        else:
            masks_of_file, other = masks_of.get(each.path, ()), same_name.get(each.path)
            inputs.files.append(InputFile(each.file, each.path, label, masks_of_file, other))
    return inputs


def _report_masks(images: Sequence[FoundImage]) -> None:
    """Print a note if some files have the name of a mask, but are read as images, because no image has their name."""
    masks = [each for each in images if is_mask_name(each)]
    if masks:
        print_note(
            f"note: {counted(len(masks), 'file')} with the name of a mask, such as {masks[0].path}, will be read as "
            "images; to read masks as masks, give their folder with --masks"
        )


def _is_repository(folder: Path) -> bool:
    if protocol_of(folder) in ("http", "https"):
        return False  # a web server lists no folders
    try:
        return (folder / INDEX_FILE).is_file() and (folder / "data").is_dir()
    except ValueError:  # above the repositories of the Hub
        return False


def _labels_setting(labels: str | Path | None) -> str | None:
    """Return the setting that a resumed run must repeat: a table counts by its content, not by its path."""
    if labels is None or os.fspath(labels) == FROM_FOLDERS:
        return None if labels is None else FROM_FOLDERS
    return f"table {sha256_file(labels)[:16]}"


def _digest(files: Sequence[InputFile]) -> str:
    """Return a hash of the paths, sizes and modification times of files, to detect changes."""
    return sha256(json.dumps([[each.path, *each.stamp()] for each in files]).encode()).hexdigest()


def _stage(
    staging: Staging, inputs: _Inputs, rules: ReadingRules, settings: BuildSettings, cluster: Workers | None
) -> Counter[str]:
    """Read all files that are not in a part on disk yet, in one or more processes, and write their crops as parts.

    Parts on disk whose files changed or failed are removed and written again. Reasons of failed files, and
    notes on what was assumed when files were read, are printed.

    Returns:
        Number of used files that lack a piece of information, by its name ("mask", "pixel size"), over all parts.
    """
    parts = {part_name(number): files for number, files in enumerate(_split_into_parts(inputs.files))}
    staging.remove(part.name for part in staging if not _is_current(part, parts.get(part.name, ())))
    present = set(staging.names())
    to_write = {name: files for name, files in parts.items() if name not in present}
    processes = settings.workers or max(1, min(cores(), len(to_write) // _PARTS_PER_PROCESS))
    total, files_to_read = len(inputs.files), sum(map(len, to_write.values()))
    with (
        open_workers(cluster, processes=min(processes, len(to_write))) as workers,
        Progress(total, description="build", unit="files", done=total - files_to_read) as progress,
    ):
        write = partial(write_part, masked=settings.masks is not None, survives=workers.elsewhere)
        calls = ((staging, name, files, rules) for name, files in to_write.items())
        for statuses in run_items(write, calls, workers=workers, attempts=BATCH_ATTEMPTS):
            for path, status in statuses.items():
                if status.state == "failed":
                    progress.note(f"stedfm: error: {path}: {status.reason}")
            progress.update(len(statuses))
    missing: Counter[str] = Counter()
    notes = ItemNotes()
    for part in staging:
        missing.update(part.notes["missing"])
        for path, texts in part.notes["reading"].items():
            notes.add(path, texts)
    notes.print()
    return missing


def _split_into_parts(files: Sequence[InputFile]) -> Iterator[list[InputFile]]:
    """Yield the files of each part, limited in number and total size."""
    part, used = list[InputFile](), 0
    for each in files:
        size = each.stamp()[0]
        if part and (len(part) == FILES_PER_PART or used + size > BYTES_PER_PART):
            yield part
            part, used = [], 0
        part.append(each)
        used += size
    if part:
        yield part


def _is_current(part: Part, files: Sequence[InputFile]) -> bool:
    """Return whether a part holds exactly these files, unchanged, and none of them failed."""
    same = part.notes["files"] == [[each.path, *each.stamp()] for each in files]
    return same and all(status.state != "failed" for status in part.items.values())


def _card(output: Path, manifest: Manifest) -> CardFacts:
    """Return the title, settings and limitations for the card of the data set."""
    from stedfm_hf.data.publishing.card import CardFacts

    settings = {name.replace("_", "-"): value for name, value in manifest.settings.items()}
    given = {name: value for name, value in settings.items() if value not in (None, False)}
    limitations = []
    if manifest.settings["pixels"] == "8bit":
        limitations.append(
            "Each field was scaled to 8 bit by its 0.1 and 99.9 percentiles, so the brightness of different fields "
            "cannot be compared."
        )
    return CardFacts(
        title=output.name if is_remote(output) else output.resolve().name,
        command=f"stedfm {COMMAND}",
        settings=given,
        limitations=tuple(limitations),
    )
