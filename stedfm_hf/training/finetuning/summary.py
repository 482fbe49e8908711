"""Several seeds as one result: mean and standard deviation, and the best model at the top of the folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.runs import counted, read_json, some_of, write_json
from stedfm_hf.training.finetuning.best import LOWER_IS_BETTER, is_better

METRICS_FILE = "metrics.json"
NO_FIGURES = ("images", "absent_classes", "undefined", "undefined_f1", "undefined_average_precision")
OWN = ("manifest.json", "recipe.yaml", "README.md", METRICS_FILE)
"""Files of the top that are not those of the best run."""


def run_folder(output: Path, seed: int) -> Path:
    """Where the run of a seed belongs."""
    return output / f"seed-{seed}"


def is_finished(output: Path, seed: int) -> bool:
    """Whether the run of a seed is complete."""
    return (run_folder(output, seed) / METRICS_FILE).exists()


def summarise(runs: Sequence[Mapping[str, Any]], *, how: str, limitations: Sequence[str] = ()) -> dict[str, Any]:
    """The figures of all runs: of each its mean and standard deviation over the seeds, and the best run.

    Args:
        runs: `metrics.json` of every run.
        how: How the splits were made.
        limitations: why no conclusion can be drawn of the images of the last side.

    Returns:
        `chosen_by`, `best_seed`, `split`, `limitations`, `seeds`, and for `validation` and, if it is there, `test`:
        `mean` and `sd` (with n - 1; None of a single run) by figure. A figure that a run does not have is left out.
    """
    figure = str(runs[0]["chosen_by"])
    best = runs[0]
    for run in runs[1:]:
        value, before = run["validation"].get(figure), best["validation"].get(figure)
        if value is not None and (before is None or is_better(figure, value, before)):
            best = run
    summary: dict[str, Any] = {
        "chosen_by": figure,
        "best_seed": best["seed"],
        "split": how,
        "limitations": list(limitations),
        "seeds": [run["seed"] for run in runs],
    }
    for side in ("validation", "test"):
        if all(side in run for run in runs):
            names = [
                name
                for name in runs[0][side]
                if name not in NO_FIGURES and all(isinstance(run[side].get(name), int | float) for run in runs)
            ]
            table = {name: np.array([run[side][name] for run in runs], float) for name in names}
            summary[side] = {
                "images": runs[0][side]["images"],
                "mean": {name: float(values.mean()) for name, values in table.items()},
                "sd": {name: float(values.std(ddof=1)) if len(values) > 1 else None for name, values in table.items()},
            }
    return summary | {"runs": list(runs)}


def write_summary(
    output: Path,
    seeds: Sequence[int],
    *,
    how: str,
    limitations: Sequence[str] = (),
    failed: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes `metrics.json` of all runs, and puts the best one's model and figures to the top."""
    runs = [read_json(run_folder(output, seed) / METRICS_FILE) for seed in seeds]
    summary = summarise(runs, how=how, limitations=limitations) | {"failed": dict(failed or {})}
    best = run_folder(output, summary["best_seed"])
    for path in sorted(best.iterdir()):
        if path.name in OWN:
            continue
        if path.is_dir():
            shutil.rmtree(output / path.name, ignore_errors=True)  # pictures of what was the best with fewer seeds
            shutil.copytree(path, output / path.name)
        else:
            shutil.copyfile(path, output / path.name)
    write_json(output / METRICS_FILE, summary)
    return summary


def describe(summary: Mapping[str, Any], folder: Path, headline: Sequence[str]) -> str:
    """What the terminal shows: a line, and one for each limitation or advice."""
    side = "test" if "test" in summary else "validation"
    figures = summary[side]
    shown = []
    if summary["chosen_by"] not in figures["mean"]:
        shown.append(f"{summary['chosen_by']} has no value")
    for name in dict.fromkeys((summary["chosen_by"], *headline)):
        if name in figures["mean"]:
            sd = figures["sd"][name]
            shown.append(f"{name} {figures['mean'][name]:.4f}" + ("" if sd is None else f" ± {sd:.4f}"))
    count = len(summary["seeds"])
    best: Mapping[str, Any] = next((run for run in summary.get("runs", ()) if run["seed"] == summary["best_seed"]), {})
    step = f" at step {best['best_step']} of {best['steps']}" if best.get("best_step") is not None else ""
    seeds = f"{counted(count, 'seed')}, best {summary['best_seed']}{step}"
    line = f"{folder}: {side} {', '.join(shown)} ({seeds}; {counted(figures['images'], 'image')})"
    failed = list(summary.get("failed", ()))
    lost = [f"{counted(len(failed), 'image')} left out: {some_of(failed)}"] if failed else []
    limitations = [f"no conclusion can be drawn: {limitation}" for limitation in summary.get("limitations", ())]
    return "\n".join([line, *_of_classes(best, side, headline), *lost, *limitations, *_advice(summary)])


def _of_classes(best: Mapping[str, Any], side: str, headline: Sequence[str]) -> list[str]:
    """The first figure of the best run that each class has: one that is never marked is hidden in a mean."""
    names = list(best.get("training_images_per_class", ()))
    numbers = {name: number for number, name in enumerate(best.get("training_pixels_per_class", ()))}
    found = next((name for name in headline if f"{name}_per_class" in best.get(side, ())), None)
    if found is None or len(names) < 2:
        return []
    values = best[side][f"{found}_per_class"]
    shown = {name: values[numbers[name]] for name in names}
    each = (f"{name} {'without a value' if value is None else f'{value:.4f}'}" for name, value in shown.items())
    return [f"{found} of seed {best['seed']}: {', '.join(each)}"]


def _advice(summary: Mapping[str, Any]) -> list[str]:
    """What can be done about runs that came to nothing: a new decoder marks no pixel, or any, in its first steps."""
    figure, found = summary["chosen_by"], []
    runs = summary.get("runs", ())
    longer = "train longer, into another --output"
    if nothing := [run for run in runs if run["validation"].get(figure) == 0 and figure not in LOWER_IS_BETTER]:
        found.append(
            f"seed {some_of([run['seed'] for run in nothing])}: nothing is learned yet (validation {figure} 0); "
            f"{longer} (--max-steps, here {nothing[0]['steps']})"
        )
    if early := [run for run in runs if run not in nothing and run.get("best_evaluation") == 1 < run["evaluations"]]:
        found.append(
            f"seed {some_of([run['seed'] for run in early])}: no evaluation was better than the first (step "
            f"{early[0]['best_step']}); {longer}, or with a lower --learning-rate"
        )
    return found
