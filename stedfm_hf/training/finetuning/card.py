"""The card of a fine-tuning: what is known of the runs, gathered for `stedfm_hf.cards`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stedfm_hf.cards.finetuned import FinetunedCardFacts, render_finetuned_card
from stedfm_hf.labels.training_sources import TRAINING_SOURCES_FILE
from stedfm_hf.runs import atomic_path
from stedfm_hf.training.card import CARD_FILE, describe_machine
from stedfm_hf.training.curve import CURVE_FILE
from stedfm_hf.training.figures import CURVE, FIGURES
from stedfm_hf.training.finetuning.feeding import Side
from stedfm_hf.training.finetuning.folder import Folder
from stedfm_hf.training.finetuning.network import DRAWN, name_of_model
from stedfm_hf.training.finetuning.summary import METRICS_FILE
from stedfm_hf.weights.packaged import PACKAGED

MODES = {
    "linear-probe": "only the head was trained, on features of a frozen encoder",
    "frozen": "only the decoder was trained, on features of a frozen encoder",
    "last-blocks": "the head and the last {blocks} blocks were trained, the others are frozen",
    "full": "all weights were trained",
    "lora": "the head and adapters of rank {lora_rank} (LoRA) were trained; they are added to the weights",
    "from-scratch": "all weights were drawn at random and trained; only the architecture is the model's",
    "untrained": "only the decoder was trained, on an encoder drawn at random: a baseline",
}
_SETTINGS = (
    "decoder",
    "segmentation_loss",
    "effective_batch",
    "learning_rate",
    "layer_decay",
    "lr_scheduler_type",
    "weight_decay",
    "augment",
    "augmentation",
    "class_weights",
    "min_annotated",
    "labels_per_class",
    "label_fraction",
    "label_count",
    "early_stopping_patience",
)
"""What of a recipe a reader of a card asks for; the rest is in the recipe."""
_FILES = {
    "recipe.yaml": "settings; `--recipe recipe.yaml --model MODEL --dataset DATA --output_dir NEW` repeats it",
    METRICS_FILE: "all figures of all seeds",
    CURVE_FILE: "losses and checks of the training of this model",
    "manifest.json": "versions, settings and data",
    TRAINING_SOURCES_FILE: "hashed ids of the source images of train and validation, which evaluations leave out",
}


def write_card(
    folder: Folder,
    summary: Mapping[str, Any],
    sides: Mapping[str, Side[Any, Any]],
    *,
    parameters: Mapping[str, int],
    config: Mapping[str, Any],
    drawn: Sequence[str],
    pictures: Sequence[str],
    files: Mapping[str, str],
    **task: Any,
) -> None:
    """Writes `README.md`; goes last, for it shows the figures that are there.

    Args:
        folder: of the best model.
        summary: figures of all seeds.
        sides: what the figures are of.
        parameters: of the encoder and of the head.
        config: of the model.
        drawn: values of a recipe that draw some of the training images.
        pictures: names of figures, beside the curve.
        files: further files, with a word each.
        task: what `FinetunedCardFacts` needs to know of the task: `task`, `classes`, ...
    """
    model, recipe, arguments, train = folder.model, folder.recipe, folder.arguments, folder.splits.train
    best = next(run for run in summary["runs"] if run["seed"] == summary["best_seed"])
    paths = {name: f"{FIGURES}/{name}.png" for name in (CURVE, *pictures)}
    facts = FinetunedCardFacts(
        name=folder.path.resolve().name,
        config=config,
        parameters=parameters,
        base=name_of_model(model.model),
        base_note=PACKAGED.get(model.model) if model.mode not in DRAWN else None,
        mode=model.mode,
        mode_words=MODES[model.mode].format(blocks=model.blocks, lora_rank=model.lora_rank),
        data=train.name,
        simulated=train.simulated,
        split=str(summary["split"]),
        doubts=tuple(summary["doubts"]),
        failed=summary["failed"],
        images={"train": best["training_images"]} | {name: len(side.data) for name, side in sides.items()},
        sources={"train": best["training_sources"]} | {name: _sources(side) for name, side in sides.items()},
        per_class=best["training_images_per_class"],
        drawn=any(recipe.get(name) is not None for name in drawn),
        chosen_by=str(summary["chosen_by"]),
        seeds=tuple(summary["seeds"]),
        best_seed=int(summary["best_seed"]),
        best_step=best["best_step"],
        steps=best["steps"],
        figures={side: _table(summary[side], best[side]) for side in ("validation", "test") if side in summary},
        shown="test" if "test" in best else "validation",
        settings={name: recipe[name] for name in _SETTINGS if recipe.get(name) is not None},
        machine=describe_machine(arguments.world_size, arguments.device),
        precision="bfloat16" if arguments.bf16 else "float32",
        pictures={name: path for name, path in paths.items() if (folder.path / path).exists()},
        files={name: what for name, what in (_FILES | dict(files)).items() if (folder.path / name).exists()},
        **task,
    )
    with atomic_path(folder.path / CARD_FILE) as temporary:
        temporary.write_text(render_finetuned_card(facts), encoding="utf-8", newline="\n")


def count_parameters(*modules: Any) -> int:
    """Parameters of some modules."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _sources(side: Side[Any, Any]) -> int:
    return len(set(side.data.sources.tolist()))


def _table(summary: Mapping[str, Any], best: Mapping[str, Any]) -> dict[str, tuple[float, float | None, float]]:
    """By figure: mean and standard deviation over the seeds, and that of the best model."""
    return {name: (mean, summary["sd"][name], float(best[name])) for name, mean in summary["mean"].items()}
