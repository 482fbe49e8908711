"""Compare policies at the same dose and in the same time, with intervals over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

BASELINES = ("random", "intensity")
_SLACK = 1 + 1e-9


def compare(table: pa.Table, regions: int) -> dict[str, Any]:
    """Summarise the table of curves.

    Args:
        table: Table of curves, of one or more seeds.
        regions: Number of regions of the budget.

    Returns:
        Plain data: `objects` (mean number of objects of a target), `regions`, `seeds`, `targets`, `budget_mj`,
        `budget_s`, `overview_mj` and `overview_s` (mean dose and time of the overview; None if no policy takes one),
        and a list of `policies`. A policy has its name `policy`; `at_dose` and `in_time`, the mean number of objects
        found, with its interval (see `interval`); `by_seed` and `by_target`, the means of each at the same dose;
        `bleached`, the fraction of the molecules of the sample; and, compared with each baseline, `over_random` and
        `over_intensity`: the `ratio` of the means (None if the baseline finds nothing) and the interval of the paired
        difference.
    """
    frame = table.to_pandas()
    names = list(dict.fromkeys(frame["policy"]))
    at_dose = _found(frame, "energy_mj", "budget_mj")
    in_time = _found(frame, "seconds", "budget_s")
    by_seed = {name: _by_seed(at_dose, name) for name in names}
    rows = []
    for name in names:
        own = at_dose[at_dose["policy"] == name]
        row: dict[str, Any] = {
            "policy": name,
            "at_dose": interval(by_seed[name]),
            "in_time": interval(_by_seed(in_time, name)),
            "by_seed": by_seed[name].tolist(),
            "by_target": own.groupby("target", sort=False)["found"].mean().to_dict(),
            "bleached": float((own["bleached"] / own["molecules"]).mean()),
        }
        for other in BASELINES:
            if other in names and other != name:
                below = float(by_seed[other].mean())
                ratio = float(by_seed[name].mean() / below) if below else None
                row[f"over_{other}"] = {"ratio": ratio} | interval(by_seed[name] - by_seed[other])
        rows.append(row)
    starts = frame[(frame["regions"] == 0) & (frame["energy_mj"] > 0)]
    return {
        "objects": float(frame["objects"].mean()),
        "regions": regions,
        "seeds": sorted(set(frame["seed"].tolist())),
        "targets": list(dict.fromkeys(frame["target"])),
        "budget_mj": float(frame["budget_mj"].mean()),
        "budget_s": float(frame["budget_s"].mean()),
        "overview_mj": float(starts["energy_mj"].mean()) if len(starts) else None,
        "overview_s": float(starts["seconds"].mean()) if len(starts) else None,
        "policies": rows,
    }


def interval(values: np.ndarray) -> dict[str, float | None]:
    """Return the mean of values of seeds (n,) and its 95 % interval by Student's t distribution.

    Returns:
        `mean`, `low` and `high`; the bounds of a single value are None.

    Example:
        >>> {name: round(value, 2) for name, value in interval(np.array([1.0, 2.0, 3.0])).items()}
        {'mean': 2.0, 'low': -0.48, 'high': 4.48}
    """
    mean = float(values.mean())
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    reach = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def _found(frame: pd.DataFrame, used: str, budget: str) -> pd.DataFrame:
    """Return the last row of each loop whose dose or time is within the budget."""
    inside = frame[frame[used] <= frame[budget] * _SLACK]
    return inside.groupby(["seed", "target", "policy"], sort=False).tail(1)


def _by_seed(found: pd.DataFrame, policy: str) -> np.ndarray:
    """Return the mean over the targets for each seed (n,)."""
    own = found[found["policy"] == policy]
    return own.groupby("seed")["found"].mean().to_numpy(dtype=float)


def curves(table: pa.Table, used: str, grid: np.ndarray) -> dict[str, np.ndarray]:
    """Return the number of objects found up to each dose or time, for each policy (seeds, len(grid)).

    Args:
        table: Table of curves.
        used: Column of the dose or the time.
        grid: Values of the column.
    """
    frame = table.to_pandas()
    values: dict[str, dict[int, list[np.ndarray]]] = {}
    for (seed, _, policy), loop in frame.groupby(["seed", "target", "policy"], sort=False):
        reached = np.searchsorted(loop[used].to_numpy(), grid * _SLACK, side="right") - 1
        found = np.where(reached >= 0, loop["found"].to_numpy()[np.maximum(reached, 0)], 0)
        values.setdefault(str(policy), {}).setdefault(int(seed), []).append(found)
    return {policy: np.stack([np.mean(each, axis=0) for each in seeds.values()]) for policy, seeds in values.items()}
