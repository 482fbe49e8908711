"""Results of `evaluate find`, computed from the scores of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.acquisition.evaluation.precision import REPEATED
from stedfm_hf.acquisition.evaluation.results import CURVES, Example, FindReport, ShownRegion
from stedfm_hf.acquisition.evaluation.scoring import (
    POOLED,
    SCHEMA,
    ImagePrecision,
    ScoreCache,
    pooled_precision,
)
from stedfm_hf.acquisition.evaluation.work import Work
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.labels.splits import Splits, limitations_of
from stedfm_hf.metrics.statistics import compare_methods
from stedfm_hf.metrics.summary import summarise

NOT_COMPARED = ("coarsened",)
"""Baselines that use the annotation of the image, which models are not compared with."""
SHOWN_REGIONS = 8
"""Largest number of regions of an example."""

Rows = list[list[dict[str, Any]]]


def collect_report(
    work: Work,
    splits: Splits[AnnotatedImages],
    cache: ScoreCache,
    kept: np.ndarray,
    *,
    notes: Sequence[str],
    seconds: float,
) -> FindReport:
    """Compute means, curves, comparisons and examples from the scores of images.

    Args:
        work: Images and methods.
        splits: Splits of the data, for their description.
        cache: Scores of all images.
        kept: Whether each image was scored for all methods (n,) bool.
        notes: Notes on the training of the models, in sentences.
        seconds: Duration of fitting and scoring, in seconds.
    """
    data, classes = work.data.take(kept), work.classes
    scored = {each.key: cache.of(each.key, data.image_ids.tolist()) for each in work.methods}
    values = {key: [ImagePrecision.of(rows, classes) for rows in images] for key, images in scored.items()}
    sources, level = data.sources.tolist(), work.scorer.levels[0]
    means = {key: np.array([_mean(each.values[level]) for each in found]) for key, found in values.items()}
    models = [each.key for each in work.methods if each.kind == "model"]
    compared = {key: each for key, each in means.items() if key not in NOT_COMPARED}
    report = FindReport(
        data=data,
        split_description=splits.description.replace(" are searched.", " are scored."),
        folds=work.folds,
        classes=classes,
        levels=work.scorer.levels,
        methods=work.methods,
        summary=[
            {"method": key, **row} for key, found in values.items() for row in summarise(found, classes, sources)
        ],
        pooled=[
            {"method": key, "level": each, "class": name, "average_precision": pooled_precision(images, each, name)}
            for key, images in scored.items()
            for each in POOLED
            if each in work.scorer.levels
            for name in classes
        ],
        curves=[row for key, images in scored.items() for row in _curves(key, images, work)],
        per_image=pa.Table.from_pylist([row for images in scored.values() for rows in images for row in rows], SCHEMA),
        comparisons=compare_methods(compared, sources, models),
        facts=_facts(next(iter(scored.values())), classes),
        limitations=limitations_of(data),
        notes=list(notes),
        examples=(),
        settings=json.loads(json.dumps(work.manifest.settings)),
        region_size=work.scorer.region_size,
        failed=work.manifest.failures(),
        seconds=seconds,
    )
    return replace(report, examples=_examples(work, report, scored, means))


def _mean(values: np.ndarray) -> float:
    """Return the mean of the defined values; NaN without any."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan


def _curves(key: str, images: Rows, work: Work) -> list[dict[str, Any]]:
    """Return the mean precision at each recall, over the images that show the class."""
    found = []
    for level in work.scorer.levels:
        for name in work.classes:
            rows = [row for each in images for row in each if (row["level"], row["class"]) == (level, name)]
            curves = [np.asarray(row["curve"], np.float64) for row in rows if len(row["curve"])]
            if not curves:
                continue
            mean = np.mean(curves, axis=0)
            found += [
                dict(zip(CURVES.names, (key, name, level, float(recall), float(value), len(curves)), strict=True))
                for recall, value in zip(work.scorer.recalls, mean, strict=True)
            ]
    return found


def _facts(images: Rows, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each class the number of images and of objects, and the fraction of patches and of pixels."""
    facts = []
    for name in classes:
        rows = [row for each in images for row in each if row["class"] == name]
        shown = [row for row in rows if row["average_precision"] is not None]
        fact: dict[str, Any] = {"class": name, "images": len({row["image_id"] for row in shown})}
        for level in ("patches", "pixels"):
            of_level = [row["positive_fraction"] for row in shown if row["level"] == level]
            fact[f"fraction_of_{level}"] = float(np.mean(of_level)) if of_level else None
        fact["objects"] = (
            sum(row["objects"] or 0 for row in rows) if any(r["level"] == "regions" for r in rows) else None
        )
        facts.append(fact)
    return facts


def _examples(
    work: Work, report: FindReport, scored: Mapping[str, Rows], means: Mapping[str, np.ndarray]
) -> list[Example]:
    """Return the best, median and worst image of the best model, with its map and that of the best baseline.

    Images are ranked by their mean over classes; the class that is shown is the one that lowers it most. The maps are
    computed again, because only scores are stored.
    """
    data, level = report.data, report.levels[0]
    main, other = report.best("model", level), report.best("baseline", level, without=("chance", *NOT_COMPARED))
    if main is None:
        return []
    order = np.argsort(-means[main], kind="stable")[: int(np.isfinite(means[main]).sum())].tolist()
    titles = {order[len(order) // 2]: "median", order[-1]: "worst", order[0]: "best"}
    number_of = {image_id: number for number, image_id in enumerate(work.data.image_ids.tolist())}
    shown = [key for key in (main, other) if key is not None]
    examples = []
    for index in sorted(titles, key=order.index):
        number = number_of[str(data.image_ids[index])]
        rows = [row for row in scored[main][index] if row["level"] == work.scorer.levels[0]]
        rows = [row for row in rows if row["average_precision"] is not None]
        row = min(rows, key=lambda each: each["average_precision"])
        label = work.classes.index(row["class"])
        maps, field = {}, None
        regions: list[ShownRegion] = []
        for key in shown:
            group = next(each for each in work.groups if key in work.keys(each))
            ((prepared, _),) = work.fields(group, [number])
            found = work.maps(group, prepared, number)[key][0]
            maps[key] = found.pixels[label]
            if key == main:
                field = prepared
                if found.patches is not None:
                    ranked = work.scorer.regions(prepared, found, label)
                    regions = [
                        ShownRegion(box, int(outcome))
                        for box, outcome in zip(ranked.boxes, ranked.outcomes, strict=True)
                        if outcome != REPEATED
                    ][:SHOWN_REGIONS]
        assert field is not None
        size = work.data.stored(number).pixel_size_nm
        examples.append(
            Example(
                image_id=str(data.image_ids[index]),
                title=titles[index],
                class_name=row["class"],
                mean_precision=float(means[main][index]),
                class_precision=row["average_precision"],
                image=np.asarray(field.pixels.mean(axis=0)),
                truth=field.planes[label],
                maps=maps,
                regions=regions,
                pixel_size_nm=None if size is None else size[1],
            )
        )
    return examples
