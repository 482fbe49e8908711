"""What a run leaves: the best model as a folder that loads, its figures, and its scores of every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.runs import atomic_path
from stedfm_hf.training.figures import FIGURES
from stedfm_hf.training.finetuning.network import merge_adapters
from stedfm_hf.training.finetuning.outcome import Finished, finish
from stedfm_hf.training.segmentation.feeding import Side
from stedfm_hf.training.segmentation.figures import EXAMPLES, Shown, save_overlays
from stedfm_hf.training.segmentation.scoring import Scored, figures_of
from stedfm_hf.training.segmentation.trainer import SegmentationTrainer

SCORES_FILE = "per_image.parquet"


def finish_run(
    run: Finished, trainer: SegmentationTrainer, *, drawn: AnnotatedImages, sides: Mapping[str, Side]
) -> None:
    """Writes the folder of a run; `metrics.json` last, which says that it is finished.

    The figures are those of the model that is saved, on whole images of any size.

    Args:
        run: which.
        trainer: after its last step, with the best weights; every process must come here.
        drawn: what was trained on.
        sides: validation, and test where there is one.
    """
    merge_adapters(trainer.network)
    scored = {name: trainer.look(side, areas=True)[0] for name, side in sides.items()}
    if not trainer.args.should_save:
        return
    found = {
        name: {"images": len(side.data), **figures_of(scored[name], side.data, intervals=True)}
        for name, side in sides.items()
    }
    shown = "test" if "test" in sides else "validation"
    if examples := _examples(trainer, sides[shown], scored[shown]):
        save_overlays(run.folder / FIGURES, EXAMPLES, examples, drawn)
    _write_scores(run.folder / SCORES_FILE, sides, scored)
    facts = {
        "training_images": len(drawn),
        "training_images_per_class": {name: int(there.sum()) for name, there in drawn.shown().items()},
        "training_pixels_per_class": drawn.counts(),
        "training_sources": len(set(drawn.sources.tolist())),
    }
    finish(run, trainer, facts | found)


def _examples(trainer: SegmentationTrainer, side: Side, scored: Sequence[Scored]) -> list[Shown]:
    """The best, the middle and the worst image by the mean IoU of its classes; none where no image has an IoU."""
    foreground = [number for number in range(len(side.data.classes)) if number != side.data.background]
    ious = np.stack([each.scores.values["iou"][foreground] for each in scored])
    known = ~np.isnan(ious)
    means = np.where(known, ious, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    order = np.flatnonzero(known.any(axis=1))
    order = order[np.argsort(-means[order], kind="stable")]
    if not len(order):
        return []
    chosen = {"best": order[0], "middle": order[len(order) // 2], "worst": order[-1]}
    if len(order) < len(chosen):
        chosen = {"best": order[0], "worst": order[-1]} if len(order) == 2 else {"image": order[0]}
    found = []
    for word, number in chosen.items():
        item = side.items[int(number)]
        found.append(Shown(f"{word} of {len(order)}: IoU {means[number]:.2f}", item, trainer.maps(item)))
    return found


def _write_scores(path: Path, sides: Mapping[str, Side], scored: Mapping[str, Sequence[Scored]]) -> None:
    """One row for every image and class: where it is from, and its scores; undefined ones are null."""
    rows: list[dict[str, Any]] = []
    for name, side in sides.items():
        for place, source, each in zip(side.data.places, side.data.sources, scored[name], strict=True):
            plain = each.scores.plain()
            for number, label in enumerate(side.data.classes):
                scores = {score: values[number] for score, values in plain.items()}
                rows.append({"split": name, "image": str(place), "source": str(source), "class": label, **scores})
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
