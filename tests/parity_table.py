"""`python -m tests.parity_table`: differences from the reference; writes docs/benchmarks/parity.md."""

from __future__ import annotations

import argparse
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

from stedfm_hf import StedFmConfig, StedFmForImageClassification, StedFmForPreTraining
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from stedfm_hf.modeling.layers_stedfm import sincos_position_table
from tests import parity

INTRODUCTION = """# Parity with the reference

Differences between stedfm-hf and the building blocks of the published code (timm 1.0.31, lightly 1.6.0), in float32 on
a CPU. The largest difference of a token, prediction or logit is {largest:.1e}.

Computed on {date} with torch {torch}, transformers {transformers}, Python {python}, {machine}, by
`python -m tests.parity_table`.
"""
END = """## How it was computed

Both networks have the same stand-in weights: each tensor is a fixed function of its name in the reference's
checkpoints. They get the same random images and masks. The table shows the largest difference; *rel.* is relative.
Another CPU or another number of threads rounds differently, and gives other values of the same size.
`tests/modeling/test_parity.py` checks the same comparisons against bounds: 1e-5 absolute for tokens, predictions and
logits, 1e-6 relative for the loss, 1e-4 relative for gradient norms."""


def differences(architecture: str, implementation: str) -> list[str]:
    """One row: largest differences of tokens, kept patches, predictions; of loss and gradient norms, relative."""
    expected = {name: torch.from_numpy(array) for name, array in parity.results(architecture).items()}
    config = StedFmConfig(**ARCHITECTURES[f"stedfm-vit-{architecture}"])
    model = StedFmForPreTraining._from_config(config, attn_implementation=implementation).eval()
    model.load_state_dict(parity.our_state_dict(parity.reference_state_dict(architecture)))
    images = parity.images(len(expected["noise"]), model.config.image_size)
    with torch.no_grad():
        tokens = model.stedfm(images).last_hidden_state
        kept = model.stedfm.embeddings(images, ids_keep=expected["idx_keep"][:, 1:] - 1)
        encoded = model.stedfm.norm(model.stedfm.encoder(kept).last_hidden_state)
    output = model(images, noise=expected["noise"])
    output.loss.backward()
    norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
    gradients = [
        abs(norms[ours] - norm) / norm
        for key, norm in parity.REFERENCE[architecture]["grad_norms"].items()
        if (ours := parity.our_key(key)) is not None
    ]
    far = [
        (tokens - expected["tokens"]).abs().max(),
        (encoded - expected["encoded_keep"]).abs().max(),
        (output.logits.detach() - expected["decoder_pred"]).abs().max(),
        abs(output.loss.detach() - expected["loss"]) / expected["loss"],
        max(gradients),
    ]
    return [architecture, implementation, *(f"{float(value):.1e}" for value in far)]


def classifier() -> float:
    """Largest difference of the classifier's logits."""
    model = StedFmForImageClassification(StedFmConfig(num_labels=4)).eval()
    model.load_state_dict(parity.our_state_dict(parity.classifier_state_dict()))
    with torch.no_grad():
        logits = model(parity.images(2, 224)).logits
    return float((logits - torch.from_numpy(parity.results("classifier_small")["classifier_logits"])).abs().max())


def tables() -> float:
    """Largest difference of the sin-cos position tables."""
    found = []
    for expected in parity.results("sincos_tables").values():
        side = round((expected.shape[1] - 1) ** 0.5)
        found.append(
            (sincos_position_table(side, side, expected.shape[2]) - torch.from_numpy(expected[0])).abs().max()
        )
    return float(max(found))


def main() -> None:
    """Compare and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/parity.md"))
    output = parser.parse_args().output
    head = [
        "architecture",
        "attention",
        "tokens",
        "kept patches",
        "predictions",
        "loss (rel.)",
        "gradient norms (rel.)",
    ]
    rows = [differences(name, kind) for name in parity.ARCHITECTURES for kind in ("eager", "sdpa")]
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    introduction = INTRODUCTION.format(
        largest=max(float(cell) for row in rows for cell in row[2:5]),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        torch=torch.__version__,
        transformers=transformers.__version__,
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
    )
    others = f"Classifier, logits: {classifier():.1e}. Position tables: {tables():.1e}."
    text = "\n".join([introduction, *lines, "", others, "", END]) + "\n"
    output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
