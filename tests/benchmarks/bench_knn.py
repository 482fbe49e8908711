"""`python -m tests.benchmarks.bench_knn`: the exact neighbours of a large gallery; writes docs/benchmarks/knn.md.

They are compared with a plain matrix product and `topk`, which needs unit embeddings and the whole matrix of
similarities, and with the exact index of faiss where faiss-cpu is installed.
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
"""Limits: times the time of the plain product, and MB."""
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
    """Random unit embeddings, made in place: twenty directions and noise, as crowded as embeddings of images."""
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
    """Multiply all pairs and take the largest."""
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
    """Cases that are compared."""
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
    """The page: the result, the table, and how it was measured."""
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
    kept = "met" if ratio <= RATIO and max(peaks[OURS], peaks[MAPPED]) <= PEAK else "**not met**"
    most = max(peaks[OURS], peaks[MAPPED])
    result = (
        f"It takes {ratio:.2f} times the time of the plain product and {most:.0f} MB; required are at most {RATIO} "
        f"times and {PEAK} MB for 1,000,000 x 384: {kept}."
    )
    introduction = HEAD.format(machine=machine(), result=result, **facts)
    return "\n\n".join([introduction, table(head, lines), METHOD.format(**facts)])


def peak(name: str, rows: int, queries: int, length: int, file: Path) -> float:
    """Peak memory of this process, which does nothing else."""
    query = vectors(queries, length, 2)
    if name == MAPPED:
        nearest(np.load(file, mmap_mode="r"), query, k=K)
    else:
        cases(vectors(rows, length, 1), query, file)[name]()
    return own_peak()


MODULE = "tests.benchmarks.bench_knn"
HEAD = """# Nearest neighbours

`nearest`, the exact search of stedfm-hf, compared with a plain matrix product and `topk` of torch: the {k} nearest
neighbours of {queries} queries among {rows} x {length} embeddings. {result}

Measured on {machine}, with `python -m tests.benchmarks.bench_knn`."""
METHOD = """## How it was measured

| part | how |
| --- | --- |
| embeddings | random float32 embeddings around twenty directions ({size:.0f} MB), cosine similarity |
| rounds | the cases take turns; ratios are formed within a round |
| numbers | the **median** and, in brackets, every round |
| plain product | gets unit embeddings |
| `nearest` | divides by their lengths, ranks in double precision, and proves that it missed no nearer row |
| peak memory | a process that does nothing else, with the gallery and the libraries |
| same rows | neighbours at the same rank as in `nearest`; single precision swaps some equal to seven digits |"""


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
