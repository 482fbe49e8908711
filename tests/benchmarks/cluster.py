"""`python -m tests.benchmarks.cluster`: Dask next to a process pool, and a million items.

Writes docs/benchmarks/cluster.md. `python -m tests.benchmarks.cluster COUNT` runs COUNT items that need no work on a
cluster of two workers, and prints the peak memory in MB of the process that holds client and scheduler.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from stedfm_hf.data.sources import Source
from stedfm_hf.images import StedImage
from stedfm_hf.inference.loading import load_encoder
from stedfm_hf.inference.preparation import Fact, Preparation
from stedfm_hf.inference.source_batches import Processed, SourceBatch
from stedfm_hf.inference.stepwise import process_sources
from stedfm_hf.inference.tables import TableParts, parts_name
from stedfm_hf.runs import FileStamp, Progress
from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.manifest import status_of
from stedfm_hf.runs.memory import keep_freed_memory
from stedfm_hf.runs.output import open_output
from tests.benchmarks.timing import machine, own_peak, peak_memory, table, take_turns, write_page

CROPS, SIDE, ROUNDS = 5000, 64, 5
ITEMS = (100_000, 1_000_000)
WAYS = {"process pool": ("--device", "cpu,cpu"), "Dask": ("--device", "cpu", "--cluster", "local:2")}
SCHEMA = pa.schema([("path", pa.string()), ("embedding", pa.float32())])
PAGE = Path("docs/benchmarks/cluster.md")


@dataclass(frozen=True, slots=True)
class Nothing:
    """A source that is never read."""

    path: str
    size: int = 1000
    stamp: FileStamp | None = FileStamp(1000, 1_700_000_000)

    def read(self, series: str | int | None, channel: str | int | None) -> list[StedImage]:
        raise NotImplementedError

    def source_id(self) -> str:
        return self.path


class NothingBatch(SourceBatch):
    """A batch whose items need no work: what is left is what the cluster and the record of items cost."""

    def _process(
        self, sources: Sequence[Source], progress: Progress | None
    ) -> tuple[list[tuple[Fact, np.ndarray]], Processed]:
        done = Processed({each.path: status_of("done", None, each.stamp) for each in sources})
        return [({"path": each.path}, np.zeros(1, np.float32)) for each in sources], done


def rows(results: list[tuple[Fact, np.ndarray]]) -> pa.Table:
    return pa.table(
        {"path": [fact["path"] for fact, _ in results], "embedding": [float(value[0]) for _, value in results]}, SCHEMA
    )


def nothing(images: object) -> list[np.ndarray]:
    return []


def run_nothing(count: int) -> None:
    """Record items that need no work, as `embed` does."""
    keep_freed_memory()
    encoder = load_encoder("demo", device="cpu")
    sources = [Nothing(f"2026-11/plate_{number // 1000:04d}/cell_{number:07d}.tif") for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "nothing.parquet")
        with (
            open_output(
                target, "embed", results=[target.name], temporary=[parts_name(target)], is_folder=False
            ) as output,
            open_cluster("local:2") as workers,
        ):
            parts = TableParts(output, SCHEMA)
            batch = NothingBatch(parts.store, Preparation(encoder, None, None, {}), nothing, rows)
            process_sources(parts, sources, batch, workers=workers)


def crops(folder: Path) -> None:
    for number in range(CROPS):
        pixels = np.random.default_rng(number).poisson(5.0, (SIDE, SIDE)).astype(np.uint16)
        np.save(folder / f"{number:05d}.npy", pixels)


def overhead(rounds: int) -> str:
    """Time `stedfm embed` of the crops, whole commands in turn."""
    with tempfile.TemporaryDirectory() as place:
        images = Path(place, "images")
        images.mkdir()
        crops(images)

        def command(name: str) -> None:
            output = str(Path(place, "embeddings.parquet"))
            arguments = ["embed", str(images), "--model", "demo", "--output", output, "--overwrite", *WAYS[name]]
            subprocess.run([sys.executable, "-m", "stedfm_hf.cli", *arguments], check=True, stdout=subprocess.DEVNULL)

        rates = take_turns({name: (partial(command, name), CROPS) for name in WAYS}, rounds)
    ratios = rates.ratios("process pool", "Dask")
    return (
        f"## Time of `stedfm embed`\n\n{CROPS:,} crops of {SIDE} x {SIDE}, the packaged encoder, two workers; whole "
        "commands, from start to the complete table, in turn.\n\n"
        + table(
            ["two workers", "crops/s, median", "crops/s, all rounds"],
            [
                [name, f"{rates.median(name):.1f}", " ".join(f"{rate:.1f}" for rate in rates.values[name])]
                for name in WAYS
            ],
        )
        + f"\n\nTime with Dask, as a multiple of that of the pool: median {median(ratios):.3f}, rounds "
        f"{' '.join(f'{ratio:.3f}' for ratio in ratios)} (target: at most 1.15).\n"
    )


def memory() -> str:
    """Measure the memory of client and scheduler."""
    found = [[f"{count:,}", f"{peak_memory('tests.benchmarks.cluster', str(count)):,.0f}"] for count in ITEMS]
    return (
        "## Memory of client and scheduler\n\nItems that need no work, in batches of 64, two workers. One process "
        "holds the client, the scheduler, the list of items and the record of each (target: below 1,024 MB for a "
        "million).\n\n" + table(["items", "peak memory, MB"], found) + "\n"
    )


def main() -> None:
    """Run items, or measure everything and write the page."""
    if len(sys.argv) > 1:
        run_nothing(int(sys.argv[1]))
        print(own_peak())
        return
    introduction = f"# Work on a cluster\n\nMeasured on {machine()}, with `make bench-cluster`.\n"
    parts = [introduction, memory(), overhead(ROUNDS)]
    write_page(PAGE, "\n".join(parts))


if __name__ == "__main__":
    main()
