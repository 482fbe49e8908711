"""Result of a training of the diffusion model: the pipeline, figures and the card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stedfm_hf.cards import GenerationCardFacts, render_generation_card
from stedfm_hf.data.repository.files import SplitFiles
from stedfm_hf.inference.loading import Encoder, load_encoder
from stedfm_hf.modeling.generation_pipeline_stedfm import StedFmGenerationPipeline
from stedfm_hf.reports.figures import save_figure
from stedfm_hf.runs import atomic_path
from stedfm_hf.training.card import CARD_FILE, describe_data, describe_machine, speed_and_hours
from stedfm_hf.training.curve import CURVE_FILE
from stedfm_hf.training.figures import CURVE, FIGURES
from stedfm_hf.training.generation.curve import GenerationRow
from stedfm_hf.training.generation.figures import plot_curve
from stedfm_hf.training.generation.network import DenoisingNetwork
from stedfm_hf.training.generation.settings import GenerationSettings

if TYPE_CHECKING:
    from stedfm_hf.training.generation.trainer import GenerationTrainer

PIPELINE_INDEX = "model_index.json"
"""File of a pipeline folder, written last by diffusers' layout."""
_SETTINGS = (
    "effective_batch_size",
    "learning_rate",
    "lr_scheduler_type",
    "weight_decay",
    "condition_dropout",
    "min_snr_gamma",
    "ema_decay",
    "augment",
    "protocol",
    "seed",
)
"""Settings of the recipe that are shown in the card."""
_FILES = {
    "recipe.yaml": "settings; to repeat: `stedfm pretrain generation --recipe recipe.yaml --dataset D --output O`",
    CURVE_FILE: "losses and evaluations of the training",
    "manifest.json": "versions, settings and data",
}


def write_results(
    settings: GenerationSettings,
    trainer: GenerationTrainer,
    rows: Sequence[GenerationRow],
    *,
    train: Sequence[SplitFiles],
    encoder: Encoder | None,
    classes: tuple[str, ...] = (),
) -> None:
    """Write the pipeline with the averaged weights, the figures and the card into the folder of the run.

    Args:
        settings: Settings of the training.
        trainer: Trainer at the end of the training.
        rows: Rows of the curve.
        train: Training splits.
        encoder: Encoder of the condition; None for classes.
        classes: Names of the classes that are the condition.
    """
    folder, network = settings.folder, trainer.network
    if trainer.average is None:
        save_pipeline(folder, network, settings=settings, encoder=encoder, classes=classes)
    else:
        with trainer.average.applied():
            save_pipeline(folder, network, settings=settings, encoder=encoder, classes=classes)
    if rows:
        save_figure(plot_curve(rows), folder / FIGURES, CURVE)
    sheets = sorted((folder / "samples").glob("step-*.png"))
    _, hours = speed_and_hours(rows, trainer.samples)
    last = next((row for row in reversed(rows) if row.held_out_loss is not None), None)
    facts = GenerationCardFacts(
        name=(settings.hub_model_id if settings.push_to_hub else None) or folder.resolve().name,
        encoder=None if encoder is None else encoder.name,
        classes=classes,
        image_size=network.unet.config.sample_size,
        parameters=sum(value.numel() for value in network.unet.parameters()),
        data=tuple(describe_data(files) for files in train),
        steps=trainer.state.global_step,
        samples=trainer.samples,
        prediction=settings.prediction_type,
        noise_schedule=settings.noise_schedule,
        licence=settings.licence,
        hours=hours,
        machine=describe_machine(trainer.args.world_size, trainer.args.device),
        settings={name: value for name, value in settings.recipe().items() if name in _SETTINGS},
        held_out_crops=None if trainer.held_out is None else len(trainer.held_out),
        held_out_loss=None if last is None else last.held_out_loss,
        constant_loss=None if last is None else last.constant_loss,
        distances=_distances(last),
        curve=f"{FIGURES}/{CURVE}.png" if rows else None,
        sheet=sheets[-1].relative_to(folder).as_posix() if sheets else None,
        files={name: what for name, what in _FILES.items() if (folder / name).exists()},
    )
    with atomic_path(folder / CARD_FILE) as temporary:
        temporary.write_text(render_generation_card(facts), encoding="utf-8", newline="\n")


def save_pipeline(
    folder: Path,
    network: DenoisingNetwork,
    *,
    settings: GenerationSettings,
    encoder: Encoder | None,
    classes: tuple[str, ...] = (),
) -> None:
    """Write a network as a pipeline folder, with a float32 copy of the encoder.

    Args:
        folder: Folder to write.
        network: Network whose weights are saved.
        settings: Settings of the training.
        encoder: Encoder of the condition; None for classes.
        classes: Names of the classes that are the condition.
    """
    parts: dict[str, Any] = {}
    if encoder is not None:
        # Loaded again, because the encoder of the training may have been rounded to bfloat16.
        stored = load_encoder(settings.model, device="cpu", precision="float32")
        parts = {"encoder": stored.model, "image_processor": stored.processor}
    with torch.random.fork_rng():
        pipeline = StedFmGenerationPipeline(
            network.unet,
            network.objective.scheduler,
            **parts,
            value_range=network.objective.value_range,
            condition_dropout=settings.condition_dropout,
            id2label=dict(enumerate(classes)) if classes else None,
        )
    pipeline.save_pretrained(folder)


def _distances(row: GenerationRow | None) -> dict[str, tuple[float, float]]:
    """Return the Fréchet distances of samples and of held-out crops, by name of the features."""
    if row is None:
        return {}
    named = {
        "embeddings of the encoder": (row.frechet_embedding, row.frechet_embedding_real),
        "texture and morphology features": (row.frechet_texture, row.frechet_texture_real),
    }
    return {name: (made, real) for name, (made, real) in named.items() if made is not None and real is not None}
