"""`python -m tests.benchmarks.bench_knn`: the exact neighbours of a large gallery; writes docs/benchmarks/knn.md.

Beside them a plain matrix product with `topk`, which needs unit vectors and the whole matrix of similarities, and
faiss's exact index where faiss-cpu is installed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from stedfm_hf.metrics import nearest
from stedfm_hf.metrics.neighbours import _ROWS
from tests.benchmarks.timing import machine, own_peak, peak_memory, spread, table, take_turns

K = 20
RATIO, PEAK = 1.3, 2560
"""What is promised: times the time of the plain product at most, and MB at most."""
PLAIN, CHUNKED, OURS, MAPPED, FAISS, CUDA = (
    "matrix product, `topk`",
    "the same in chunks",
    "`nearest`",
    "`nearest`, gallery in a file",
    "faiss `IndexFlatIP`",
    "`nearest`, on the GPU",
)
Found = Callable[[], np.ndarray]


def vectors(rows: int, length: int, seed: int) -> np.ndarray:
    """Random unit vectors, made in place: twenty directions and noise, as crowded as vectors of images are."""
    rng = np.random.default_rng(seed)
    made = np.empty((rows, length), np.float32)
    directions = np.random.default_rng(0).normal(size=(20, length)).astype(np.float32)
    for start in range(0, rows, 65_536):
        part = made[start : start + 65_536]
        rng.standard_normal(out=part, dtype=np.float32)
        part += directions[rng.integers(0, 20, len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


def plain(gallery: np.ndarray, query: np.ndarray) -> np.ndarray:
    """What anybody would write."""
    return torch.topk(torch.from_numpy(query) @ torch.from_numpy(gallery).T, K).indices.numpy()


def chunked(gallery: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The same without the whole matrix."""
    asked, values, places = torch.from_numpy(query), [], []
    for start in range(0, len(gallery), _ROWS):
        part = torch.from_numpy(gallery[start : start + _ROWS])
        value, place = torch.topk(asked @ part.T, min(K, len(part)))
        values.append(value)
        places.append(place + start)
    best = torch.topk(torch.cat(values, dim=1), K).indices
    return torch.cat(places, dim=1).gather(1, best).numpy()


def cases(gallery: np.ndarray, query: np.ndarray, file: Path) -> dict[str, Found]:
    """What is compared."""
    found: dict[str, Found] = {
        PLAIN: lambda: plain(gallery, query),
        CHUNKED: lambda: chunked(gallery, query),
        OURS: lambda: nearest(gallery, query, k=K)[0],
        MAPPED: lambda: nearest(np.load(file, mmap_mode="r"), query, k=K)[0],
    }
    if torch.cuda.is_available():
        found[CUDA] = lambda: nearest(gallery, query, k=K, device="cuda")[0]
    return found


def measure(rows: int, queries: int, length: int, rounds: int) -> str:
    """The table, and what is promised beside what was measured."""
    gallery, query = vectors(rows, length, 1), vectors(queries, length, 2)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gallery.npy"
        np.save(file, gallery)
        compared = cases(gallery, query, file)
        if importlib.util.find_spec("faiss"):
            index = importlib.import_module("faiss").IndexFlatIP(length)
            index.add(gallery)
            compared[FAISS] = lambda: index.search(query, K)[1]
        expected = compared[OURS]()
        same = {name: float((call() == expected).mean()) for name, call in compared.items()}
        rates = take_turns({name: (call, 1.0) for name, call in compared.items()}, rounds)
        sizes = [str(each) for each in (rows, queries, length)]
        peaks = {
            name: peak_memory(MODULE, "--peak", name, *sizes, str(file)) for name in (PLAIN, CHUNKED, OURS, MAPPED)
        }
    times = {name: [1 / rate for rate in each] for name, each in rates.values.items()}
    lines = [
        [
            name,
            spread(times[name]),
            spread(rates.ratios(PLAIN, name)),
            spread(rates.ratios(CHUNKED, name)),
            f"{peaks[name]:.0f}" if name in peaks else "",
            f"{100 * same[name]:.3f} %",
        ]
        for name in compared
    ]
    facts = {"rows": rows, "queries": queries, "length": length, "k": K, "size": gallery.nbytes / 2**20}
    head = ["", "s", "x plain", "x plain in chunks", "peak MB", "same rows"]
    ratio = float(np.median(rates.ratios(PLAIN, OURS)))
    kept = "kept" if ratio <= RATIO and max(peaks[OURS], peaks[MAPPED]) <= PEAK else "**broken**"
    verdict = (
        f"Promised for a gallery of 1 000 000 x 384: at most {RATIO} times the plain product and {PEAK} MB. "
        f"Here: {ratio:.2f} times and {max(peaks[OURS], peaks[MAPPED]):.0f} MB: {kept}."
    )
    return "\n\n".join([HEAD.format(machine=machine(), **facts), table(head, lines), verdict])


def peak(name: str, rows: int, queries: int, length: int, file: Path) -> float:
    """Peak memory of this process, which does nothing else."""
    query = vectors(queries, length, 2)
    if name == MAPPED:
        nearest(np.load(file, mmap_mode="r"), query, k=K)
    else:
        cases(vectors(rows, length, 1), query, file)[name]()
    return own_peak()


MODULE = "tests.benchmarks.bench_knn"
HEAD = """# Benchmark of the nearest neighbours

Made by `python -m tests.benchmarks.bench_knn` on: {machine}.

The {k} nearest neighbours by cosine of {queries} queries in a gallery of {rows} x {length} float32 ({size:.0f} MB),
random vectors around twenty directions. Everything ran in turn, round by round, and ratios are formed inside a round;
given is the **median** and, in brackets, every round. The plain product is given unit vectors; `nearest` divides by
their lengths itself, ranks in double precision and proves that no nearer row was missed. Peak memory is that of a
process that does nothing else; the gallery and the libraries are part of it. `same rows`: neighbours at the same rank
as those of `nearest`; single precision swaps some that are equally near to seven digits."""


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/knn.md"))
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        name, rows, queries, length, file = arguments.peak
        print(peak(name, int(rows), int(queries), int(length), Path(file)))
        return
    text = measure(arguments.rows, arguments.queries, arguments.length, arguments.rounds) + "\n"
    print(text)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
