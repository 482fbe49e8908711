"""`stedfm data import-archive`: a data set from the official crop archives.

The archive is read once, in order, in one process, because reading a crop takes only a third of a millisecond, and a
compressed archive has no other order. Every few hundred crops are written as a part on disk. A resumed run skips
members that complete parts hold. A cluster writes the shards of the parts.
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
from stedfm_hf.data.archives.members import MAX_MEMBER_BYTES, ArchiveDamaged, Member, iterate_members, printable
from stedfm_hf.data.assembly.output import DatasetSummary, open_dataset, print_failures, read_summary
from stedfm_hf.data.assembly.staging import StagedImage, Staging, part_name
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.data.settings import ImportArchiveSettings
from stedfm_hf.runs import ItemStatus, Manifest, Progress, UserError
from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.download import fetch, is_url, public_url
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings

if TYPE_CHECKING:
    from stedfm_hf.data.publishing.card import CardFacts

COMMAND = "data import-archive"
PART_MEMBERS = 512
"""Largest number of members of a part."""
PART_BYTES = 2**25
"""Size of the members at which a part is full, in bytes."""


@takes_settings(ImportArchiveSettings)
def import_archive(settings: ImportArchiveSettings) -> DatasetSummary:
    """Make a data set from a crop archive.

    Archives are tars (compressed or not) and zips of crops, and zips of such tars. Crops are 8-bit or raw `.npz` files
    with pickled metadata, or TIFF files. Pickles are read without running code: members with metadata other than
    plain data are refused and listed. Exact copies are removed; splits are by source image. The label `"unknown"`
    means no label.

    Pixels are stored unchanged. 8-bit crops were scaled by the authors. Raw crops have the scaling of the crop alone,
    because the archive does not hold the quantiles of the source.

    Memory use is limited: 0.7 GiB for a tar of 300,000 crops, and 0.1 GiB more for each further million, to find
    copies. For a zip, `zipfile` holds an index of 0.7 GiB for a million members.

    Returns:
        Number of crops and source images in each split, names of the classes, and the manifest. The manifest lists
        failed and skipped members as `archive#number name`, and the others as ranges, `archive#first-last`.

    Raises:
        UserError: There is no such archive, it holds no crop, or the output folder has other content or was started
            with other settings or another archive.

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
        problem = "is a folder; give the archive file" if path.is_dir() else "no such file; check the path"
        raise UserError(f"{path}: {problem}")
    members = _iterate(path, settings.limit)
    first = next(members, ItemStatus("failed", "it is empty"))
    if isinstance(first, ItemStatus):
        raise UserError(
            f"{path}: not a tar or zip archive with files ({first.reason}); check the path, or download it again"
        )
    identity = _identity(path)
    source = public_url(address) if address else path.name
    with (
        open_cluster(settings.cluster) as cluster,
        open_dataset(output, COMMAND, settings, resolved={"archive": identity}, options={"source": source}) as opened,
    ):
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
            cluster=cluster,
        )
    print_failures(summary.manifest)
    return summary


def _identity(path: Path) -> dict[str, Any]:
    """Return name, size and modification time of the archive, by which a changed archive is detected."""
    status = path.stat()
    modified = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
    return {"name": path.name, "bytes": status.st_size, "modified": modified}


# ------------------------------------------------------------------------------------- reading of members


@dataclass(frozen=True)
class _Reading:
    """Settings for reading members, and their names in the manifest."""

    archive: str
    label_key: str | None
    keep_metadata: bool

    def item(self, number: int, name: str) -> str:
        """Return the name of a member in the manifest."""
        return f"{self.archive}#{number} {name}"

    def __call__(self, member: Member) -> Crop | ItemStatus:
        """Read the crop of a member, or return the reason why it is skipped or fails."""
        if member.skip_reason is not None:
            return ItemStatus("skipped", member.skip_reason)
        if member.size > MAX_MEMBER_BYTES:
            return ItemStatus("failed", f"refused: {member.size / 2**20:.0f} MiB is too large for a crop")
        try:
            content = member.read()
            if not looks_like_crop(member.name, content):
                return ItemStatus("skipped", "is not a crop")
            return read_crop(member.name, content, label_key=self.label_key, keep_metadata=self.keep_metadata)
        except OSError as error:
            if error.errno is not None:  # the disk failed, not the member
                raise
            return _failure(error)
        except Exception as error:  # damaged and hostile bytes can raise any error; other members are still read
            return _failure(error)


def _failure(error: Exception) -> ItemStatus:
    """Convert the error of a member to a status; errors of libraries mean that its bytes are damaged."""
    if isinstance(error, NotACrop):
        return ItemStatus("failed", str(error))
    reason = printable(str(error)) or type(error).__name__
    return ItemStatus("failed", f"is damaged ({reason}); download the archive again")


@dataclass
class _OpenPart:
    """Part that is being filled, from member number `first` on."""

    first: int
    members: int = 0
    bytes: int = 0
    crops: list[Crop] = field(default_factory=list)
    statuses: dict[str, ItemStatus] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether the part is full; depends on sizes alone, so that a resumed run makes the same parts."""
        return self.members >= PART_MEMBERS or self.bytes >= PART_BYTES

    def write(self, staging: Staging, name: str, archive: str) -> None:
        """Write the part; all its crops belong to one item of the manifest, the range of its members."""
        item = f"{archive}#{self.first}-{self.first + self.members - 1}"
        if self.crops:
            self.statuses[item] = ItemStatus("done", f"{len(self.crops)} of {self.members} members are crops")
        images = [StagedImage(item, crop.source, _content_hash(crop), 1, crop.label) for crop in self.crops]
        staging.write_crops(name, self.crops, images, self.statuses)


def _stage(members: Iterable[Member | ItemStatus], staging: Staging, reading: _Reading, limit: int | None) -> None:
    """Read all members that are not in a part on disk, and write them as parts.

    Members of parts on disk are only counted, so that all parts have the same members as in a run without
    interruption. If the archive is damaged, the last entry of `members` is the failure, which the last part records.
    """
    present = set(staging.names())
    part, part_number, member_number = _OpenPart(0), 0, 0
    with Progress(limit, description="import", unit="members") as progress:
        for member in members:
            if isinstance(member, ItemStatus):
                part.statuses[reading.item(member_number, "...")] = ItemStatus(
                    "failed", f"{member.reason} after {member_number} members; download it again"
                )
                break
            if part_name(part_number) not in present:
                result = reading(member)
                if isinstance(result, Crop):
                    part.crops.append(result)
                else:
                    part.statuses[reading.item(member_number, member.name)] = result
            part.members += 1
            part.bytes += min(member.size, MAX_MEMBER_BYTES)
            member_number += 1
            progress.update()
            if part.full:
                if part_name(part_number) not in present:
                    part.write(staging, part_name(part_number), reading.archive)
                part, part_number = _OpenPart(member_number), part_number + 1
        if (part.members or part.statuses) and part_name(part_number) not in present:
            part.write(staging, part_name(part_number), reading.archive)


def _iterate(path: Path, limit: int | None) -> Iterator[Member | ItemStatus]:
    """Yield the members, and a failure at the end if the archive is damaged."""
    try:
        for number, member in enumerate(iterate_members(path)):
            if number == limit:
                return
            yield member
    except ArchiveDamaged as error:
        yield ItemStatus("failed", f"the archive is truncated or damaged ({error})")


def _content_hash(crop: Crop) -> str:
    """Return a hash of the pixels, by which exact copies are found."""
    head = f"{crop.pixels.dtype.name} {crop.pixels.shape} "
    return sha256(head.encode() + crop.pixels.tobytes()).hexdigest()


def _card(path: Path, output: Path, manifest: Manifest) -> CardFacts:
    """Return the description, settings and limitations for the card of an imported archive."""
    from stedfm_hf.data.publishing.card import CardFacts

    settings = {key: value for key, value in manifest.settings.items() if key not in ("archive", "keep_metadata")}
    people = "kept" if manifest.settings["keep_metadata"] else "removed from the metadata"
    return CardFacts(
        title=output.absolute().name,
        command=f"stedfm {COMMAND}",
        description=(
            f"Crops of the STED-FM archive `{path.name}`, read without running code from it. Pixels are unchanged. "
            "Exact copies are removed. The splits are made by source image; the archive itself has no splits. Names "
            f"of people and of files are {people}."
        ),
        settings=settings,
        limitations=(
            "8-bit crops were scaled by the 0.1 and 99.9 percentiles of their source. The archive does not hold them.",
            "The scaling of raw crops is computed from each crop alone, because the archive has no whole sources. The "
            "minimum of each source was subtracted from its raw crops.",
            "Positions are those of the authors' grid. If the size of the source is unknown, the true position of the "
            "last crops of a row or column is up to one crop earlier.",
        ),
    )
