"""The models that are timed: ours, and transformers' of the same size.

`python -m tests.benchmarks.models CASE BATCH` runs one case a few times and prints the peak memory in MB.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from stedfm_hf import StedFmConfig, StedFmForPreTraining, StedFmModel
from tests.benchmarks.timing import own_peak

SIZE: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 1,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-6,
}
DECODER = {
    "decoder_hidden_size": 512,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 8,
    "decoder_intermediate_size": 2048,
    "mask_ratio": 0.75,
}
Case = tuple[Callable[[], object], float]


def encoder(kind: str, batch: int) -> Case:
    """A forward pass of an encoder; `kind` is `vit` or `ours`, then `-eager`, `-bf16`, `-compiled` in this order."""
    name, *options = kind.split("-")
    attention = "eager" if "eager" in options else "sdpa"
    torch.manual_seed(0)
    model: Any
    if name == "vit":
        model = ViTModel._from_config(ViTConfig(**SIZE), attn_implementation=attention, add_pooling_layer=False)
    else:
        model = StedFmModel._from_config(StedFmConfig(), attn_implementation=attention)
    dtype = torch.bfloat16 if "bf16" in options else torch.float32
    model = model.eval().to(dtype)
    pixels = torch.rand(batch, 1, 224, 224).to(dtype)
    call = torch.compile(model, fullgraph=True) if "compiled" in options else model

    def run() -> object:
        with torch.inference_mode():
            return call(pixels).last_hidden_state

    return run, float(batch)


def mae_step(kind: str, batch: int) -> Case:
    """A training step of a masked autoencoder: forward, backward, fused AdamW; bfloat16 by autocast."""
    name, *options = kind.split("-")
    torch.manual_seed(0)
    model: Any
    if name == "vitmae":
        model = ViTMAEForPreTraining._from_config(ViTMAEConfig(**SIZE, **DECODER, norm_pix_loss=False))
    else:
        model = StedFmForPreTraining(StedFmConfig())
    model = model.train()
    call = torch.compile(model, fullgraph=True) if "compiled" in options else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    pixels = torch.rand(batch, 1, 224, 224)
    noise = torch.rand(batch, 196)

    def run() -> object:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in options):
            loss = call(pixels, noise=noise).loss
        loss.backward()
        optimizer.step()
        return loss

    return run, float(batch)


def operations() -> float:
    """Floating-point operations of one image in the encoder."""
    run, _ = encoder("ours-eager", 1)
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def main() -> None:
    """Run one case and print its peak memory."""
    case, batch = sys.argv[1], int(sys.argv[2])
    run, _ = (mae_step if "mae" in case else encoder)(case, batch)
    for _ in range(3):
        run()
    print(own_peak())


if __name__ == "__main__":
    main()
