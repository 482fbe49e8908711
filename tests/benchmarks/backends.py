"""`python -m tests.benchmarks.backends`: measure the backends of the encoder (`make bench-backends`).

Throughput of vit-small with random weights, and the accuracy of the packaged encoder on `benchmark-v1` with each
backend. Tables of embeddings are kept in the folder of `--work`, and a second run uses them again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from stedfm_hf import StedFmConfig, StedFmModel
from stedfm_hf.data.simulation.simulate import simulate
from stedfm_hf.evaluation.knn import knn_accuracy
from stedfm_hf.exports.onnx_format import export_onnx
from stedfm_hf.exports.openvino_format import export_openvino
from stedfm_hf.exports.runtime_models import FILES, load_runtime_model
from stedfm_hf.inference import embed
from tests.benchmarks.timing import instruction_sets, machine, spread, table, take_turns

BATCH = 8
SIZE = 224
CALLS = 4
"""Batches that a case computes in one turn."""
CASES = {
    "torch-float32": "PyTorch, float32",
    "torch-float32-compiled": "PyTorch, float32, `torch.compile`",
    "torch-bfloat16": "PyTorch, bfloat16",
    "torch-bfloat16-compiled": "PyTorch, bfloat16, `torch.compile`",
    "onnx-float32": "onnxruntime, float32",
    "onnx-int8": "onnxruntime, int8",
    "openvino-float32": "OpenVINO, float32",
    "openvino-bfloat16": "OpenVINO, bfloat16",
}
BACKENDS = {
    "torch": ("float32", "bfloat16"),
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16"),
}
"""Precisions of each backend whose accuracy is measured."""
Network = Callable[[torch.Tensor], torch.Tensor]


def networks(work: Path) -> tuple[dict[str, Network], dict[str, float]]:
    """Return every case as a function from images to pooled embeddings, and the size of its files in MB."""
    torch.manual_seed(0)
    model = StedFmModel(StedFmConfig()).eval()
    with torch.no_grad():
        for value in model.parameters():  # biases and norms, too
            value += 0.02 * torch.randn_like(value)
    found: dict[str, Network] = {}
    sizes: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        # A copy, because `to` would convert the model itself.
        network = StedFmModel(StedFmConfig()).eval().to(dtype)
        network.load_state_dict(model.state_dict())
        name = f"torch-{str(dtype).removeprefix('torch.')}"
        found[name] = _on_torch(network, dtype)
        found[f"{name}-compiled"] = _on_torch(torch.compile(network, fullgraph=True), dtype)
        sizes[name] = sum(value.numel() * value.element_size() for value in network.parameters()) / 1e6
    for backend, export in (("onnx", export_onnx), ("openvino", export_openvino)):
        for precision in BACKENDS[backend]:
            if backend == "openvino" or precision != "bfloat16":
                name = f"{backend}-{precision}"
                folder = work / name
                folder.mkdir()
                export(model, folder, weights_sha256="", precision=precision)
                runtime = load_runtime_model(folder, "encoder", backend, name)
                found[name] = _on_runtime(runtime)
                stem = Path(FILES[backend]).stem
                sizes[name] = sum(file.stat().st_size for file in folder.glob(f"{stem}.*")) / 1e6
    return {name: found[name] for name in CASES}, sizes


def _on_torch(network: Any, dtype: torch.dtype) -> Network:
    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return network(images.to(dtype)).pooler_output.float()

    return run


def _on_runtime(runtime: Any) -> Network:
    return lambda images: runtime(images).pooler_output


def throughput(rounds: int) -> tuple[str, str]:
    """Measure the cases in turn; return a sentence on the result and the table."""
    with tempfile.TemporaryDirectory() as place:
        cases, sizes = networks(Path(place))
        images = torch.rand(BATCH, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        embeddings = {name: case(images) for name, case in cases.items()}  # compiles, too

        def repeated(case: Network) -> Callable[[], object]:
            return lambda: [case(images) for _ in range(CALLS)]

        rates = take_turns({name: (repeated(case), float(CALLS * BATCH)) for name, case in cases.items()}, rounds)
        del cases
    rows = []
    for name, label in CASES.items():
        cosine = torch.nn.functional.cosine_similarity(embeddings[name], embeddings["torch-float32"]).min()
        size = sizes[name.removesuffix("-compiled")]
        ratios = spread(rates.ratios(name, "torch-float32"))
        rows.append([label, spread(rates.values[name], 1), ratios, f"{float(cosine):.5f}", f"{size:.0f}"])
    ratio = {name: float(np.median(rates.ratios(name, "torch-float32"))) for name in CASES}
    fastest = max(ratio, key=lambda name: ratio[name])
    sentence = f"The fastest is {CASES[fastest]}: {ratio[fastest]:.1f} times PyTorch in float32."
    head = ["", "images/s", "x PyTorch float32", "cosine", "MB"]
    return sentence, table(head, rows)


def accuracy(work: Path, per_class: int | None) -> str:
    """Embed `benchmark-v1` with the packaged encoder and every backend, and compare k-nearest-neighbour accuracies."""
    images = work / "benchmark-v1"
    simulate(output=images, preset="benchmark-v1", masks=False)
    tables: dict[tuple[str, str, str], pa.Table] = {}
    for backend, precisions in BACKENDS.items():
        for precision in precisions:
            for split in ("train", "test"):
                inputs: Any = images / "images" / split
                if per_class is not None:
                    inputs = [path for each in sorted(inputs.iterdir()) for path in sorted(each.iterdir())[:per_class]]
                print(f"{backend}, {precision}, {split}", file=sys.stderr, flush=True)
                tables[backend, precision, split] = embed(
                    inputs,
                    work / f"{split}-{backend}-{precision}.parquet",
                    model="demo",
                    device="cpu",
                    backend=backend,
                    precision=precision,
                ).table
    rows = []
    for (backend, precision, split), found in tables.items():
        if split == "test":
            exact = tables["torch", "float32", "test"]
            cosine = _cosines(_embeddings(found), _embeddings(exact))
            scores = [
                knn_accuracy(
                    _embeddings(tables[backend, precision, "train"]),
                    _labels(tables[backend, precision, "train"]),
                    _embeddings(found),
                    _labels(found),
                    zscore=zscore,
                ).accuracy
                for zscore in (True, False)
            ]
            label = CASES[f"{backend}-{precision}"]
            rows.append([label, *(f"{100 * score:.2f} %" for score in scores), f"{cosine.min():.5f}"])
    counts = [len(tables["torch", "float32", split]) for split in ("train", "test")]
    return (
        f"The packaged encoder `demo` on `benchmark-v1`: {counts[0]:,} training and {counts[1]:,} test images of 7 "
        "structures. Each\ntest image gets the label of most of its 10 nearest training images, whose embeddings were "
        "computed with the same\nbackend. Features are standardised over the training images, or not.\n\n"
        + table(["", "accuracy, standardised", "not standardised", "smallest cosine"], rows)
    )


def _embeddings(found: pa.Table) -> np.ndarray:
    return np.stack(found["embedding"].to_numpy())


def _labels(found: pa.Table) -> list[str]:
    """Return the structure in each image, which begins the name of its file."""
    return [Path(path).stem.rpartition("_")[0] for path in found["path"].to_pylist()]


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of the throughput")
    parser.add_argument("--work", type=Path, default=Path("build/backends"), help="folder for images and tables")
    parser.add_argument("--per-class", type=int, help="images per class and split, for a shortened run")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/backends.md"))
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    sentence, speeds = throughput(arguments.rounds)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "openvino"))
    text = PAGE.format(
        sentence=sentence,
        machine=f"{machine()}, {versions}",
        flags=instruction_sets(),
        load=load,
        batch=BATCH,
        size=SIZE,
        speeds=speeds,
        accuracy=accuracy(arguments.work, arguments.per_class),
    )
    print(text)
    arguments.output.write_text(text, encoding="utf-8")


PAGE = """# Backends

The encoder vit-small with PyTorch, onnxruntime and OpenVINO on a CPU. {sentence}

Measured on {machine}, with `make bench-backends`. Instruction sets: {flags}. Load average before the measurement:
{load:.2f}.

## Throughput, batch {batch}, {size} x {size} pixels

{speeds}

The cases take turns in one process, so that a change of the speed of the machine affects all of them. The table shows
the **median** and, in brackets, every round. Ratios are formed within a round. "cosine" is the smallest cosine
similarity with the embeddings of PyTorch in float32, and "MB" the size of the weights or of the exported files. The
weights are random.

## Accuracy on simulated images

{accuracy}
"""


if __name__ == "__main__":
    main()
