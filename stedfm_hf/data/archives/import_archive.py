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
from typing import TYPE_CHECKING, Any

from stedfm_hf.data.archives.crops import NotACrop, looks_like_crop, read_crop
from stedfm_hf.data.archives.members import MAX_MEMBER_BYTES, ArchiveDamaged, Member, printable, walk
from stedfm_hf.data.assembly.output import DatasetSummary, open_dataset, print_failures, read_summary
from stedfm_hf.data.assembly.staging import StagedImage, Staging, part_name
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.data.settings import ImportArchiveSettings
from stedfm_hf.runs import ItemStatus, Manifest, Progress, UserError
from stedfm_hf.runs.download import fetch, is_url, public_url
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings

if TYPE_CHECKING:
    from stedfm_hf.data.publishing.card import CardFacts

COMMAND = "data import-archive"
PART_MEMBERS = 512
PART_BYTES = 2**25


@takes_settings(ImportArchiveSettings)
def import_archive(settings: ImportArchiveSettings) -> DatasetSummary:
    """Make a data set of a crop archive.

    Tars (compressed or not) and zips of crops are read, and zips of such tars; crops are `.npz` with pickled metadata,
    of 8 bit or raw, or TIFF. The pickles go through a closed reader: a member whose metadata hold anything but plain
    data is refused and named, and nothing of it is run. Exact copies are removed; splits are by source image. The
    label `"unknown"` is none.

    8-bit crops were scaled by their authors and stay as they are. Raw crops stay as they are, too: the source's
    quantiles are not in the archive, so the scaling that each row names is that of the crop alone.

    Memory is bounded: 0.7 GiB for a tar of 300,000 crops, and 0.1 GiB more for each million, by which copies are
    known. The index of a zip is held as `zipfile` does it, 0.7 GiB for a million members.

    Returns:
        What is in the data set. Its manifest names every member that failed or was skipped as `archive#number name`,
        and those that are in as ranges, `archive#first-last`: a million names would be of no use.

    Raises:
        UserError: There is no such archive, it holds no crop, or the output is something else or was begun with other
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
    output = Path(settings.output)
    check_output(output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    address = str(settings.archive) if is_url(str(settings.archive)) else None
    path = fetch(address) if address else Path(settings.archive)
    if not path.is_file():
        raise UserError(
            f"{path}: {'is a folder, not an archive' if path.is_dir() else 'no such file; check the path'}"
        )
    members = _walk(path, settings.limit)
    first = next(members, ItemStatus("failed", "it is empty"))
    if isinstance(first, ItemStatus):
        raise UserError(f"{path}: is neither a tar nor a zip with something in it ({first.reason})")
    identity = _identity(path)
    source = public_url(address) if address else path.name
    with open_dataset(output, COMMAND, settings, resolved={"archive": identity}, options={"source": source}) as opened:
        if opened.finished:
            return read_summary(output, opened.manifest)
        staging = Staging(output)
        reading = _Reading(path.name, settings.label_key, settings.keep_metadata)
        _stage(chain([first], members), staging, reading, settings.limit)
        if _identity(path) != identity:
            raise UserError(f"{path}: changed while it was read; import it again with --overwrite")
        from stedfm_hf.data.assembly.assemble import assemble  # imports torch and datasets

        summary = assemble(
            staging,
            output,
            manifest=opened.manifest,
            card=_card(path, output, opened.manifest),
            fractions=settings.split_fractions,
            seed=settings.seed,
            rows_per_shard=settings.rows_per_shard,
        )
    print_failures(summary.manifest)
    return summary


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
    keep_metadata: bool

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
                return ItemStatus("skipped", "is not a crop")
            return read_crop(member.name, content, label_key=self.label_key, keep_metadata=self.keep_metadata)
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

    def write(self, staging: Staging, name: str, archive: str) -> None:
        item = f"{archive}#{self.first}-{self.first + self.members - 1}"
        if self.crops:
            self.statuses[item] = ItemStatus("done", f"{len(self.crops)} of {self.members} members are in")
        images = [StagedImage(item, crop.source, _content(crop), 1, crop.label) for crop in self.crops]
        staging.write_crops(name, self.crops, images, self.statuses)


def _stage(members: Iterable[Member | ItemStatus], staging: Staging, reading: _Reading, limit: int | None) -> None:
    """Write the parts that are not there yet."""
    present = set(staging.names())
    part, number, seen = _OpenPart(0), 0, 0
    with Progress(limit, description="import", unit="members") as progress:
        for member in members:
            if isinstance(member, ItemStatus):
                part.statuses[reading.item(seen, "...")] = ItemStatus(
                    "failed", f"{member.reason} after {seen} members"
                )
                break
            if part_name(number) not in present:
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
                if part_name(number) not in present:
                    part.write(staging, part_name(number), reading.archive)
                part, number = _OpenPart(seen), number + 1
        if (part.members or part.statuses) and part_name(number) not in present:
            part.write(staging, part_name(number), reading.archive)


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


def _card(path: Path, output: Path, manifest: Manifest) -> CardFacts:
    from stedfm_hf.data.publishing.card import CardFacts

    settings = {key: value for key, value in manifest.settings.items() if key not in ("archive", "keep_metadata")}
    people = "as in the archive" if manifest.settings["keep_metadata"] else "left out of the metadata"
    return CardFacts(
        title=output.absolute().name,
        command=f"stedfm {COMMAND}",
        description=(
            f"Crops of the archive `{path.name}` of STED-FM, read without running anything of it. Pixels are as the "
            "archive has them; exact copies are removed, and the splits are by source image, which the archive has "
            f"not. Names of people and of files are {people}."
        ),
        settings=settings,
        limitations=(
            "8-bit crops were scaled by the 0.1 and 99.9 percentile of their source, which the archive does not tell.",
            "The scaling named beside raw crops is that of each crop alone: their sources are not in the archive, and "
            "the minimum of each source was subtracted from them.",
            "Positions are those of the authors' grid; where the size of the source is not known, the last crops of "
            "a row and of a column begin up to a crop earlier.",
        ),
    )
