"""`stedfm data import-set`: a published set out of the authors' files as a repository.

The importer of the set plans which image is what; here the images are read, part by part, and assembled. A run that
was killed keeps the parts that are whole. (Behaviour: ours; the sets: reference protocol.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from stedfm_hf.data.assembly.assemble import DatasetSummary, assemble, read_summary
from stedfm_hf.data.assembly.begin import begin_output
from stedfm_hf.data.assembly.staging import Part, StagedImage, Staging
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.plan import SEED, Item, Plan, in_order_of_strength
from stedfm_hf.data.official.registry import NOT_STATED, OfficialSet, official_set
from stedfm_hf.data.publishing.card import CardFacts
from stedfm_hf.data.repository.layout import SPLITS, Crop
from stedfm_hf.data.repository.shards import ROWS_PER_SHARD
from stedfm_hf.runs import ItemStatus, Manifest, Progress, UserError, manifest_path
from stedfm_hf.runs.download import fetch, is_url, public_url

VERB = "data import-set"
PART_ITEMS = 64


def import_set(
    name: str,
    source: str | Path,
    output: str | Path,
    *,
    legacy: bool = False,
    keep_all: bool = False,
    rows_per_shard: int = ROWS_PER_SHARD,
    overwrite: bool = False,
) -> DatasetSummary:
    """Makes a data set repository out of the files of a published set.

    Classes, splits, crops and scaling are as published. Flaws of the reference that change the data are corrected, and
    `legacy` repeats them; docs/official_sets.md lists both. Nothing of the files is executed. By default no source
    image is on two sides: of one that the authors' files have on two, the test set keeps its images, else validation.

    Args:
        name: of the set, as in `OFFICIAL_SETS`.
        source: the folder, zip, tar or HDF5 file of the authors, or its http(s) address.
        output: the repository to make.
        legacy: repeat what the reference does.
        keep_all: keep all images of training splits that the reference balances by leaving images out.
        rows_per_shard: crops of a shard at most.
        overwrite: begin an existing data set anew.

    Returns:
        What is in the repository. Its manifest names every image that was left out or failed.

    Raises:
        UserError: there is no such set or source, its files are not those of the set, a class is missing, or the
            output holds something else.

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
    spec = official_set(name)
    if legacy and keep_all:
        raise UserError("legacy repeats the published balancing, and keep_all leaves it out; take one of the two")
    address = str(source) if is_url(str(source)) else None
    path, output = (fetch(address) if address else Path(source)), Path(output)
    importer = import_module(f"stedfm_hf.data.official.{spec.module}")
    with SourceFiles(path, without=output) as files:
        manifest = Manifest(
            VERB,
            settings={
                "set": spec.name,
                "source": files.identity,
                "legacy": legacy,
                "keep_all": keep_all,
                "rows_per_shard": rows_per_shard,
            },
            options={"from": public_url(address) if address else path.name},
            seed=SEED,
        )
        if begin_output(output, manifest, overwrite=overwrite):
            return read_summary(output, manifest)
        plan: Plan = importer.plan(files, legacy=legacy, keep_all=keep_all, **spec.options)
        manifest.save(manifest_path(output, folder=True))
        staging = Staging(output)
        try:
            _stage(plan, staging, spec.name, one_side=not legacy)
            summary = assemble(
                staging,
                output,
                manifest=manifest,
                card=_card(spec, importer.CORRECTED, output, manifest, plan),
                seed=SEED,
                labels=plan.classes,
                rows_per_shard=rows_per_shard,
            )
        except OSError as error:
            raise UserError(
                f"{output}: the import stopped ({error}); mend that, and the same command goes on"
            ) from error
    missing = [f"the source has no image of the split {split!r}" for split in SPLITS if split not in summary.crops]
    return replace(summary, notes=(*plan.notes, *missing, *summary.notes))


def _stage(plan: Plan, staging: Staging, name: str, *, one_side: bool) -> None:
    """Writes the parts that are not there yet; the first says what was never read."""
    items = _named_once(in_order_of_strength(plan.items))
    present, seen = set(staging.numbers()), dict[str, str]()
    starts = range(0, len(items), PART_ITEMS)
    if 0 not in present:
        statuses = {item: ItemStatus("skipped", reason) for item, reason in plan.left_out.items()}
        statuses |= {item: ItemStatus("failed", _one_line(reason)) for item, reason in plan.failed.items()}
        staging.write(0, [], Part((), statuses))
    with Progress(len(items), description=name, unit="images") as progress:
        for number, start in enumerate(starts, 1):
            chosen = items[start : start + PART_ITEMS]
            if number in present:
                seen |= staging.read_part(number).notes["seen"]
            else:
                _write_part(staging, number, chosen, seen if one_side else None)
            progress.update(len(chosen))


def _named_once(items: Sequence[Item]) -> list[Item]:
    """Items with names of their own: a list may have a file twice."""
    counts: Counter[str] = Counter()
    named = []
    for item in items:
        counts[item.name] += 1
        again = f" (again {counts[item.name]})" if counts[item.name] > 1 else ""
        named.append(replace(item, name=item.name + again))
    return named


def _write_part(staging: Staging, number: int, items: Sequence[Item], seen: dict[str, str] | None) -> None:
    """Writes some images.

    Args:
        staging: where.
        number: of the part.
        items: the images.
        seen: the split of the images so far, by their pixels; None lets an image be on two sides.
    """
    images, statuses, new = list[StagedImage](), dict[str, ItemStatus](), dict[str, str]()
    with staging.open(number) as writer:
        for item in items:
            crops = _crops(item)
            if isinstance(crops, ItemStatus):
                statuses[item.name] = crops
                continue
            if seen is not None and item.split is not None:
                content = _content(crops)
                side = seen.setdefault(content, item.split)
                new[content] = side
                if side != item.split:
                    statuses[item.name] = ItemStatus("skipped", f"the same pixels are in the split {side!r}")
                    continue
            writer.add(crops)
            images.append(StagedImage(item.name, item.source, "", len(crops), item.label, item.split))
            statuses[item.name] = ItemStatus("done", None if len(crops) == 1 else f"{len(crops)} crops")
        writer.finish(Part(tuple(images), statuses, {"seen": new}))


def _crops(item: Item) -> list[Crop] | ItemStatus:
    """The crops of an image, or why there are none."""
    try:
        crops = [replace(crop, source=item.source, label=item.label) for crop in item.read()]
    except Exception as error:  # damaged and hostile bytes raise anything; the other images go on
        if isinstance(error, OSError) and error.errno is not None:  # the disk failed, not the file
            raise
        return ItemStatus("failed", _one_line(str(error)) or type(error).__name__)
    return crops or ItemStatus("skipped", "no crop of it shows enough")


def _content(crops: Sequence[Crop]) -> str:
    digest = sha256()
    for crop in crops:
        digest.update(f"{crop.pixels.dtype.name} {crop.pixels.shape} ".encode())
        digest.update(crop.pixels.tobytes())
    return digest.hexdigest()[:32]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _card(spec: OfficialSet, corrected: Sequence[str], output: Path, manifest: Manifest, plan: Plan) -> CardFacts:
    legacy = manifest.settings["legacy"]
    how = "with the flaws of the reference, so that published numbers can be repeated" if legacy else "flaws corrected"
    return CardFacts(
        title=output.absolute().name,
        made_by=f"stedfm {VERB}",
        description=(
            f"The published set `{spec.reference_name}` ({spec.task}), as the authors' files have it, {how}. "
            f"Cite: {spec.citation}."
        ),
        settings={"set": spec.name, "legacy": legacy, "keep_all": manifest.settings["keep_all"], "seed": SEED},
        source_note=f"{spec.files}; {spec.url or spec.where}. Licence of the images: {spec.licence}.",
        licence=None if spec.licence == NOT_STATED else spec.licence,
        mask_names=plan.mask_names,
        limits=(
            *(f"Not corrected here: {each}" if legacy else each for each in corrected),
            *map(_sentence, plan.notes),
        ),
    )


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."
