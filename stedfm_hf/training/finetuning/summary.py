"""Summary of several seeds: mean and standard deviation, and the best model at the top of the output folder."""

from __future__ import annotations

import shutil
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.runs import counted, read_json, some_of, write_json
from stedfm_hf.training.finetuning.best_weights import LOWER_IS_BETTER, is_better

METRICS_FILE = "metrics.json"
NOT_METRICS = ("images", "absent_classes", "undefined", "undefined_f1", "undefined_average_precision")
"""Numbers of a split that are not metrics."""
FILES_OF_SUMMARY = ("manifest.json", "recipe.yaml", "README.md", METRICS_FILE)
"""Files at the top of the output folder that are not copied from the best run."""


def run_folder(output: Path, seed: int) -> Path:
    """Return the folder of the run of a seed."""
    return output / f"seed-{seed}"


def is_finished(output: Path, seed: int) -> bool:
    """Return whether the run of a seed is complete."""
    return (run_folder(output, seed) / METRICS_FILE).exists()


def summarise(
    runs: Sequence[Mapping[str, Any]], *, split_description: str, limitations: Sequence[str] = ()
) -> dict[str, Any]:
    """Summarise the metrics of all runs, and select the best run.

    Args:
        runs: Content of `metrics.json` of each run.
        split_description: Sentences that describe how the splits were made.
        limitations: Reasons why the metrics of the last split allow no conclusion.

    Returns:
        `metric_for_best_model`, `best_seed`, `split_description`, `limitations`, `seeds` and `runs`; and for
        `validation` and, if there is one, `test`: `images`, and `mean` and `sd` by metric. `sd` is the standard
        deviation over the seeds (n - 1), None for a single seed. Metrics that a run lacks are omitted.
    """
    metric = str(runs[0]["metric_for_best_model"])
    best = runs[0]
    for run in runs[1:]:
        value, before = run["validation"].get(metric), best["validation"].get(metric)
        if value is not None and (before is None or is_better(metric, value, before)):
            best = run
    summary: dict[str, Any] = {
        "metric_for_best_model": metric,
        "best_seed": best["seed"],
        "split_description": split_description,
        "limitations": list(limitations),
        "seeds": [run["seed"] for run in runs],
    }
    for split in ("validation", "test"):
        if all(split in run for run in runs):
            names = [
                name
                for name in runs[0][split]
                if name not in NOT_METRICS and all(isinstance(run[split].get(name), int | float) for run in runs)
            ]
            table = {name: np.array([run[split][name] for run in runs], float) for name in names}
            summary[split] = {
                "images": runs[0][split]["images"],
                "mean": {name: float(values.mean()) for name, values in table.items()},
                "sd": {name: float(values.std(ddof=1)) if len(values) > 1 else None for name, values in table.items()},
            }
    return summary | {"runs": list(runs)}


def write_summary(
    output: Path,
    seeds: Sequence[int],
    *,
    split_description: str,
    limitations: Sequence[str] = (),
    failed: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write `metrics.json` of all runs, and copy model and figures of the best run to the top of the output folder.

    Args:
        output: Output folder, with a finished run for each seed.
        seeds: Seeds of the runs.
        split_description: Sentences that describe how the splits were made.
        limitations: Reasons why the metrics of the last split allow no conclusion.
        failed: Reasons by id of the images that could not be read.

    Returns:
        Summary as of `summarise`, with `failed`.
    """
    runs = [read_json(run_folder(output, seed) / METRICS_FILE) for seed in seeds]
    summary = summarise(runs, split_description=split_description, limitations=limitations)
    summary |= {"failed": dict(failed or {})}
    best = run_folder(output, summary["best_seed"])
    for path in sorted(best.iterdir()):
        if path.name in FILES_OF_SUMMARY:
            continue
        if path.is_dir():
            shutil.rmtree(output / path.name, ignore_errors=True)  # figures of the best run of fewer seeds
            shutil.copytree(path, output / path.name)
        else:
            shutil.copyfile(path, output / path.name)
    write_json(output / METRICS_FILE, summary)
    return summary


def reported_split(splits: Container[str]) -> str:
    """Return the split whose metrics are reported: `test`, or `validation` without a test split.

    Args:
        splits: Names of the splits, or a mapping with their values.
    """
    return "test" if "test" in splits else "validation"


def describe(summary: Mapping[str, Any], folder: Path, headline: Sequence[str]) -> str:
    """Return the text for the terminal: one line of metrics, and one for each limitation or recommendation.

    Args:
        summary: Summary as of `write_summary`.
        folder: Output folder.
        headline: Metrics to show, where they have a value.
    """
    split = reported_split(summary)
    metrics, metric = summary[split], summary["metric_for_best_model"]
    shown = [] if metric in metrics["mean"] else [f"{metric} is undefined"]
    for name in dict.fromkeys((metric, *headline)):
        if name in metrics["mean"]:
            sd = metrics["sd"][name]
            shown.append(f"{name} {metrics['mean'][name]:.4f}" + ("" if sd is None else f" ± {sd:.4f}"))
    best: Mapping[str, Any] = next((run for run in summary.get("runs", ()) if run["seed"] == summary["best_seed"]), {})
    step = f", step {best['best_step']} of {best['steps']}" if best.get("best_step") is not None else ""
    seeds = f"{counted(len(summary['seeds']), 'seed')}, best seed {summary['best_seed']}{step}"
    line = f"{folder}: {split} {', '.join(shown)} ({seeds}; {counted(metrics['images'], 'image')})"
    failed = list(summary.get("failed", ()))
    skipped = [f"{counted(len(failed), 'image')} skipped: {some_of(failed)}"] if failed else []
    limitations = [f"no conclusion can be drawn: {limitation}" for limitation in summary.get("limitations", ())]
    return "\n".join([line, *_by_class(best, split, headline), *skipped, *limitations, *_recommendations(summary)])


def _by_class(best: Mapping[str, Any], split: str, headline: Sequence[str]) -> list[str]:
    """Return a line with the first headline metric of each class in the best run."""
    names = list(best.get("training_images_per_class", ()))
    numbers = {name: number for number, name in enumerate(best.get("training_pixels_per_class", ()))}
    metric = next((name for name in headline if f"{name}_per_class" in best.get(split, ())), None)
    if metric is None or len(names) < 2:
        return []
    values = best[split][f"{metric}_per_class"]
    shown = {name: values[numbers[name]] for name in names}
    each = (f"{name} {'undefined' if value is None else f'{value:.4f}'}" for name, value in shown.items())
    return [f"{metric} of seed {best['seed']}: {', '.join(each)}"]


def _recommendations(summary: Mapping[str, Any]) -> list[str]:
    """Return lines for runs that did not learn: in its first steps a new decoder marks no pixel, or random ones."""
    metric, lines = summary["metric_for_best_model"], []
    runs = summary.get("runs", ())
    if untrained := [run for run in runs if run["validation"].get(metric) == 0 and metric not in LOWER_IS_BETTER]:
        lines.append(
            f"seed {some_of([run['seed'] for run in untrained])}: nothing was learned (validation {metric} 0); "
            f"train longer (--max-steps above {untrained[0]['steps']}), with another --output"
        )
    if early := [run for run in runs if run not in untrained and run.get("best_evaluation") == 1 < run["evaluations"]]:
        lines.append(
            f"seed {some_of([run['seed'] for run in early])}: the first evaluation was the best (step "
            f"{early[0]['best_step']}); train longer or with a lower --learning-rate, and with another --output"
        )
    return lines
