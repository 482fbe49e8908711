"""The decoders of the segmentation model that are timed, and the encoder alone.

`python -m tests.benchmarks.decoders CASE` trains one of them for a few steps and prints the peak memory in MB.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from stedfm_hf import StedFmConfig, StedFmForSemanticSegmentation, StedFmModel
from stedfm_hf.modeling.configuration_stedfm import DECODERS
from tests.benchmarks.models import Case
from tests.benchmarks.timing import own_peak, peak_memory, spread, table, take_turns

BATCH = 8
CLASSES = 2
LIMIT_GB = 6
CASES = {"encoder": "encoder alone", **{name: f"`{name}`" for name in DECODERS}}


def network(case: str, attention: str = "sdpa") -> Any:
    """The encoder, or a segmentation model with the decoder of this name."""
    torch.manual_seed(0)
    if case == "encoder":
        return StedFmModel._from_config(StedFmConfig(), attn_implementation=attention)
    config = StedFmConfig(decoder=case, num_labels=CLASSES)
    return StedFmForSemanticSegmentation._from_config(config, attn_implementation=attention)


def forward(case: str) -> Case:
    """A forward pass without gradients."""
    model = network(case).eval()
    pixels = torch.rand(BATCH, 1, 224, 224)

    def run() -> object:
        with torch.inference_mode():
            return model(pixels)

    return run, float(BATCH)


def step(case: str) -> Case:
    """A training step of all weights: forward, loss, backward, fused AdamW."""
    model = network(case).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    pixels = torch.rand(BATCH, 1, 224, 224)
    labels = torch.randint(CLASSES, (BATCH, 224, 224))

    def run() -> object:
        optimizer.zero_grad(set_to_none=True)
        output = model(pixels) if case == "encoder" else model(pixels, labels=labels)
        loss = output.last_hidden_state.square().mean() if case == "encoder" else output.loss
        loss.backward()
        optimizer.step()
        return loss

    return run, float(BATCH)


def operations(case: str) -> float:
    """Floating-point operations of a forward pass of one image; only those of the eager attention are all counted."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(case, "eager").eval()(torch.rand(1, 1, 224, 224))
    return float(counter.get_total_flops())


def decoders(rounds: int) -> str:
    """Size, speed and memory of every decoder compared with the encoder alone."""
    passes = take_turns({case: forward(case) for case in CASES}, rounds)
    steps = take_turns({case: step(case) for case in CASES}, rounds)
    rows = [
        [
            label,
            f"{_millions(network(case)):.1f}",
            f"{operations(case) / 1e9:.1f}",
            spread(passes.values[case]),
            spread(passes.ratios(case, "encoder")),
            spread(steps.values[case]),
            spread(steps.ratios(case, "encoder")),
            f"{peak_memory('tests.benchmarks.decoders', case):.0f}",
        ]
        for case, label in CASES.items()
    ]
    head = [
        "",
        "parameters, M",
        "GFLOP per image",
        "forward, images/s",
        "x encoder",
        "step, images/s",
        "x encoder",
        "step, peak MB",
    ]
    return (
        f"## Decoders, vit-small, batch {BATCH}, float32\n\n"
        f"Decoders compared with the encoder alone: images of 224 x 224, {CLASSES} classes, cross-entropy. A step "
        "trains all weights: forward, backward and fused AdamW. The loss of the encoder alone is the mean square of "
        f"its tokens. The limit for memory is {LIMIT_GB} GiB ({LIMIT_GB * 1024} MB).\n\n" + table(head, rows)
    )


def _millions(model: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def main() -> None:
    """Train one case for a few steps and print the peak memory."""
    run, _ = step(sys.argv[1])
    for _ in range(3):
        run()
    print(own_peak())


if __name__ == "__main__":
    main()
