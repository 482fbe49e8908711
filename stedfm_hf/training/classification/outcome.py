"""What a run leaves: the best model as a folder that loads, its figures, and what it predicted of every image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.runs import atomic_path
from stedfm_hf.training.classification.feeding import Side
from stedfm_hf.training.classification.figures import save_result_figures
from stedfm_hf.training.classification.scoring import probabilities_of, score
from stedfm_hf.training.classification.trainer import ClassificationTrainer
from stedfm_hf.training.finetuning.network import merge_adapters
from stedfm_hf.training.finetuning.outcome import Finished, finish

PREDICTIONS_FILE = "predictions.parquet"


def finish_run(
    run: Finished, trainer: ClassificationTrainer, *, drawn: LabelledImages, sides: Mapping[str, Side]
) -> None:
    """Writes the folder of a run; `metrics.json` last, which says that it is finished.

    The figures are those of the model that is saved, on whole images of any size.

    Args:
        run: which.
        trainer: after its last step, with the best weights; every process must come here.
        drawn: what was trained on.
        sides: validation, and test where there is one.
    """
    objective = trainer.objective
    merge_adapters(trainer.network)
    objective.fold(trainer.network)
    found: dict[str, dict[str, Any]] = {}
    outputs: dict[str, np.ndarray] = {}
    for name, side in sides.items():
        outputs[name] = trainer.logits(side.items)
        found[name] = {"images": len(side.data), **score(outputs[name], side.data.labels, objective.task)}
    if not trainer.args.should_save:
        return
    shown = "test" if "test" in sides else "validation"
    save_result_figures(
        run.folder,
        classes=drawn.classes,
        result=found[shown],
        predicted=probabilities_of(outputs[shown], objective.task),
        true=sides[shown].data.labels,
        side=shown,
    )
    _write_predictions(run.folder / PREDICTIONS_FILE, sides, outputs)
    drawn_facts = {"training_images": len(drawn), "training_images_per_class": drawn.counts()}
    finish(run, trainer, drawn_facts | {"training_sources": len(set(drawn.sources.tolist())), **found})


def _write_predictions(path: Path, sides: Mapping[str, Side], outputs: Mapping[str, np.ndarray]) -> None:
    """One row for every image: where it is from, what it is and what the model says."""
    tables = []
    for name, side in sides.items():
        data, found = side.data, probabilities_of(outputs[name], side.data.task)
        columns: dict[str, Any] = {"split": [name] * len(data), "image": data.places, "source": data.sources}
        if data.task == "regression":
            columns |= {"target": data.labels, "prediction": found}
        else:
            names = np.array(data.classes)
            if data.task == "classes":
                columns |= {"label": names[data.labels], "prediction": names[found.argmax(axis=1)]}
            else:
                columns["label"] = [names[row == 1].tolist() for row in data.labels]
                columns["prediction"] = [names[row >= 0.5].tolist() for row in found]
            columns |= {f"p_{each}": found[:, number] for number, each in enumerate(data.classes)}
        tables.append(pa.table(columns))
    with atomic_path(path) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)
