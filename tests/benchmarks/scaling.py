"""`python -m tests.benchmarks.scaling`: what a pretraining costs at scale; writes docs/benchmarks/scaling.md and JSON.

Numbers of GPUs come from files that `tests.benchmarks.bench_pretraining` wrote on a machine with GPUs; without them
the page states that they are missing. `--render` makes the page again from its JSON; `--measured` names the files
of GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import tifffile
import torch
import yaml

from stedfm_hf.data import SimulationSettings, build, simulate_image, stream
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs.recipes import load_recipe
from stedfm_hf.runs.settings import types_of
from stedfm_hf.training.network import new_network
from stedfm_hf.training.settings import RECIPES, PretrainSettings
from tests.benchmarks.counting import derived_operations, step_operations
from tests.benchmarks.data import STRUCTURES, drain
from tests.benchmarks.scaling_page import render
from tests.benchmarks.timing import Rates, machine, matmul, take_turns

CPU_BATCHES = {"tiny": 16, "small": 16, "base": 8, "large": 4}
FIELDS = 240
SIDE = 1024
Cases = dict[str, tuple[Callable[[], object], float]]


def recipe_network(name: str) -> StedFmForPreTraining:
    """The network that `stedfm pretrain --recipe NAME` begins with."""
    values = load_recipe(name, types_of(PretrainSettings), packaged=RECIPES) | {"seed": 0}
    settings = PretrainSettings(["lab/crops"], output=Path("run"), **values)
    return new_network(settings, mean=0.0, std=1.0)


def count(name: str) -> dict[str, Any]:
    """Parameters of a size, and operations of a step on one crop."""
    network = recipe_network(name)
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    return {
        "parameters": sum(values.numel() for values in network.parameters() if values.requires_grad),
        "counted": step_operations(network.config),
        "derived": derived_operations(network.config),
        "epochs": recipe["num_train_epochs"],
        "effective_batch_size": recipe["effective_batch_size"],
    }


def measure_cpu(name: str, rounds: int) -> list[dict[str, Any]]:
    """Forward and backward, and the update of the weights apart from it: that comes once an effective batch."""
    network: Any = recipe_network(name).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    batch, side = CPU_BATCHES[name], network.config.image_size
    pixels, noise = torch.rand(batch, 1, side, side), torch.rand(batch, (side // network.config.patch_size) ** 2)

    def forward_backward(half: bool) -> object:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = network(pixels, noise=noise).loss
        loss.backward()
        return loss

    def update() -> object:
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        return optimizer.step()

    products = {precision: matmul(getattr(torch, precision)) for precision in ("float32", "bfloat16")}
    cases: Cases = {}
    for precision, product in products.items():
        cases[precision] = (partial(forward_backward, precision == "bfloat16"), float(batch))
        cases[f"matmul {precision}"] = product
    cases["update"] = (update, 1.0)
    clock, core = _take_turns(cases, rounds)
    operations = step_operations(network.config)
    return [
        {
            "size": name,
            "precision": precision,
            "batch": batch,
            "images_per_s": clock.values[precision],
            "images_per_core_s": core.values[precision],
            "of_matmul": core.ratios(precision, f"matmul {precision}", operations),
            "update_core_s": [1 / rate for rate in core.values["update"]],
        }
        for precision in products
    ]


def _take_turns(cases: Cases, rounds: int) -> tuple[Rates, Rates]:
    """Rates by the clock and by the time on processors: the second is that of a core which nobody else uses."""
    used: dict[str, list[float]] = {name: [] for name in cases}

    def timed(name: str, call: Callable[[], object]) -> object:
        began = time.process_time()
        result = call()
        used[name].append(time.process_time() - began)
        return result

    clock = take_turns({name: (partial(timed, name, call), work) for name, (call, work) in cases.items()}, rounds)
    core = {name: [work / seconds for seconds in used[name][-rounds:]] for name, (_, work) in cases.items()}
    return clock, Rates(core)


def measure_storage(rounds: int, real: list[str]) -> dict[str, Any]:
    """Bytes of a crop as `stedfm data build` stores it, and how fast such files are read without a cache."""
    found: dict[str, Any] = {"crops": [], "reading": []}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        _write_fields(root / "fields")
        sources = {"simulated": [str(root / "fields")]} | ({"real STED": real} if real else {})
        for what, inputs in sources.items():
            for pixels in ("8bit", "raw"):
                repo = root / f"{what}-{pixels}".replace(" ", "-")
                build(inputs, repo, pixels=pixels, validation=0, test=0, workers=1)
                found["crops"].append({"source": what, "pixels": pixels} | _bytes_of_crops(repo))
        for pixels in ("8bit", "raw"):
            rates = take_turns(_readers(root / f"simulated-{pixels}"), rounds, warmup=0)
            found["reading"].append({"pixels": pixels, "crops_per_s": rates.values})
    return found


def _write_fields(folder: Path) -> None:
    settings = SimulationSettings(height=SIDE, width=SIDE)
    drawn = [simulate_image(STRUCTURES[number % 4], seed=0, index=number, settings=settings) for number in range(8)]
    folder.mkdir()
    for number in range(FIELDS):
        field = np.roll(drawn[number % 8], (37 * number, 11 * number), (0, 1))
        tifffile.imwrite(folder / f"{number:04d}.tif", field.astype(np.uint16))


def _shards(repo: Path) -> list[Path]:
    return sorted((repo / "data").glob("train-*.parquet"))


def _bytes_of_crops(repo: Path) -> dict[str, Any]:
    batches = stream(repo, batch_size=16, drop_last=False, columns=(), workers=0)
    pixels = next(iter(batches))["pixels"]
    batches = stream(repo, batch_size=16, drop_last=False, columns=(), workers=0)
    drain(batches)
    rows = batches.files.rows
    return {
        "rows": rows,
        "dtype": str(pixels.dtype).removeprefix("torch."),
        "stored": sum(path.stat().st_size for path in _shards(repo)) / rows,
        "read": batches.bytes_read / rows,
        "uncompressed": pixels[0].numel() * pixels.element_size(),
    }


def _readers(repo: Path) -> Cases:
    """One thread that asks for one piece after the other; the last case decompresses and makes batches as well."""
    shards = _shards(repo)
    groups = [span for path in shards for span in _groups(path)]
    rows = sum(number for *_, number in groups)
    rng = np.random.default_rng(0)
    mixed = [groups[place] for place in rng.permutation(len(groups))]
    # As if every crop were a file of its own: pieces of the size of one, anywhere.
    one = [
        (path, first + k * length // number, length // number)
        for path, first, length, number in groups
        for k in range(number)
    ]
    scattered = [one[place] for place in rng.permutation(len(one))[: rows // 2]]

    def front_to_back() -> object:
        _forget(shards)
        for path in shards:
            with path.open("rb", buffering=0) as file:
                while file.read(2**20):
                    pass
        return None

    def pieces(spans: list[Any]) -> object:
        _forget(shards)
        files = {path: os.open(path, os.O_RDONLY) for path in shards}
        for path, first, length, *_ in spans:
            os.pread(files[path], length, first)
        for number in files.values():
            os.close(number)
        return None

    def streamed() -> object:
        _forget(shards)
        return drain(stream(repo, batch_size=256, drop_last=False, columns=(), workers=2))

    return {
        "front to back": (front_to_back, float(rows)),
        "row groups": (partial(pieces, mixed), float(rows)),
        "single crops": (partial(pieces, scattered), float(len(scattered))),
        "stream": (streamed, float(rows)),
    }


def _groups(path: Path) -> Iterator[tuple[Path, int, int, int]]:
    """File, begin and length of the pixels of every row group, and its rows."""
    metadata = pq.ParquetFile(path).metadata
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(k) for k in range(metadata.num_columns)]
        (pixels,) = (column for column in columns if column.path_in_schema == "pixels")
        first = pixels.dictionary_page_offset or pixels.data_page_offset
        yield path, first, pixels.total_compressed_size, group.num_rows


def _forget(paths: list[Path]) -> None:
    """Asks the system to drop its cache of files (Linux; elsewhere they stay in it)."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        number = os.open(path, os.O_RDONLY)
        os.fsync(number)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(number)


@contextmanager
def watched(found: dict[str, Any]) -> Iterator[None]:
    """Notes how many cores other programs kept busy meanwhile: timings suffer from them."""
    began, before, own = time.perf_counter(), psutil.cpu_times(), psutil.Process().cpu_times()
    yield
    after, mine = psutil.cpu_times(), psutil.Process().cpu_times()
    busy = (
        sum(after)
        - sum(before)
        - (after.idle - before.idle)
        - (getattr(after, "iowait", 0) - getattr(before, "iowait", 0))
    )
    others = busy - sum(mine[:2]) + sum(own[:2])
    found["seconds"] = time.perf_counter() - began
    found["other_cores"] = max(0.0, others / found["seconds"])
    found["other_cores_nice"] = (getattr(after, "nice", 0) - getattr(before, "nice", 0)) / found["seconds"]


def main() -> None:
    """Count and measure, or take what is there, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/scaling.md"))
    parser.add_argument("--render", action="store_true", help="measure nothing: take the JSON beside the page")
    parser.add_argument(
        "--measured",
        type=Path,
        nargs="*",
        default=[Path("docs/benchmarks/pretraining.json")],
        help="files of bench_pretraining, of which the rows of GPUs count",
    )
    parser.add_argument("--real", nargs="*", default=[], help="real 16-bit images, for the bytes of a crop")
    parser.add_argument("--sizes", nargs="+", choices=CPU_BATCHES, default=list(CPU_BATCHES))
    arguments = parser.parse_args()
    kept = arguments.output.with_suffix(".json")
    if not arguments.render:
        found: dict[str, Any] = {"machine": machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
        with watched(found):
            found["sizes"] = {name: count(name) for name in arguments.sizes}
            found["cpu"] = []
            for name in arguments.sizes:
                found["cpu"] += measure_cpu(name, arguments.rounds)
                print(
                    name, [statistics.median(row["images_per_core_s"]) for row in found["cpu"][-2:]], file=sys.stderr
                )
            found["storage"] = measure_storage(arguments.rounds, arguments.real)
        kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    files = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.measured if path.is_file()]
    rows = [row for file in files for row in file["rows"]]
    arguments.output.write_text(render(json.loads(kept.read_text(encoding="utf-8")), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
