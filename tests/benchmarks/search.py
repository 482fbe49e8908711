"""`python -m tests.benchmarks.search`: time, memory and recall of searches; writes docs/benchmarks/search.md.

The results of the parts (exact search, and the tokens of each kind) are kept in a JSON file: an interrupted benchmark
resumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stedfm_hf import StedFmConfig, StedFmModel
from stedfm_hf.data.simulation.fields import simulate_field
from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.data.simulation.structures import STRUCTURES
from stedfm_hf.discovery.index import Index, open_index
from stedfm_hf.discovery.index.derived import derive
from stedfm_hf.discovery.index.layout import (
    DTYPES,
    EMBEDDINGS,
    ITEM_SCHEMA,
    ITEMS,
    SEGMENTS,
    State,
    new_embeddings,
    next_segment,
    write_state,
)
from stedfm_hf.discovery.index.segments import item_table
from stedfm_hf.inference import load_encoder
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.runs import Manifest, atomic_path, manifest_path
from stedfm_hf.runs.parts import PartStore
from tests.benchmarks.bench_knn import vectors
from tests.benchmarks.timing import machine, spread, table, take_turns

K = 10
EXACT_QUERIES = (1, 16, 256)
TOKEN_QUERIES = 200
HEAD = [
    "tokens of",
    "number",
    "faiss index",
    f"recall@{K}",
    "second query, ms",
    "query, ms",
    "open and first query, s",
    "memory, GiB",
    "build, s",
]
RATIO, RECALL, MEMORY_GB, QUERY_MS = 1.3, 0.95, 4.0, 100.0
"""Limits: times a plain product, recall@10, GiB of memory, and ms of a query."""
MIXED = ", mixed"
PARTS = ("exact", "demo", "vit-small", f"vit-small{MIXED}")
Chunks = Callable[[], Iterator[np.ndarray]]


def write_index(folder: Path, pooling: str, count: int, dim: int, chunks: Chunks, search: str) -> tuple[State, float]:
    """Write an index of given embeddings in one segment, and return its state and the time of `derive`."""
    state = State(pooling, dim)
    segment = folder / SEGMENTS / next_segment(state)
    segment.mkdir(parents=True)
    with new_embeddings(segment / EMBEDDINGS, count, dim, DTYPES[pooling]) as file:
        for chunk in chunks():
            file.write(np.ascontiguousarray(chunk, DTYPES[pooling]).data)
    grid = {"rows": count, "cols": 1, "patch_height_px": 16.0, "patch_width_px": 16.0, "height": 16, "width": 16}
    where = {"path": "all", "series": "image", "channel": "0", "file": None, "content": "", "source": "all"}
    row = where | grid | {"pixel_size_nm": None, "embeddings": np.zeros(0, np.float32)}
    items = item_table([row], pooling).select(ITEM_SCHEMA.names)
    manifest = Manifest("index", settings={"pooling": pooling}, model="benchmark")
    manifest.done("all")
    manifest.save(manifest_path(folder, folder=True))
    PartStore(segment).write(ITEMS, items, manifest.items)
    start = time.perf_counter()
    state = derive(folder, state.next(segments=(segment.name,)), search)
    seconds = time.perf_counter() - start
    write_state(folder, state)
    return state, seconds


def exact(folder: Path, rows: int, dim: int, rounds: int) -> tuple[str, float]:
    """Compare exact search with a plain product; return a table and the largest ratio."""
    gallery = vectors(rows, dim, 1)
    write_index(folder / "exact", "avg", rows, dim, partial(iter, [gallery]), "exact")
    index = open_index(folder / "exact")
    lines, worst = [], 0.0
    for number in EXACT_QUERIES:
        query = vectors(number, dim, 2)
        cases: dict[str, tuple[Callable[[], object], float]] = {
            "plain": (partial(plain, query, gallery), 1.0),
            "index": (partial(index.nearest, query, K), 1.0),
        }
        rates = take_turns(cases, rounds)
        ratios = [1 / each for each in rates.ratios("index", "plain")]
        worst = max(worst, float(np.median(ratios)))
        seconds = {name: [1000 / value for value in values] for name, values in rates.values.items()}
        lines.append([str(number), spread(seconds["plain"]), spread(seconds["index"]), spread(ratios)])
    return table(["queries", "plain product and `topk`, ms", "index, ms", "x plain"], lines), worst


def plain(query: np.ndarray, gallery: np.ndarray) -> torch.Tensor:
    """Multiply all pairs and take the largest."""
    return torch.topk(torch.from_numpy(query) @ torch.from_numpy(gallery).T, K).indices


def images(count: int) -> Iterator[np.ndarray]:
    """Simulate images (1, 224, 224) of all structures in [0, 1]."""
    settings = SimulationSettings(height=224, width=224)
    for number in range(count):
        image = simulate_field(list(STRUCTURES)[number % len(STRUCTURES)], seed=3, index=number, settings=settings)
        pixels = image.image.astype(np.float32)
        yield ((pixels - pixels.min()) / max(float(np.percentile(pixels, 99.9) - pixels.min()), 1)).clip(0, 1)[None]


def tokens_of(model: str, count: int) -> np.ndarray:
    """Return the patch tokens of simulated images (images, patches, D) float16."""
    if model == "demo":
        encoder = load_encoder("demo", device="cpu").model
    else:
        torch.manual_seed(0)
        encoder = StedFmModel(StedFmConfig()).eval()
    found = encode_images(encoder, images(count), pooling="patch", batch_size=16)
    return np.stack([each.reshape(-1, each.shape[-1]).astype(np.float16) for each in found])


def mixed(tokens: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield mixtures of two tokens of one image: more tokens than there are images for, on the same manifold."""
    random = np.random.default_rng(seed)
    number, patches, dim = tokens.shape
    flat = tokens.reshape(-1, dim)
    for at in range(0, count, 65_536):
        size = min(65_536, count - at)
        image = random.integers(0, number, size) * patches
        one, other = (flat[image + random.integers(0, patches, size)].astype(np.float32) for _ in range(2))
        weight = random.uniform(0.5, 1, (size, 1)).astype(np.float32)
        yield (weight * one + (1 - weight) * other).astype(np.float16)


def truth(index: Index, queries: np.ndarray) -> np.ndarray:
    """Return the exact neighbours (m, K) of standardised queries."""
    from stedfm_hf.discovery.index.standardised import screen

    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    rows, values = screen(index.rows, index.standardiser, index.norms, unit, 3 * K, None)
    return np.stack([index._rank(*each, K)[0] for each in zip(unit, rows, values, strict=True)])


def approximate(folder: Path, name: str, count: int, dim: int, chunks: Chunks, queries: np.ndarray) -> list[str]:
    """Measure the approximate search of tokens, and return a row of the table."""
    state, seconds = write_index(folder / name, "patch", count, dim, chunks, "approximate")
    index = open_index(folder / name)
    z = index.standardiser(queries)
    wanted = truth(index, z)
    found = index.nearest(z, K)[0]
    recall = float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))
    np.save(folder / name / "queries.npy", z)
    command = [sys.executable, "-m", "tests.benchmarks.search", "--one", str(folder / name)]
    one = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    text = state.reason.split(": ")[1].split(", 32")[0]
    return [
        name,
        f"{count:,} x {dim}",
        text,
        f"{recall:.3f}",
        f"{one['first_ms']:.0f}",
        f"{one['median_ms']:.1f}",
        f"{one['opened_s']:.1f}",
        f"{one['anonymous_gib']:.2f}",
        f"{seconds:.0f}",
    ]


def one_process(folder: Path) -> None:
    """Open an index in this process, search one query at a time, and print times and memory as JSON."""
    queries = np.load(folder / "queries.npy")
    start = time.perf_counter()
    index = open_index(folder)
    index.nearest(queries[0], K)
    opened = time.perf_counter() - start
    times = []
    for query in queries[1:101]:
        start = time.perf_counter()
        index.nearest(query, K)
        times.append(1000 * (time.perf_counter() - start))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    found = {
        "opened_s": opened,
        "first_ms": times[0],
        "median_ms": float(np.median(times)),
        "anonymous_gib": int(status["RssAnon"].split()[0]) / 2**20,
    }
    print(json.dumps(found))


def main() -> None:
    """Measure what is missing, and write the page when nothing is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="folder on a disk with 12 GB")
    parser.add_argument("--results", type=Path, default=Path("build/search.json"))
    parser.add_argument("--note", default="")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[2] / "docs" / "benchmarks" / "search.md")
    given = parser.parse_args()
    if given.one is not None:
        one_process(given.one)
        return
    results: dict[str, Any] = {}
    if given.results.exists():
        results = json.loads(given.results.read_text("utf-8"))
    given.results.parent.mkdir(parents=True, exist_ok=True)
    for part in given.parts:
        if part not in results:
            with tempfile.TemporaryDirectory(dir=given.folder) as name:
                results[part] = measure(part, Path(name), given)
            with atomic_path(given.results) as temporary:
                temporary.write_text(json.dumps(results), encoding="utf-8")
    if set(PARTS) <= set(results):
        given.output.write_text(page(results, given), encoding="utf-8")


def measure(part: str, folder: Path, given: argparse.Namespace) -> Any:
    """Measure a part: the table of exact search with its largest ratio, or a row of tokens."""
    if part == "exact":
        return exact(folder, given.rows, 384, given.rounds)
    model = part.removesuffix(MIXED)
    tokens = tokens_of(model, given.images if model == "vit-small" else given.images // 2)
    held = max(1, len(tokens) // 5)
    queries = tokens[-held:].reshape(-1, tokens.shape[-1])
    queries = queries[np.random.default_rng(0).permutation(len(queries))[:TOKEN_QUERIES]]
    gallery = tokens[:-held]
    flat = gallery.reshape(-1, gallery.shape[-1])
    dim = flat.shape[1]
    if part.endswith(MIXED):
        return approximate(folder, part, given.tokens, dim, partial(mixed, gallery, given.tokens, 4), queries)
    return approximate(folder, part, len(flat), dim, partial(iter, [flat]), queries)


def page(results: dict[str, Any], given: argparse.Namespace) -> str:
    """Write the page from the results of all parts."""
    exact_table, worst = results["exact"]
    lines = [results[part] for part in PARTS[1:]]
    last = lines[-1]
    met = float(last[3]) >= RECALL and float(last[7]) < MEMORY_GB and float(last[5]) < QUERY_MS
    words = "met" if met and worst <= RATIO else "not met"
    return f"""# Search

`stedfm search` compared with a plain matrix product, and the recall of its approximate search. Exact search in
{given.rows:,} x 384 embeddings takes at most {worst:.2f} times the time of a plain product and `topk`. In {last[1]}
patch tokens, recall@{K} is {last[3]}, a query takes {last[5]} ms, and the process holds {last[7]} GiB. Required are
{RATIO} times, {RECALL}, {QUERY_MS:.0f} ms and {MEMORY_GB:.0f} GiB: {words}.

Measured on {machine()}, with `python -m tests.benchmarks.search`.{given.note and " " + given.note}

## Exact search

{given.rows:,} x 384 float32 embeddings, the {K} nearest. The index is memory-mapped, and standardises the embeddings
by its mean and standard deviation; the plain product gets unit embeddings in memory.

{exact_table}

## Approximate search of patch tokens

{table(HEAD, lines)}

## How it was measured

| part | how |
| --- | --- |
| rounds | the cases take turns; ratios are formed within a round; the **median** and, in brackets, every round |
| tokens | of simulated 224-px images of all structures; queries are tokens of images that are not in the index |
| demo | the packaged encoder, trained on simulated images |
| vit-small | random weights: the official ones were not available. Trained tokens may need more components |
| mixed | {last[1].partition(" ")[0]} mixtures of two tokens of one image: there is no time to embed so many images |
| recall | fraction of the {K} nearest neighbours of the exact search that are found, over {TOKEN_QUERIES} queries |
| query | one query at a time in a new process; files in the cache of the system |
| memory | anonymous memory of that process, with the libraries |
| build | standardisation, norms, training and adding; one core |
"""


if __name__ == "__main__":
    main()
