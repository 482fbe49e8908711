"""Training of a pixel decoder for the packaged encoder `demo`: `python -m stedfm_hf.training.demo_decoder`.

The weights of the encoder do not change. The command simulates crops, trains the decoder of the masked autoencoder on
them, and writes encoder and decoder in half precision into the package. It takes about three minutes on two cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from stedfm_hf.runs.threads import limit_spinning

if __name__ == "__main__":  # before torch is imported
    limit_spinning()

import numpy as np
import torch
from transformers import get_cosine_schedule_with_warmup

from stedfm_hf.data.simulation.benchmark_v1 import BENCHMARK_V1
from stedfm_hf.data.simulation.fields import simulate_image
from stedfm_hf.inference import load_encoder
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.training.network import standardised_network
from stedfm_hf.weights.packaged import packaged_folder

MODEL = "demo"
FIRST_FIELD = BENCHMARK_V1.free_from
FIELDS_PER_STRUCTURE = 150
BATCH_SIZE = 128
LEARNING_RATE = 2e-3
SEED = 42


def simulated_fields(per_structure: int, processor: StedFmImageProcessor) -> np.ndarray:
    """Simulate fields that are in no split of `benchmark-v1`, (n, H, W) float32, scaled to [0, 1]."""
    fields = (
        simulate_image(name, seed=BENCHMARK_V1.seed, index=FIRST_FIELD + number, settings=BENCHMARK_V1.settings)
        for number in range(per_structure)
        for name in BENCHMARK_V1.structures
    )
    return np.concatenate([processor.prepare(field) for field in fields])


def random_crops(fields: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Yield batches of crops (B, 1, size, size) at random positions, rotated and mirrored at random."""
    height, width = fields.shape[1:]
    while True:
        numbers = rng.integers(len(fields), size=BATCH_SIZE)
        tops, lefts = rng.integers(height - size + 1, size=BATCH_SIZE), rng.integers(width - size + 1, size=BATCH_SIZE)
        crops = []
        for number, top, left in zip(numbers, tops, lefts, strict=True):
            crop = fields[number, top : top + size, left : left + size][:: int(rng.choice([-1, 1]))]
            crops.append(np.rot90(crop, int(rng.integers(4))))
        yield torch.from_numpy(np.stack(crops)[:, None].copy())


def train_decoder(config: StedFmConfig, fields: np.ndarray, *, steps: int) -> tuple[StedFmForPreTraining, list[float]]:
    """Train the decoder of a masked autoencoder whose encoder is `demo` and does not change.

    Args:
        config: Configuration of the encoder and the decoder.
        fields: Fields (n, H, W) in [0, 1].
        steps: Number of steps.

    Returns:
        The masked autoencoder, and the loss of every step.
    """
    network = standardised_network(config, mean=float(fields.mean()), std=float(fields.std()), seed=SEED)
    network.stedfm.load_state_dict(load_encoder(MODEL, device="cpu").model.state_dict())
    network.stedfm.requires_grad_(False)
    optimizer = torch.optim.AdamW(network.decoder.parameters(), LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    crops = random_crops(fields, config.image_size, np.random.default_rng(SEED))
    generator = torch.Generator().manual_seed(SEED)
    losses = []
    for _ in range(steps):
        loss = network(next(crops), generator=generator).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.decoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return network.eval(), losses


def main(argv: Sequence[str] | None = None) -> None:
    """Train the decoder and write the masked autoencoder.

    Args:
        argv: Arguments of the command line; by default those of the process.
    """
    from stedfm_hf.training.demo_encoder import export_model

    parser = argparse.ArgumentParser(prog="python -m stedfm_hf.training.demo_decoder", description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="number of steps")
    parser.add_argument(
        "--output", type=Path, default=packaged_folder(MODEL), help="folder of the model; by default in the package"
    )
    arguments = parser.parse_args(argv)
    started = time.perf_counter()
    encoder = load_encoder(MODEL, device="cpu")
    fields = simulated_fields(FIELDS_PER_STRUCTURE, encoder.processor)
    print(f"{len(fields)} fields after {time.perf_counter() - started:.0f} s; a constant has loss {fields.var():.5f}")
    network, losses = train_decoder(encoder.model.config, fields, steps=arguments.steps)
    print(f"loss of the last 50 steps: {np.mean(losses[-50:]):.5f}, after {time.perf_counter() - started:.0f} s")
    export_model(network, encoder.processor, arguments.output)


if __name__ == "__main__":
    main()
