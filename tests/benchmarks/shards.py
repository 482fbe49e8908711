"""`python -m tests.benchmarks.shards`: data sets of 10,000 shards; writes docs/benchmarks/shards.md.

The results of the cases are kept in a JSON file: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from stedfm_hf.data import dataset_stats, stream
from stedfm_hf.data.repository.files import SplitFiles
from stedfm_hf.data.repository.shards import Shard
from stedfm_hf.data.streaming.stream import CropStream
from tests.benchmarks.shard_sets import write_tiny_shards
from tests.benchmarks.timing import machine, own_peak, table

SHARDS, ROWS, BATCH = 10_000, 16, 64
CROPS_OF_A_SHARD, GROUPS_OF_A_SHARD = 1024, 64
REQUESTS: Counter[str] = Counter()


class CountedFileSystem(LocalFileSystem):
    """Files of this machine, whose reads and listings are counted like requests of an object store."""

    protocol = "counted"
    cachable = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        REQUESTS[path.rpartition("/")[2]] += 1
        return bytes(super().cat_file(path, start=start, end=end))

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        REQUESTS["listing"] += 1
        return super().ls(path, detail=detail, **options)


def measure(name: str, repo: str) -> dict[str, Any]:
    """Measure one case in this process; see `CASES`."""
    fsspec.register_implementation("counted", CountedFileSystem, clobber=True)
    before, began = own_peak(), time.perf_counter()
    found = CASES[name](repo)
    return found | {"seconds": time.perf_counter() - began, "peak": own_peak(), "imports": before}


def first_batch(repo: str) -> dict[str, Any]:
    """Open the data set and wait for the first batch."""
    next(iter(stream(repo, batch_size=BATCH)))
    return {}


def epoch(repo: str) -> dict[str, Any]:
    """Read all batches."""
    return {"batches": sum(1 for _ in stream(repo, batch_size=BATCH))}


def resumed(repo: str) -> dict[str, Any]:
    """Compare the next 20 batches after a resume in the middle of the epoch with those of an uninterrupted stream."""
    batches = stream(repo, batch_size=BATCH)
    middle = len(batches) // 2
    batches.seek(0, middle - 3)
    iterator, states = iter(batches), list[dict[str, Any]]()
    expected = []
    for number in range(23):
        batch = next(iterator)
        states.append(batches.state_dict())
        if number >= 3:
            expected.append(batch["index"].tolist())
    iterator.close()
    again = stream(repo, batch_size=BATCH)
    again.load_state_dict(states[2])
    began = time.perf_counter()
    found = [batch["index"].tolist() for _, batch in zip(range(20), again, strict=False)]
    return {"same": found == expected, "resume": time.perf_counter() - began}


def requests(repo: str, rank: int = 0, world_size: int = 1) -> dict[str, Any]:
    """Count the requests of one rank in an epoch."""
    batches = stream(f"counted://{repo}", batch_size=BATCH // world_size, rank=rank, world_size=world_size)
    opening = REQUESTS.total()
    REQUESTS.clear()
    seen = sum(len(batch["index"]) for batch in batches)
    shards = [count for file, count in REQUESTS.items() if file.endswith(".parquet")]
    return {"opening": opening, "crops": seen, "shards": len(shards), "total": sum(shards), "most": max(shards)}


def statistics(repo: str) -> dict[str, Any]:
    """Measure `data stats`."""
    return {"crops": dataset_stats(repo).record["crops"]}


def hundred_million(_: str) -> dict[str, Any]:
    """Open the index of 100 million crops, start an epoch, and resume in another one; no shard is read."""
    count = 100_000_000 // CROPS_OF_A_SHARD
    record = {"file": "", "row_groups": [CROPS_OF_A_SHARD // GROUPS_OF_A_SHARD] * GROUPS_OF_A_SHARD}
    with tempfile.TemporaryFile("w+") as file:
        for number in range(count):
            file.write(json.dumps(record | {"file": f"data/train-{number:05d}-of-{count}.parquet"}) + ",")
        size = file.tell()
        file.seek(0)
        records = json.loads("[" + file.read()[:-1] + "]")
    shards = tuple(Shard(each["file"], tuple(map(int, each["row_groups"]))) for each in records)
    batches = CropStream(
        SplitFiles("", "train", shards, ()), batch_size=256, seed=0, epoch=0, rank=1, world_size=8, drop_last=True
    )
    batches.seek(7, 30_000)
    rows, _valid = batches.batching.batch(batches._order, batches._begin, 0, 1)
    return {"index": size / 1e6, "rows": len(rows)}


CASES = {
    "first batch": first_batch,
    "epoch": epoch,
    "resume": resumed,
    "requests of 1 rank": requests,
    "requests of rank 0 of 4": lambda repo: requests(repo, 0, 4),
    "data stats": statistics,
    "100 million": hundred_million,
}


def run(name: str, repo: Path) -> dict[str, Any]:
    """Measure a case in a separate process."""
    command = [sys.executable, "-m", "tests.benchmarks.shards", "--case", name, "--repo", str(repo)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    print(f"{name}: {found}", file=sys.stderr, flush=True)
    return found


def page(found: dict[str, dict[str, Any]]) -> str:
    """Return the page."""
    times = [
        ["open, and read the first batch", "first batch"],
        ["open, resume in the middle of an epoch, and read 43 batches", "resume"],
        ["one epoch", "epoch"],
        ["`stedfm data stats`", "data stats"],
    ]
    rows = [[text, f"{found[name]['seconds']:.1f}", f"{found[name]['peak']:.0f}"] for text, name in times]
    counts = [
        [
            name.removeprefix("requests of "),
            *(f"{found[name][key]:,}" for key in ("opening", "shards", "total", "most")),
        ]
        for name in found
        if name.startswith("requests")
    ]
    many = found["100 million"]
    return (
        "\n\n".join(
            [
                INTRODUCTION.format(machine=machine(), shards=SHARDS, rows=ROWS),
                table(["", "seconds", "peak memory, MB"], rows),
                f"Of the memory, {found['epoch']['imports']:.0f} MB are `torch` and other imports. The batches after "
                f"resuming were {'the same as' if found['resume']['same'] else 'DIFFERENT FROM'} those of an "
                "uninterrupted stream.",
                "## Requests\n\nReads of one epoch from a file system that counts them like an object store. A rank "
                "that needs at least half of a shard reads the whole file by one request; otherwise it reads the "
                "footer, and then the range of its row groups.",
                table(
                    ["ranks", "requests to open", "shards read", "requests for shards", "most for one shard"], counts
                ),
                "## 100 million crops\n\n"
                f"The index of {100_000_000 // CROPS_OF_A_SHARD:,} shards of {CROPS_OF_A_SHARD} crops was generated, "
                f"without shards ({many['index']:.0f} MB of JSON). To write and parse it, start a stream of rank 1 of "
                "8, move to batch 30,000 of epoch 7 and compute the rows of this batch took "
                f"{many['seconds']:.1f} s and {many['peak'] - many['imports']:.0f} MB in addition to "
                f"{many['imports']:.0f} MB of imports.",
                METHOD,
            ]
        )
        + "\n"
    )


INTRODUCTION = """# Data sets of many shards

Opening, streaming, resuming and counting a data set of {shards:,} shards, on a CPU. The shards are tiny ({rows} random
crops of 8 x 8 pixels each, one row group for each crop), because this measures the cost of a shard, not of a pixel.
[Data sets](data.md) measures crops of 224 x 224.

Measured on {machine}, with `make bench-shards`."""
METHOD = """## How it was measured

Each row is one run in a separate process, in batches of 64, with two threads. The files are in the cache of the
system. If other programs use the machine at the same time, the times are upper bounds."""


def main() -> None:
    """Measure all cases and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/shards.md"))
    parser.add_argument("--repo", type=Path, help="data set of an earlier run; default: write a new one")
    parser.add_argument("--results", type=Path, default=Path("shards.json"), help="file of the results: resumes")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, str(arguments.repo))))
        return
    with tempfile.TemporaryDirectory() as place:
        repo = arguments.repo or Path(place) / "tiny"
        if not repo.exists():
            write_tiny_shards(repo, SHARDS, rows=ROWS)
        found = json.loads(arguments.results.read_text(encoding="utf-8")) if arguments.results.exists() else {}
        for name in CASES:
            if name not in found:
                found[name] = run(name, repo)
                arguments.results.write_text(json.dumps(found), encoding="utf-8")
        text = page({name: found[name] for name in CASES})
    print(text)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
