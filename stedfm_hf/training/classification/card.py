"""The card of a classifier: what is known of the runs, gathered for `stedfm_hf.cards`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stedfm_hf.cards.classifier import ClassifierCardFacts, render_classifier_card
from stedfm_hf.inference.packaged import PACKAGED
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.runs import atomic_path
from stedfm_hf.training.card import CARD_FILE, describe_machine
from stedfm_hf.training.classification.arguments import ClassificationArguments, ModelArguments
from stedfm_hf.training.classification.feeding import Side
from stedfm_hf.training.classification.figures import CONFUSION, SCATTER
from stedfm_hf.training.classification.material import Material
from stedfm_hf.training.classification.network import name_of_model
from stedfm_hf.training.classification.outcome import METRICS_FILE, PREDICTIONS_FILE
from stedfm_hf.training.curve import CURVE_FILE
from stedfm_hf.training.figures import CURVE, FIGURES

MODES = {
    "linear-probe": "only the head was trained, on features of a frozen encoder",
    "last-blocks": "the head and the last {blocks} blocks were trained, the others are frozen",
    "full": "all weights were trained",
    "lora": "the head and adapters of rank {lora_rank} (LoRA) were trained; they are added to the weights",
    "from-scratch": "all weights were drawn at random and trained; only the architecture is the model's",
}
_SETTINGS = (
    "effective_batch",
    "learning_rate",
    "layer_decay",
    "lr_scheduler_type",
    "weight_decay",
    "augment",
    "class_weights",
    "labels_per_class",
    "label_fraction",
    "early_stopping_patience",
)
"""What of a recipe a reader of a card asks for; the rest is in the recipe."""
_FILES = {
    "recipe.yaml": "settings; `--recipe recipe.yaml --model MODEL --dataset DATA --output_dir NEW` repeats it",
    METRICS_FILE: "all figures of all seeds",
    PREDICTIONS_FILE: "what this model says of every validation and test image",
    CURVE_FILE: "losses and checks of the training of this model",
    "manifest.json": "versions, settings and data",
}


def write_card(
    folder: Path,
    summary: Mapping[str, Any],
    recipe: Mapping[str, Any],
    model: ModelArguments,
    material: Material,
    arguments: ClassificationArguments,
    sides: Mapping[str, Side],
) -> None:
    """Writes `README.md`; goes last, for it shows the figures that are there.

    Args:
        folder: of the best model.
        summary: figures of all seeds.
        recipe: the settings.
        model: what was trained.
        material: the images.
        arguments: how it was trained.
        sides: what the figures are of.
    """
    network = StedFmForImageClassification.from_pretrained(folder)
    encoder = sum(parameter.numel() for parameter in network.stedfm.parameters())
    head = sum(parameter.numel() for parameter in network.classifier.parameters())
    best = next(run for run in summary["runs"] if run["seed"] == summary["best_seed"])
    shown = "test" if "test" in best else "validation"
    pictures = {name: f"{FIGURES}/{name}.png" for name in (CURVE, CONFUSION, SCATTER)}
    facts = ClassifierCardFacts(
        name=folder.resolve().name,
        task=material.train.task,
        classes=material.train.classes,
        target=None if material.train.classes else (recipe.get("target") or "label"),
        config=network.config.to_dict(),
        parameters={"encoder": encoder, "head": head},
        base=name_of_model(model.model),
        base_note=PACKAGED.get(model.model) if model.mode != "from-scratch" else None,
        mode=model.mode,
        mode_words=MODES[model.mode].format(blocks=model.blocks, lora_rank=model.lora_rank),
        data=material.train.name,
        simulated=material.train.simulated,
        split=str(summary["split"]),
        doubts=tuple(summary["doubts"]),
        images={"train": best["training_images"]} | {name: len(side.data) for name, side in sides.items()},
        sources={"train": best["training_sources"]} | {name: _sources(side) for name, side in sides.items()},
        per_class=best["training_images_per_class"],
        drawn=recipe.get("labels_per_class") is not None or recipe.get("label_fraction") is not None,
        chosen_by=str(summary["chosen_by"]),
        seeds=tuple(summary["seeds"]),
        best_seed=int(summary["best_seed"]),
        best_step=best["best_step"],
        steps=best["steps"],
        figures={side: _table(summary[side], best[side]) for side in ("validation", "test") if side in summary},
        recall=dict(zip(material.train.classes, best[shown].get("recall_per_class") or (), strict=False)),
        shown=shown,
        settings={name: recipe[name] for name in _SETTINGS if recipe.get(name) is not None},
        machine=describe_machine(arguments.world_size, arguments.device),
        precision="bfloat16" if arguments.bf16 else "float32",
        pictures={name: path for name, path in pictures.items() if (folder / path).exists()},
        files={name: what for name, what in _FILES.items() if (folder / name).exists()},
    )
    with atomic_path(folder / CARD_FILE) as temporary:
        temporary.write_text(render_classifier_card(facts), encoding="utf-8", newline="\n")


def _sources(side: Side) -> int:
    return len(set(side.data.sources.tolist()))


def _table(summary: Mapping[str, Any], best: Mapping[str, Any]) -> dict[str, tuple[float, float | None, float]]:
    """By figure: mean and standard deviation over the seeds, and that of the best model."""
    return {name: (mean, summary["sd"][name], float(best[name])) for name, mean in summary["mean"].items()}
