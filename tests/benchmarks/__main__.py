"""`python -m tests.benchmarks`: measure everything and write docs/benchmarks/speed.md (`make bench`)."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import tifffile
import torch

from stedfm_hf import StedFmConfig, StedFmForPreTraining
from stedfm_hf.inference import embed, load_encoder
from stedfm_hf.modeling.tiling_stedfm import encode_images
from tests.benchmarks import models
from tests.benchmarks.timing import machine, matmul, peak_memory, spread, table, take_turns, write_page

BATCH = 32
ENCODERS = {
    "vit": "transformers `ViTModel`, sdpa, float32",
    "default": "`StedFmModel`, sdpa, float32",
    "ours-eager": "`StedFmModel`, eager, float32",
    "ours-compiled": "`StedFmModel`, sdpa, float32, `torch.compile`",
    "vit-bf16": "transformers `ViTModel`, sdpa, bfloat16",
    "ours-bf16": "`StedFmModel`, sdpa, bfloat16",
    "ours-bf16-compiled": "`StedFmModel`, sdpa, bfloat16, `torch.compile`",
}
STEPS = {
    "vitmae": "transformers `ViTMAEForPreTraining`, float32",
    "oursmae": "`StedFmForPreTraining`, float32",
    "oursmae-compiled": "`StedFmForPreTraining`, float32, `torch.compile`",
    "vitmae-bf16": "transformers `ViTMAEForPreTraining`, bfloat16 autocast",
    "oursmae-bf16": "`StedFmForPreTraining`, bfloat16 autocast",
}


def encoders(rounds: int) -> str:
    """Compare the encoder with ViTModel and with a matrix product, by attention and precision."""
    cases = {name: models.encoder(name, BATCH) for name in ENCODERS}
    rates = take_turns({"matmul": matmul(torch.float32), "matmul-bf16": matmul(torch.bfloat16), **cases}, rounds, 2)
    flops = models.operations()
    rows = [
        [
            label,
            spread(rates.values[name], 1),
            spread(rates.ratios(name, "vit")),
            spread(rates.ratios(name, "matmul-bf16" if "bf16" in name else "matmul", flops)),
            f"{peak_memory('tests.benchmarks.models', name, str(BATCH)):.0f}",
        ]
        for name, label in ENCODERS.items()
    ]
    times = {name: median(rates.ratios(name, "vit")) for name in ENCODERS}
    peaks = ", ".join(f"{rates.median(name) / 1e9:.0f} ({name})" for name in ("matmul", "matmul-bf16"))
    return (
        f"## Encoder, vit-small, batch {BATCH}\n\n"
        f"In float32, `StedFmModel` reaches {times['default']:.2f} times the rate of `ViTModel`; in bfloat16 the two "
        f"reach {times['ours-bf16']:.2f} and {times['vit-bf16']:.2f} times this rate.\n\n"
        f"Forward pass of 224 x 224 images, {flops / 1e9:.2f} GFLOP each. "
        f"Matrix product of the machine, median: {peaks} GFLOP/s.\n\n"
        + table(
            ["", "images/s", "x ViTModel float32", "fraction of the matrix product of its precision", "peak MB"], rows
        )
    )


def steps(rounds: int) -> str:
    """Compare a training step of the masked autoencoder with ViTMAE."""
    cases = {name: models.mae_step(name, BATCH) for name in STEPS}
    rates = take_turns(cases, rounds, 2)
    rows = [
        [
            label,
            spread(rates.values[name], 1),
            spread(rates.ratios(name, "vitmae")),
            f"{peak_memory('tests.benchmarks.models', name, str(BATCH)):.0f}",
        ]
        for name, label in STEPS.items()
    ]
    return (
        f"## Masked-autoencoder step, vit-small, batch {BATCH}\n\n"
        f"In float32, a step reaches {median(rates.ratios('oursmae', 'vitmae')):.2f} times the rate of ViTMAE.\n\n"
        "Forward, backward and fused AdamW; 75 % of the patches masked, decoder 512 x 1 layer x 8 heads for both.\n\n"
        + table(["", "images/s", "x ViTMAE float32", "peak MB"], rows)
    )


def batches(rounds: int) -> str:
    """Measure the encoder and the step by batch size."""
    sizes = (1, 8, 32, 64)
    cases = {f"encoder {size}": models.encoder("default", size) for size in sizes}
    cases |= {f"encoder bfloat16 {size}": models.encoder("ours-bf16", size) for size in sizes}
    cases |= {f"step {size}": models.mae_step("oursmae", size) for size in sizes}
    rates = take_turns(cases, rounds)
    kinds = ("encoder", "encoder bfloat16", "step")
    rows = [[kind, *(spread(rates.values[f"{kind} {size}"], 1) for size in sizes)] for kind in kinds]
    return "## Batch size, images/s\n\n" + table(["", *map(str, sizes)], rows)


def agreement() -> str:
    """Embeddings in bfloat16 compared with float32."""
    torch.manual_seed(0)
    model = StedFmForPreTraining(StedFmConfig()).eval()
    images = [np.random.default_rng(i).random((1, 224, 224), dtype=np.float32) for i in range(32)]
    exact, half = (np.stack(list(encode_images(model.to(dtype), images))) for dtype in (torch.float32, torch.bfloat16))
    cosine = (exact * half).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(half, axis=1)
    return (
        "## bfloat16 compared with float32\n\n"
        f"Smallest cosine similarity between the embeddings of {len(images)} random images, untrained network: "
        f"{cosine.min():.6f}."
    )


def folder(rounds: int) -> str:
    """Compare `embed` of a folder with the model alone on the same images in memory."""
    count = 128
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        torch.manual_seed(0)
        StedFmForPreTraining(StedFmConfig()).save_pretrained(root / "model")
        images = [np.random.default_rng(i).poisson(20, (224, 224)).astype(np.uint16) for i in range(count)]
        (root / "images").mkdir()
        for index, image in enumerate(images):
            tifffile.imwrite(root / "images" / f"{index:03d}.tif", image)
        rows = [_folder_row(root, images, precision, rounds) for precision in ("float32", "bfloat16")]
    return (
        f"## `embed` of a folder of {count} 16-bit TIFF files\n\n"
        "Includes reading, scaling, loading the model, and writing the table and the manifest.\n\n"
        + table(["", "model alone, images/s", "`embed`, images/s", "ratio"], rows)
    )


def _folder_row(root: Path, images: list[np.ndarray], precision: str, rounds: int) -> list[str]:
    encoder = load_encoder(root / "model", device="cpu", precision=precision)
    prepared = [encoder.processor.prepare(image) for image in images]

    def alone() -> object:
        return list(encode_images(encoder.model, prepared, batch_size=BATCH))

    def whole() -> object:
        return embed(root / "images", model=root / "model", device="cpu", precision=precision)

    rates = take_turns({"alone": (alone, len(images)), "embed": (whole, len(images))}, rounds)
    both = [spread(values, 1) for values in rates.values.values()]
    return [precision, *both, spread(rates.ratios("embed", "alone"))]


def main() -> None:
    """Measure the parts asked for and write the page."""
    parts = {"encoders": encoders, "steps": steps, "batches": batches, "folder": folder}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of everything")
    parser.add_argument("--only", choices=parts, action="append", help="measure this part only, and write no page")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/speed.md"))
    arguments = parser.parse_args()
    print(machine(), file=sys.stderr)
    pages = [parts[name](arguments.rounds) for name in arguments.only or parts]
    text = "\n\n".join([INTRODUCTION.format(machine=machine()), *pages, agreement(), METHOD]) + "\n"
    print(text)
    if not arguments.only:
        write_page(arguments.output, text)


INTRODUCTION = """# Speed of models and embedding

The encoder, the training step and `stedfm embed`, compared with ViT and ViTMAE of transformers at the
same size, on a CPU. Each section begins with its comparison.

Measured on {machine}, with `make bench`."""
METHOD = """## How it was measured

In each table the cases take turns in one process, because shared machines change their speed from minute to minute.
Ratios are formed within a round. Tables show the **median** and, in brackets, every round. Peak memory is that of a
process that does nothing else."""


if __name__ == "__main__":
    main()
