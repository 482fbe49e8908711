"""Implementation of `stedfm data import-set`: convert a published set to a data set repository.

The module of the set plans the import; the functions here read the images in parts and assemble the repository. An
interrupted run keeps the complete parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stedfm_hf.data.assembly.output import DatasetSummary, open_dataset, print_failures, read_summary
from stedfm_hf.data.assembly.staging import StagedImage, Staging, part_name
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.plan import SEED, Item, Plan, by_split_priority
from stedfm_hf.data.official.registry import NOT_STATED, OfficialSet, official_set
from stedfm_hf.data.repository.layout import SPLITS, Crop
from stedfm_hf.data.settings import ImportSetSettings
from stedfm_hf.runs import ItemStatus, Manifest, Progress, print_note
from stedfm_hf.runs.download import fetch, is_url, public_url
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings

if TYPE_CHECKING:
    from stedfm_hf.data.publishing.card import CardFacts

COMMAND = "data import-set"
PART_ITEMS = 64


@takes_settings(ImportSetSettings)
def import_set(settings: ImportSetSettings) -> DatasetSummary:
    """Convert the files of a published set to a data set.

    Classes, splits, crops and scaling are as published. Flaws of the reference that change the data are corrected;
    the protocol `reference` repeats them (list: docs/how-to/import-published-sets.md). No content of the files is
    executed. By default, a source image in more than one split of the authors' files is kept only in the test set, or
    else in the validation set.

    Returns:
        Summary of the data set. Its manifest lists every image that was skipped or failed.

    Raises:
        UserError: The name or source is unknown, the files are not those of the set, a class is missing, or the output
            contains other files.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> folder = Path(tempfile.mkdtemp())
        >>> for n, label in enumerate(("actin", "tubulin", "CaMKII_Neuron", "PSD95_Neuron")):
        ...     (folder / "optim-data" / label).mkdir(parents=True)
        ...     np.savez(folder / "optim-data" / label / f"{n}-0.90.npz", np.arange(9.0).reshape(3, 3) + n)
        >>> import_set("optim", folder / "optim-data", folder / "repo").crops
        {'test': 4}
    """
    spec, output = official_set(settings.name), Path(settings.output)
    check_output(output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    legacy = settings.protocol == REFERENCE
    address = str(settings.source) if is_url(str(settings.source)) else None
    path = fetch(address) if address else Path(settings.source)
    with SourceFiles(path, exclude=output) as files:
        origin = public_url(address) if address else path.name
        resolved = {"source": files.identity, "seed": SEED}
        importer = import_module(f"stedfm_hf.data.official.{spec.module}")
        plan: Plan = importer.plan(files, legacy=legacy, keep_all=settings.keep_all, **spec.options)
        with open_dataset(output, COMMAND, settings, resolved=resolved, options={"from": origin}) as opened:
            if opened.finished:
                return read_summary(output, opened.manifest)
            _stage(plan, Staging(output), spec.name, one_split=not legacy)
            from stedfm_hf.data.assembly.assemble import assemble  # imports torch and datasets

            summary = assemble(
                Staging(output),
                output,
                manifest=opened.manifest,
                card=_card(spec, importer.CORRECTIONS, output, opened.manifest, plan),
                seed=SEED,
                labels=plan.classes,
                rows_per_shard=settings.rows_per_shard,
            )
    missing = [f"the source has no image of the split {split!r}" for split in SPLITS if split not in summary.crops]
    for note in (*plan.notes, *missing):
        print_note(f"note: {note}")
    print_failures(summary.manifest)
    return replace(summary, notes=(*plan.notes, *missing, *summary.notes))


def _stage(plan: Plan, staging: Staging, name: str, *, one_split: bool) -> None:
    """Read the images of all parts that are not on disk yet, and write their crops as parts.

    The first part has no crops; it records the files that the plan skips or cannot read. Images are read by the
    priority of their splits, so that an image with the same pixels in two splits is kept in the test set, or else in
    the validation set. Without `one_split`, such images are kept in both.
    """
    items = _with_unique_names(by_split_priority(plan.items))
    present, split_of_content = set(staging.names()), dict[str, str]()
    starts = range(0, len(items), PART_ITEMS)
    if part_name(0) not in present:
        statuses = {item: ItemStatus("skipped", reason) for item, reason in plan.skipped.items()}
        statuses |= {item: ItemStatus("failed", _one_line(reason)) for item, reason in plan.failed.items()}
        staging.write_crops(part_name(0), [], [], statuses)
    with Progress(len(items), description=name, unit="images") as progress:
        for number, start in enumerate(starts, 1):
            part = items[start : start + PART_ITEMS]
            if part_name(number) in present:
                split_of_content |= staging.read(part_name(number)).notes["seen"]
            else:
                _write_part(staging, part_name(number), part, split_of_content if one_split else None)
            progress.update(len(part))


def _with_unique_names(items: Sequence[Item]) -> list[Item]:
    """Give items unique names, because a list may contain a file twice."""
    counts: Counter[str] = Counter()
    named = []
    for item in items:
        counts[item.name] += 1
        again = f" (again {counts[item.name]})" if counts[item.name] > 1 else ""
        named.append(replace(item, name=item.name + again))
    return named


def _write_part(staging: Staging, name: str, items: Sequence[Item], split_of_content: dict[str, str] | None) -> None:
    """Read images and write their crops as a part, with the status of each image.

    Args:
        staging: Staging area of the output.
        name: Name of the part.
        items: Images to read.
        split_of_content: Splits of the images written so far by the hash of their pixels, to which new images are
            added; an image in another split is skipped. None allows duplicates.
    """
    new = dict[str, str]()  # entries of this part, which a resumed run reads instead of the images
    with staging.open_crops(name) as writer:
        for item in items:
            crops = _read_crops(item)
            if isinstance(crops, ItemStatus):
                writer.part.items[item.name] = crops
                continue
            if split_of_content is not None and item.split is not None:
                content = _content_hash(crops)
                split = new[content] = split_of_content.setdefault(content, item.split)
                if split != item.split:
                    reason = f"the same pixels are in the split {split!r}"
                    writer.part.items[item.name] = ItemStatus("skipped", reason)
                    continue
            writer.add(crops)
            writer.images.append(StagedImage(item.name, item.source, "", len(crops), item.label, item.split))
            note = None if len(crops) == 1 else f"{len(crops)} crops"
            writer.part.items[item.name] = ItemStatus("done", note)
        writer.part.notes["seen"] = new


def _read_crops(item: Item) -> list[Crop] | ItemStatus:
    """Read the crops of an image; return the status of an image that cannot be read or has no crops.

    Raises:
        OSError: The disk or network failed, not the file.
    """
    try:
        crops = [replace(crop, source=item.source, label=item.label) for crop in item.read()]
    except Exception as error:  # damaged and hostile bytes raise various exceptions
        if isinstance(error, OSError) and error.errno is not None:  # the disk failed, not the file
            raise
        return ItemStatus("failed", _one_line(str(error)) or type(error).__name__)
    return crops or ItemStatus("skipped", "no crop has enough foreground or annotated pixels")


def _content_hash(crops: Sequence[Crop]) -> str:
    """Return a hash of the pixels of all crops of an image, by which the same image in two splits is found."""
    digest = sha256()
    for crop in crops:
        digest.update(f"{crop.pixels.dtype.name} {crop.pixels.shape} ".encode())
        digest.update(crop.pixels.tobytes())
    return digest.hexdigest()[:32]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _card(spec: OfficialSet, corrected: Sequence[str], output: Path, manifest: Manifest, plan: Plan) -> CardFacts:
    """Return origin, citation, licence, settings and limitations for the card of an imported set.

    `corrected` lists the differences from the published code, which the reference protocol does not correct.
    """
    from stedfm_hf.data.publishing.card import CardFacts

    legacy = manifest.settings["protocol"] == REFERENCE
    version = "with the flaws of the reference, to reproduce published numbers" if legacy else "with flaws corrected"
    return CardFacts(
        title=output.absolute().name,
        command=f"stedfm {COMMAND}",
        description=(
            f"The published set `{spec.reference_name}` ({spec.task}), imported from the authors' files {version}. "
            f"Cite: {spec.citation}."
        ),
        settings={key: value for key, value in manifest.settings.items() if key != "source"},
        source_note=f"{spec.files}; {spec.url or spec.availability}. Licence of the images: {spec.licence}.",
        licence=None if spec.licence == NOT_STATED else spec.licence,
        mask_names=plan.mask_names,
        limitations=(
            *(f"Not corrected here: {each}" if legacy else each for each in corrected),
            *map(_sentence, plan.notes),
        ),
    )


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."
