"""What every run leaves: the best model as a folder that loads, its curve, its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.reports.figures import save_figure
from stedfm_hf.runs import write_json
from stedfm_hf.training.checkpoints import remove_checkpoints
from stedfm_hf.training.curve import RowsFile
from stedfm_hf.training.figures import CURVE, FIGURES
from stedfm_hf.training.finetuning.checks import best_check, checks_of
from stedfm_hf.training.finetuning.figures import draw_curve
from stedfm_hf.training.finetuning.summary import METRICS_FILE
from stedfm_hf.training.finetuning.trainer import FinetuningTrainer
from stedfm_hf.training.finetuning.watching import CheckRow


@dataclass(frozen=True)
class Finished:
    """A run that has done its last step.

    Args:
        folder: of the run.
        seed: of the run.
        processor: scales what the model is given later.
        curve: of the run.
    """

    folder: Path
    seed: int
    processor: StedFmImageProcessor
    curve: RowsFile[CheckRow]


def finish(run: Finished, trainer: FinetuningTrainer[Any], figures: Mapping[str, Any]) -> None:
    """Saves the model and its curve, then `metrics.json`: the run is finished, and its checkpoints are removed.

    Args:
        run: which.
        trainer: with the best weights; of the process that writes.
        figures: what is known of the training images, and the figures of each side.
    """
    network, figure, history = trainer.network, trainer.figure, trainer.state.log_history
    network.requires_grad_(True)
    run.processor.save_pretrained(run.folder)
    network.save_pretrained(run.folder)
    best, checks = best_check(history, figure), checks_of(history, figure)
    best_step = None if best is None else checks[best].step
    save_figure(draw_curve(run.curve.rows(), figure, best_step=best_step), run.folder / FIGURES, CURVE)
    metrics = {
        "seed": run.seed,
        "chosen_by": figure,
        "best_step": best_step,
        "best_check": None if best is None else best + 1,
        "checks": len(checks),
        "steps": trainer.state.global_step,
        "images_seen": trainer.state.global_step * trainer.args.effective_batch,
        **figures,
    }
    write_json(run.folder / METRICS_FILE, metrics)
    remove_checkpoints(run.folder)
