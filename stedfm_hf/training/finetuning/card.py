"""Model card of a fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stedfm_hf.cards.finetuned import FinetunedCardFacts, render_finetuned_card
from stedfm_hf.labels.training_sources import TRAINING_SOURCES_FILE
from stedfm_hf.runs import atomic_path
from stedfm_hf.training.card import CARD_FILE, describe_machine, precision_of
from stedfm_hf.training.curve import CURVE_FILE
from stedfm_hf.training.figures import CURVE, FIGURES
from stedfm_hf.training.finetuning.data import LoadedSplit
from stedfm_hf.training.finetuning.network import name_of_model
from stedfm_hf.training.finetuning.settings import NEW_ENCODER
from stedfm_hf.training.finetuning.summary import METRICS_FILE, reported_split
from stedfm_hf.weights.packaged import PACKAGED

if TYPE_CHECKING:
    from stedfm_hf.training.finetuning.task import Task

MODES = {
    "linear-probe": "only the head was trained, on features of a frozen encoder",
    "frozen": "only the decoder was trained, on features of a frozen encoder",
    "last-blocks": "the head and the last {blocks} blocks were trained; the other blocks are frozen",
    "full": "all weights were trained",
    "lora": "the head and adapters of rank {lora_rank} (LoRA) were trained, and the adapters merged into the weights",
    "from-scratch": "all weights were initialised at random and trained; only the architecture is that of the model",
    "untrained": "only the decoder was trained, on a randomly initialised encoder: a baseline",
}
SAMPLING = ("labels_per_class", "label_fraction", "label_count")
"""Settings that sample the training images."""
_SETTINGS = (
    "decoder",
    "segmentation_loss",
    "effective_batch_size",
    "learning_rate",
    "layer_decay",
    "lr_scheduler_type",
    "weight_decay",
    "augment",
    "protocol",
    "class_weights",
    "min_annotated",
    *SAMPLING,
    "early_stopping_patience",
)
"""Settings of the recipe that are shown in the card."""
_FILES = {
    "recipe.yaml": "settings; to repeat: `--recipe recipe.yaml --model MODEL --dataset DATA --output NEW`",
    METRICS_FILE: "metrics of all seeds",
    CURVE_FILE: "losses and evaluations of the training of this model",
    "manifest.json": "versions, settings and data",
    TRAINING_SOURCES_FILE: "hashed ids of the source images of train and validation, which evaluations exclude",
}


def write_card(
    task: Task[Any, Any, Any], summary: Mapping[str, Any], held_out: Mapping[str, LoadedSplit[Any, Any]]
) -> None:
    """Write `README.md`; call it last, because it shows the existing figures.

    Args:
        task: Fine-tuning.
        summary: Summary of all seeds.
        held_out: Images of validation and, if it exists, test, by split.
    """
    settings, arguments, train = task.settings, task.arguments, task.splits.train
    best = next(run for run in summary["runs"] if run["seed"] == summary["best_seed"])
    about = task.card(best)
    shown = settings.recipe() | {
        "learning_rate": settings.peak_learning_rate,
        "layer_decay": settings.effective_layer_decay,
    }
    figures = {name: f"{FIGURES}/{name}.png" for name in (CURVE, *about.pop("figures"))}
    files = _FILES | about.pop("files")
    facts = FinetunedCardFacts(
        name=settings.folder.resolve().name,
        base=name_of_model(settings.model),
        base_note=PACKAGED.get(settings.model) if settings.mode not in NEW_ENCODER else None,
        mode=settings.mode,
        mode_description=MODES[settings.mode].format(blocks=settings.blocks, lora_rank=settings.lora_rank),
        data=train.name,
        simulated=train.simulated,
        split=str(summary["split_description"]),
        limitations=tuple(summary["limitations"]),
        failed=summary["failed"],
        images={"train": best["training_images"]} | {name: len(each.data) for name, each in held_out.items()},
        sources={"train": best["training_sources"]}
        | {name: each.data.source_count for name, each in held_out.items()},
        images_per_class=best["training_images_per_class"],
        sampled=any(shown.get(name) is not None for name in SAMPLING),
        metric_for_best_model=str(summary["metric_for_best_model"]),
        seeds=tuple(summary["seeds"]),
        best_seed=int(summary["best_seed"]),
        best_step=best["best_step"],
        steps=best["steps"],
        metrics={split: _table(summary[split], best[split]) for split in ("validation", "test") if split in summary},
        reported_split=reported_split(best),
        settings={name: shown[name] for name in _SETTINGS if shown.get(name) is not None},
        machine=describe_machine(arguments.world_size, arguments.device),
        precision=precision_of(arguments),
        figures={name: path for name, path in figures.items() if (settings.folder / path).exists()},
        files={name: what for name, what in files.items() if (settings.folder / name).exists()},
        **about,
    )
    with atomic_path(settings.folder / CARD_FILE) as temporary:
        temporary.write_text(render_finetuned_card(facts), encoding="utf-8", newline="\n")


def count_parameters(*modules: Any) -> int:
    """Return the total number of parameters of modules.

    Args:
        modules: Modules.
    """
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _table(summary: Mapping[str, Any], best: Mapping[str, Any]) -> dict[str, tuple[float, float | None, float]]:
    """Return mean and standard deviation over the seeds, and the value of the best model, by metric."""
    return {name: (mean, summary["sd"][name], float(best[name])) for name, mean in summary["mean"].items()}
