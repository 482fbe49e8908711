"""`python -m tests.benchmarks.data`: reading, building and streaming of data sets; writes docs/benchmarks/data.md."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import tifffile
import torch
from torch.utils.data import DataLoader, Dataset

from stedfm_hf.data import STRUCTURES as STRUCTURE_FUNCTIONS
from stedfm_hf.data import SimulationSettings, simulate_field, simulate_image, stream, to_unit_range
from stedfm_hf.data.repository.layout import INDEX_FILE, Crop, Scaling, crop_features, crops_to_table
from stedfm_hf.data.settings import ROWS_PER_SHARD
from tests.benchmarks.timing import machine, own_peak, peak_memory, spread, table, take_turns, write_page
from tests.data.repos import CARD, write_split

BATCH = 256
READ = 4096
MANY = 200_000
Cases = dict[str, tuple[Callable[[], object], float]]
STRUCTURES = ("rings", "fibres", "microtubules", "puncta")


def simulated(count: int) -> Iterator[np.ndarray]:
    """Simulated crops, 224 x 224 in 8 bit: a few hundred, and rotated and shifted copies of them."""
    distinct = min(count, 512)
    base = []
    for number in range(distinct):
        counts = simulate_image(STRUCTURES[number % 4], seed=0, index=number // 4)
        low, high = np.quantile(counts, (0.001, 0.999))
        base.append((np.clip((counts - low) / max(high - low, 1), 0, 1) * 255).astype(np.uint8))
    rng = np.random.default_rng(0)
    for number in range(count):
        shifted = np.roll(base[number % distinct], rng.integers(0, 224, 2), (0, 1))
        yield np.ascontiguousarray(np.rot90(shifted, number // distinct % 4))


def write_repository(folder: Path, count: int) -> None:
    """The crops as `build` would write them."""
    schema = crop_features().arrow_schema

    def tables() -> Iterator[pa.Table]:
        waiting: list[Crop] = []
        for number, pixels in enumerate(simulated(count)):
            scaling = Scaling(1.0, 60.0, applied=True, quantiles=(0.001, 0.999))
            waiting.append(Crop(pixels, scaling, source=f"{number // 25:016x}", pixel_size_nm=(20.0, 20.0)))
            if len(waiting) == 512 or number == count - 1:
                rows = crops_to_table(waiting)
                at = rows.schema.get_field_index("label")
                yield rows.set_column(at, "label", pa.nulls(len(waiting), pa.int64())).cast(schema)
                waiting = []

    shards = write_split(folder, tables(), count, ROWS_PER_SHARD)
    index = {"train": [{"file": shard.file, "row_groups": list(shard.row_groups)} for shard in shards]}
    (folder / INDEX_FILE).write_text(json.dumps({"format": 1, "splits": index}), encoding="utf-8")
    (folder / "README.md").write_text(CARD.format(version=count), encoding="utf-8")


class TarOfNpz(Dataset[torch.Tensor]):
    """Crops in one tar of pickled npz files, read as the reference protocol says: listed first, then by random access.

    Only ever given archives this file has written itself: unpickling is what makes it slow and unsafe.
    """

    def __init__(self, path: Path) -> None:
        self.archive = tarfile.open(path)
        self.members = sorted(self.archive.getmembers(), key=lambda member: member.name)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> torch.Tensor:
        file = self.archive.extractfile(self.members[index])
        assert file is not None
        content = np.load(io.BytesIO(file.read()), allow_pickle=True)
        _ = content["metadata"].item()
        return torch.tensor(content["image"] / 255.0, dtype=torch.float32)[None]


def write_tar(path: Path, count: int) -> None:
    """The same crops in the reference's format."""
    with tarfile.open(path, "w") as archive:
        for number, pixels in enumerate(simulated(count)):
            buffer = io.BytesIO()
            facts = {
                "image-id": f"{number // 25:016x}",
                "chan-id": "STED",
                "image-type": "msr",
                "protein-id": "unknown",
            }
            np.savez(buffer, image=pixels, metadata=np.array(facts, dtype=object))
            member = tarfile.TarInfo(f"{number:08d}-0-0")
            member.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(member, buffer)


def write_pictures(folder: Path, count: int) -> None:
    """The same crops as PNG pictures in Parquet."""
    features = datasets.Features({"image": datasets.Image()})

    def rows() -> Iterator[dict[str, Any]]:
        yield from ({"image": pixels} for pixels in simulated(count))

    images = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(folder / "cache"))
    assert isinstance(images, datasets.Dataset)
    folder.mkdir(exist_ok=True)
    for shard in range(4):
        images.shard(4, shard).to_parquet(folder / f"train-{shard}.parquet")
    shutil.rmtree(folder / "cache")


def drain(batches: Iterable[Any]) -> int:
    """Take everything there is."""
    return sum(1 for _ in batches)


def reading(rounds: int) -> str:
    """The stream beside the same crops in the reference's tar, and as pictures."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_repository(root / "repo", READ)
        write_tar(root / "crops.tar", READ)
        write_pictures(root / "pictures", READ)
        sizes = {
            "tar": (root / "crops.tar").stat().st_size,
            "pictures": sum(path.stat().st_size for path in (root / "pictures").glob("*.parquet")),
            "repo": sum(path.stat().st_size for path in (root / "repo" / "data").glob("*.parquet")),
        }
        datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0  # else every pass over the pictures ends with 5 s of sleep

        def tar() -> object:
            crops = TarOfNpz(root / "crops.tar")
            return drain(DataLoader(crops, batch_size=BATCH, shuffle=True))

        def pictures() -> object:
            files = sorted(map(str, (root / "pictures").glob("*.parquet")))
            rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
            rows = rows.shuffle(seed=0, buffer_size=512)
            arrays = (torch.from_numpy(np.array(row["image"]))[None] for row in rows)
            return drain(DataLoader(list_of_batches(arrays), batch_size=None))

        def ours(workers: int, scaled: bool) -> object:
            batches = stream(root / "repo", batch_size=BATCH, drop_last=False, workers=workers)
            if scaled:
                return drain(to_unit_range(batch["pixels"], batch["intensity_range"]) for batch in batches)
            return drain(batches)

        cases: Cases = {
            "tar": (tar, READ),
            "pictures": (pictures, READ),
            "stream, no threads": (lambda: ours(0, False), READ),
            "stream, 2 threads": (lambda: ours(2, False), READ),
            "stream, 2 threads, scaled": (lambda: ours(2, True), READ),
        }
        rates = take_turns(cases, rounds)
    labels = {
        "tar": "tar of pickled npz, the reference's way, float32",
        "pictures": "PNG in Parquet, `datasets` streaming with a shuffle buffer, uint8",
        "stream, no threads": "`stream(workers=0)`, uint8",
        "stream, 2 threads": "`stream(workers=2)`, uint8",
        "stream, 2 threads, scaled": "`stream(workers=2)` and `to_unit_range`, float32",
    }
    stored = {"tar": "tar", "pictures": "pictures"}
    rows = [
        [
            label,
            spread(rates.values[name], 0),
            spread(rates.ratios(name, "tar"), 1),
            f"{sizes[stored.get(name, 'repo')] / READ / 1000:.1f}",
        ]
        for name, label in labels.items()
    ]
    return (
        f"## Reading {READ} crops of 224 x 224, 8 bit\n\n"
        f"`stream` with two threads reads {median(rates.ratios('stream, 2 threads', 'tar')):.1f} times as many crops "
        "per second as the reference's way, a tar of pickled `.npz` files.\n\n"
        f"One process, shuffled batches of {BATCH}, from a local disk whose files are in the cache of the system. "
        "Opening the data set is included.\n\n" + table(["", "crops/s", "x tar", "kB per crop"], rows)
    )


def list_of_batches(arrays: Iterable[torch.Tensor]) -> Any:
    """Batches of single crops, as an iterable data set."""

    class Batches(torch.utils.data.IterableDataset[torch.Tensor]):
        def __iter__(self) -> Iterator[torch.Tensor]:
            waiting: list[torch.Tensor] = []
            for array in arrays:
                waiting.append(array)
                if len(waiting) == BATCH:
                    yield torch.stack(waiting)
                    waiting = []
            if waiting:
                yield torch.stack(waiting)

    return Batches()


def building(rounds: int) -> str:
    """`build` of a folder of large fields."""
    from stedfm_hf.data import build

    count = 120
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        settings = SimulationSettings(height=1024, width=1024)
        fields = [
            simulate_image(STRUCTURES[number % 4], seed=0, index=number, settings=settings) for number in range(8)
        ]
        (root / "fields").mkdir()
        for number in range(count):
            field = np.roll(fields[number % 8], (37 * number, 11 * number), (0, 1))
            tifffile.imwrite(root / "fields" / f"{number:04d}.tif", field)

        def run(workers: int) -> object:
            shutil.rmtree(root / "repo", ignore_errors=True)
            return build([root / "fields"], root / "repo", workers=workers)

        cases: Cases = {str(workers): (partial(run, workers), 60.0 * count) for workers in (1, 2)}
        rates = take_turns(cases, rounds)
    rows = [
        [f"{name} process{'es' if name != '1' else ''}", spread(values, 0), spread([v / int(name) for v in values], 0)]
        for name, values in rates.values.items()
    ]
    return (
        f"## Building a data set of {count} fields of 1024 x 1024, 16 bit\n\n"
        "`stedfm data build` of uncompressed TIFF files with its default settings: reading, scaling, Otsu, crops, "
        "shards, preview, card and figures. Starting the processes is included.\n\n"
        + table(["", "fields/min", "fields/min per process"], rows)
    )


def simulating(rounds: int) -> str:
    """Fields of the simulator, in one thread of this process."""
    per_structure = 20

    def fields(mixed: bool, confocal: bool) -> object:
        names = list(STRUCTURE_FUNCTIONS)
        for index in range(per_structure):
            for place, name in enumerate(names):
                chosen = [name, names[(place + 1 + index) % len(names)]] if mixed else [name]
                simulate_field(sorted(set(chosen), key=names.index), seed=1, index=index, confocal=confocal)
        return None

    count = float(per_structure * len(STRUCTURE_FUNCTIONS))
    labels = {
        "one structure": partial(fields, False, False),
        "one structure, with its confocal partner": partial(fields, False, True),
        "two structures": partial(fields, True, False),
    }
    rates = take_turns({name: (call, count) for name, call in labels.items()}, rounds)
    rows = [[name, spread(values, 0)] for name, values in rates.values.items()]
    return (
        "## Simulating fields of 224 x 224\n\n"
        "Seven structures in turn, with matched intensities and masks, in one process and one thread. "
        "Nothing is written.\n\n" + table(["", "fields/s"], rows)
    )


def ranks(rounds: int) -> str:
    """Measure what each of several ranks reads."""
    del rounds
    rows = []
    with tempfile.TemporaryDirectory() as place:
        repo = Path(place) / "repo"
        write_repository(repo, 16 * 1024)
        data = sum(path.stat().st_size for path in (repo / "data").glob("*.parquet"))
        for world in (1, 2, 4, 8):
            for batch_size in (32, 128):
                shares = [
                    peak_memory("tests.benchmarks.data", "--rank", str(rank), str(world), str(batch_size), str(repo))
                    * world
                    / data
                    for rank in range(world)
                ]
                rows.append([str(world), str(batch_size), f"{max(shares):.2f}", " ".join(f"{s:.2f}" for s in shares)])
    return (
        "## What a rank reads\n\n"
        "16,384 crops in 16 shards, one epoch. The table shows the bytes that a rank reads (footers included), as a "
        "fraction of the data set, times the number of ranks: 1 is ideal.\n\n"
        + table(["ranks", "batch per rank", "largest", "every rank"], rows)
    )


def read_as_rank(rank: int, world: int, batch_size: int, repo: Path) -> float:
    """Stream an epoch as one rank and count the bytes the system handed over."""
    batches = stream(repo, batch_size=batch_size, rank=rank, world_size=world)
    before = _bytes_asked_for()
    drain(batches)
    return _bytes_asked_for() - before


def _bytes_asked_for() -> float:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return float(lines["rchar"])


def memory(rounds: int) -> str:
    """Measure the peak memory of a stream over few and over many crops."""
    del rounds
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for count in (20_000, MANY):
            repo = Path(place) / f"repo-{count}"
            began = time.perf_counter()
            write_repository(repo, count)
            print(f"{count} crops written in {time.perf_counter() - began:.0f} s", file=sys.stderr)
            size = sum(path.stat().st_size for path in (repo / "data").glob("*.parquet")) / 1e9
            peak = peak_memory("tests.benchmarks.data", "--stream", str(repo))
            writing = peak_memory("tests.benchmarks.data", "--write", str(count))
            rows.append([f"{count:,}", f"{size:.2f}", f"{peak:.0f}", f"{writing:.0f}"])
            shutil.rmtree(repo)
    return (
        "## Memory\n\n"
        "Peak resident memory of a process that streams one epoch (batches of 256, 2 threads, torch and datasets "
        "loaded), and of one that writes the crops into shards. Most of the crops are rotated and shifted copies.\n\n"
        + table(["crops", "GB on disk", "stream, MB", "writing the shards, MB"], rows)
    )


def main() -> None:
    """Measure the parts asked for and write the page."""
    parts = {"reading": reading, "building": building, "simulating": simulating, "ranks": ranks, "memory": memory}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of everything")
    parser.add_argument("--only", choices=parts, action="append", help="measure this part only, and write no page")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/data.md"))
    parser.add_argument("--rank", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--stream", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        rank, world, batch_size, repo = arguments.rank
        print(read_as_rank(int(rank), int(world), int(batch_size), Path(repo)))
        return
    if arguments.stream:
        drain(stream(arguments.stream, batch_size=256))
        print(own_peak())
        return
    if arguments.write:
        with tempfile.TemporaryDirectory() as place:
            write_repository(Path(place), arguments.write)
        print(own_peak())
        return
    print(machine(), file=sys.stderr)
    pages = [parts[name](arguments.rounds) for name in arguments.only or parts]
    text = "\n\n".join([INTRODUCTION.format(machine=machine()), *pages, METHOD]) + "\n"
    print(text)
    if not arguments.only:
        write_page(arguments.output, text)


INTRODUCTION = """# Data sets

Reading, building, simulating and streaming data sets, on a CPU. All images are simulated. Each section begins with its
result or comparison.

Measured on {machine}, with `make bench-data`."""
METHOD = """## How it was measured

In each table the cases take turns, because shared machines change their speed from minute to minute. Ratios are formed
within a round. Tables show the **median** and, in brackets, every round."""


if __name__ == "__main__":
    main()
