"""`stedfm data import-archive`: the authors' crop archives as a repository that anyone can read and stream.

The archive is walked once, in its order, in one process: reading a crop takes a third of a millisecond, less than the
memory of a second process is worth. Every few hundred crops are a part on disk. A run that was killed walks past what
the parts hold, which for a tar means to seek. (Behaviour: ours; the archives: reference protocol.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from stedfm_hf.data.archives.crops import LABEL_KEY, NotACrop, looks_like_crop, read_crop
from stedfm_hf.data.archives.members import MAX_MEMBER_BYTES, ArchiveDamaged, Member, printable, walk
from stedfm_hf.data.assembly.assemble import DatasetSummary, assemble, read_summary
from stedfm_hf.data.assembly.begin import begin_output
from stedfm_hf.data.assembly.staging import Part, StagedImage, Staging
from stedfm_hf.data.publishing.card import CardFacts
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.data.repository.shards import ROWS_PER_SHARD
from stedfm_hf.data.splits import SHARES, SplitShares
from stedfm_hf.runs import ItemStatus, Manifest, Progress, UserError, manifest_path
from stedfm_hf.runs.download import fetch, is_url, public_url

VERB = "data import-archive"
PART_MEMBERS = 512
PART_BYTES = 2**25


def import_archive(
    source: str | Path,
    output: str | Path,
    *,
    shares: SplitShares = SHARES,
    seed: int = 0,
    label_key: str | None = LABEL_KEY,
    include_user: bool = False,
    limit: int | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
    overwrite: bool = False,
) -> DatasetSummary:
    """Makes a data set repository out of a crop archive.

    Read are tars (compressed or not) and zips of crops, and zips of such tars; crops are `.npz` with pickled metadata,
    of 8 bit or raw, or TIFF. The pickles go through a closed reader: a member whose metadata hold anything but plain
    data is refused and named, and nothing of it is run. Exact copies are removed; splits are by source image.

    8-bit crops were scaled by their authors and stay as they are. Raw crops stay as they are, too: the source's
    quantiles are not in the archive, so the scaling that each row names is that of the crop alone.

    Memory is bounded: 0.7 GiB for a tar of 300,000 crops, and 0.1 GiB more for each million, by which copies are
    known. The index of a zip is held as `zipfile` does it, 0.7 GiB for a million members.

    Args:
        source: path or http(s) address of the archive; a download is kept in the cache, and resumed.
        output: the repository to make.
        shares: shares of the splits, decided by the id of each source image, see
            :func:`stedfm_hf.data.splits.split_of`.
        seed: random seed of the order on disk.
        label_key: the entry of the metadata that is the class; `"unknown"` is none. None makes no classes.
        include_user: whether names of people, paths and names of files in the metadata are kept.
        limit: members to look at, from the first; None takes all.
        rows_per_shard: crops of a shard at most.
        overwrite: whether a repository that is there is made anew.

    Returns:
        What is in the repository. Its manifest names every member that failed or was left out as `archive#number
        name`, and those that are in as ranges, `archive#first-last`: a million names would be of no use.

    Raises:
        UserError: no such archive, one without any crop, or an output that is something else or was begun with other
            settings or another archive.

    Example:
        >>> import io, tarfile, tempfile
        >>> import numpy as np
        >>> folder = Path(tempfile.mkdtemp())
        >>> with tarfile.open(folder / "crops.tar", "w") as archive:
        ...     for number in range(12):
        ...         content, protein = io.BytesIO(), ("psd95", "tubulin")[number % 2]
        ...         pixels = np.random.default_rng(number).integers(0, 255, (224, 224), np.uint8)
        ...         np.savez(content, image=pixels, metadata={"protein-id": protein, "image-id": f"id{number}"})
        ...         header = tarfile.TarInfo(f"{protein}-id{number}-0-224")
        ...         header.size = len(content.getvalue())
        ...         archive.addfile(header, io.BytesIO(content.getvalue()))
        >>> summary = import_archive(folder / "crops.tar", folder / "repo")
        >>> summary.labels, sum(summary.crops.values())
        (('psd95', 'tubulin'), 12)
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit {limit} is too small; the least is 1 member")
    address = str(source) if is_url(str(source)) else None
    path, output = (fetch(address) if address else Path(source)), Path(output)
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder, no archive' if path.is_dir() else 'no such file; check the path'}")
    manifest = Manifest(
        VERB,
        settings={
            "archive": _identity(path),
            "label_key": label_key,
            "include_user": include_user,
            "limit": limit,
            "validation": shares.validation,
            "test": shares.test,
            "rows_per_shard": rows_per_shard,
        },
        options={"source": public_url(address) if address else path.name},
        seed=seed,
    )
    members = _walk(path, limit)
    first = next(members, ItemStatus("failed", "it is empty"))
    if isinstance(first, ItemStatus):
        raise UserError(f"{path}: is neither a tar nor a zip with something in it ({first.reason})")
    if begin_output(output, manifest, overwrite=overwrite):
        return read_summary(output, manifest)
    manifest.save(manifest_path(output, folder=True))
    staging = Staging(output)
    reading = _Reading(path.name, label_key, include_user)
    try:
        _stage(chain([first], members), staging, reading, limit)
        if _identity(path) != manifest.settings["archive"]:
            raise UserError(f"{path}: changed while it was read; import it again with --overwrite")
        return assemble(
            staging,
            output,
            manifest=manifest,
            card=_card(path, output, manifest, include_user),
            shares=shares,
            seed=seed,
            rows_per_shard=rows_per_shard,
        )
    except OSError as error:
        raise UserError(f"{output}: the import stopped ({error}); mend that, and the same command goes on") from error


def _identity(path: Path) -> dict[str, Any]:
    status = path.stat()
    changed = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
    return {"name": path.name, "bytes": status.st_size, "modified": changed}


# ------------------------------------------------------------------------------------- archive to parts


@dataclass(frozen=True)
class _Reading:
    """How members are read and named."""

    archive: str
    label_key: str | None
    include_user: bool

    def item(self, number: int, name: str) -> str:
        return f"{self.archive}#{number} {name}"

    def __call__(self, member: Member) -> Crop | ItemStatus:
        """The crop, or why there is none."""
        if member.left_out is not None:
            return ItemStatus("skipped", member.left_out)
        if member.size > MAX_MEMBER_BYTES:
            return ItemStatus("failed", f"refused, because it has {member.size / 2**20:.0f} MiB: no crop is so large")
        try:
            content = member.read()
            if not looks_like_crop(member.name, content):
                return ItemStatus("skipped", "is no crop")
            return read_crop(member.name, content, label_key=self.label_key, include_user=self.include_user)
        except OSError as error:
            if error.errno is not None:  # the disk failed, not the member
                raise
            return _failure(error)
        except Exception as error:  # damaged and hostile bytes raise anything; the other members go on
            return _failure(error)


def _failure(error: Exception) -> ItemStatus:
    if isinstance(error, NotACrop):
        return ItemStatus("failed", str(error))
    return ItemStatus("failed", f"is damaged ({printable(str(error)) or type(error).__name__}); get the archive again")


@dataclass
class _OpenPart:
    """The part that is being filled, with members `first` and on."""

    first: int
    members: int = 0
    bytes: int = 0
    crops: list[Crop] = field(default_factory=list)
    statuses: dict[str, ItemStatus] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """A function of names and sizes alone, so that a later run finds the same parts."""
        return self.members >= PART_MEMBERS or self.bytes >= PART_BYTES

    def write(self, staging: Staging, number: int, archive: str) -> None:
        item = f"{archive}#{self.first}-{self.first + self.members - 1}"
        if self.crops:
            self.statuses[item] = ItemStatus("done", f"{len(self.crops)} of {self.members} members are in")
        images = tuple(StagedImage(item, crop.source, _content(crop), 1, crop.label) for crop in self.crops)
        staging.write(number, self.crops, Part(images, self.statuses))


def _stage(members: Iterable[Member | ItemStatus], staging: Staging, reading: _Reading, limit: int | None) -> None:
    """Writes the parts that are not there yet."""
    present = set(staging.numbers())
    part, part_number, seen = _OpenPart(0), 0, 0
    with Progress(limit, description="import", unit="members") as progress:
        for member in members:
            if isinstance(member, ItemStatus):
                part.statuses[reading.item(seen, "...")] = ItemStatus(
                    "failed", f"{member.reason} after {seen} members"
                )
                break
            if part_number not in present:
                found = reading(member)
                if isinstance(found, Crop):
                    part.crops.append(found)
                else:
                    part.statuses[reading.item(seen, member.name)] = found
            part.members += 1
            part.bytes += min(member.size, MAX_MEMBER_BYTES)
            seen += 1
            progress.update()
            if part.full:
                if part_number not in present:
                    part.write(staging, part_number, reading.archive)
                part, part_number = _OpenPart(seen), part_number + 1
        if (part.members or part.statuses) and part_number not in present:
            part.write(staging, part_number, reading.archive)


def _walk(path: Path, limit: int | None) -> Iterator[Member | ItemStatus]:
    """The members, and at the end the damage that hides the others, if there is any."""
    try:
        for number, member in enumerate(walk(path)):
            if number == limit:
                return
            yield member
    except ArchiveDamaged as error:
        yield ItemStatus("failed", f"the archive is cut or damaged ({error}); get it again")


def _content(crop: Crop) -> str:
    """By which exact copies are found: the pixels, wherever they come from."""
    head = f"{crop.pixels.dtype.name} {crop.pixels.shape} "
    return sha256(head.encode() + crop.pixels.tobytes()).hexdigest()


def _card(path: Path, output: Path, manifest: Manifest, include_user: bool) -> CardFacts:
    settings = {key: value for key, value in manifest.settings.items() if key not in ("archive", "include_user")}
    people = "as in the archive" if include_user else "left out of the metadata"
    return CardFacts(
        title=output.absolute().name,
        made_by=f"stedfm {VERB}",
        description=(
            f"Crops of the archive `{path.name}` of STED-FM, read without running anything of it. Pixels are as the "
            "archive has them; exact copies are removed, and the splits are by source image, which the archive has "
            f"not. Names of people and of files are {people}."
        ),
        settings=settings | {"seed": manifest.seed},
        limits=(
            "8-bit crops were scaled by the 0.1 and 99.9 percentile of their source, which the archive does not tell.",
            "The scaling named beside raw crops is that of each crop alone: their sources are not in the archive, and "
            "the minimum of each source was subtracted from them.",
            "Positions are those of the authors' grid; where the size of the source is not known, the last crops of "
            "a row and of a column begin up to a crop earlier.",
        ),
    )
