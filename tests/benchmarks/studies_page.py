"""Page of the benchmark of studies."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from scipy.stats import kstest

from stedfm_hf.metrics.statistics import accuracy_interval
from stedfm_hf.studies.power import TAU
from stedfm_hf.studies.sorter import most_comparisons
from tests.benchmarks.timing import machine, table

Found = dict[str, Any]
LEVEL = 0.05
FAMILIES = ("smallest pair", "smallest pair, Mann-Whitney")
"""Smallest corrected p-values: not uniform, but at most 5 % of them may be below 0.05."""


def page(found: Found) -> str:
    """Return the page, from the results of all parts."""
    tests = _tests(found)
    uniform = [p for name, each in tests.items() if name[1] not in FAMILIES for p in each["random p"]]
    below = sum(p < LEVEL for p in uniform)
    worst = max(each["rejected"] for each in tests.values())
    of_sorter = found["comparisons"]
    counts = [count for kind in of_sorter.values() for count in kind]
    sizes = [(key.split("/")[1], value) for key, value in found.items() if key.startswith("rankings/")]
    advised = [np.mean(value["taus"]) for _, value in sizes if value["recommended"] is not None]
    return f"""# Studies

Does the analysis of a study find preferences that are there, and none where there are none? In simulated studies
**without** a preference, at most {worst:.1%} of the p-values of any test are 0.05 or less (5 % are allowed). With a
planted order of 50 images, the sizes that `stedfm study simulate` recommends reach a mean rank correlation of
{min(advised):.3f} or more. Sorting 50 images took at most {max(counts)} comparisons; the bound is
{most_comparisons(50)}.

Measured on {machine()}, with `make bench-studies`. All answers are simulated.

## P-values without a preference

{_levels_text(tests, uniform, below)}

{_levels_table(tests)}

Pairs and tests against chance are corrected by Holm's method in reports. The fraction of studies in which any pair of
three groups is called different must stay below 5 %:

{_families_table(tests)}

## Published definitions

`--protocol reference` tests as the published code did: it permutes the scores of all participants together, treats the
scores of one participant as independent, and compares pairs without correction. In the same studies:

{_reference_table(found)}

Where fractions of one participant sum to 1 (`choose`, `rank`), these tests call chance a difference too often. Where
groups share the answers to real images (`real or generated, single`), they miss differences.

## Mixed models

Fraction of the 95 % intervals of a difference between groups that do not contain 0, in studies of 10 participants
whose raters and images differ, but whose groups do not. It should be 5 %. Intervals of one study are not independent,
so that the ranges in brackets are rather too narrow.

{_mixed_table(found)}

## Planted orders

Mean rank correlation (Kendall's tau) of the planted strengths of 50 images and those that the analysis finds, by
number of participants. Raters differ by 0.5. The recommended number is the smallest at which 80 % of the studies
reach {TAU:g}; it was tested in {max(len(value["taus"]) for _, value in sizes)} other studies.

{_ranking_table(sizes)}

{_interval_text(found)}

## Comparisons

{_comparison_table(of_sorter, sizes)}

## How it was measured

| part | how |
| --- | --- |
| studies | 10 participants; 30 trials of `choose`, 36 of other tasks (48 with real images); 36 images of `rank` |
| tests over participants | raters differ by 0.5 in log odds, images do not |
| test over stimuli | images differ by 0.5 in log odds, raters do not (except for `rank`) |
| permutations | 999; those of the analysis are 10,000 |
| series | {_series(found)} of 500 studies for each task; studies differ in raters, answers, orders and permutations |
| random ties | of the permutations that are exactly as extreme as the data, a random fraction is counted, not all |
"""


def _series(found: Found) -> str:
    """Return how many series of studies each task has."""
    counts = Counter(key.split("/")[1] for key in found if key.startswith("levels/"))
    low, high = min(counts.values()), max(counts.values())
    return f"{low} series" if low == high else f"{low} or {high} series"


def _tests(found: Found) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the measures of each test by task and name."""
    series: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    for key, value in found.items():
        if key.startswith("levels/"):
            case = key.split("/")[1]
            for kind in ("reported", "random ties"):
                for test, values in value[kind].items():
                    series.setdefault((case, test), {}).setdefault(kind, []).append(np.array(values))
    tests = {}
    for name, of_name in series.items():
        reported, randomised = of_name["reported"], of_name["random ties"]
        pooled = np.concatenate(reported)
        tests[name] = {
            "rejected": float((pooled <= LEVEL).mean()),
            "interval": accuracy_interval(pooled <= LEVEL),
            "too small": float(kstest(pooled, "uniform", alternative="greater").pvalue),
            "reported D": [float(kstest(each, "uniform").statistic) for each in reported],
            "reported p": [float(kstest(each, "uniform").pvalue) for each in reported],
            "random D": [float(kstest(each, "uniform").statistic) for each in randomised],
            "random p": [float(kstest(each, "uniform").pvalue) for each in randomised],
        }
    return tests


def _levels_text(tests: dict[tuple[str, str], dict[str, Any]], uniform: list[float], below: int) -> str:
    return f"""Valid p-values are not too small: at most 5 % are 0.05 or less, here between about 3 and 7 % by chance.
They are uniform only without ties. Scores are fractions of few trials, so that many permutations are exactly as
extreme as the data. The analysis counts them all, so that the Kolmogorov-Smirnov test (KS) sees steps in the reported
p-values.

With ties counted at random, p-values must be uniform: {below} of {len(uniform)} such KS tests have p < 0.05, and the
smallest p is {min(uniform):.3f}; {LEVEL * len(uniform):.0f} are expected by chance, and {1 / len(uniform):.3f} for the
smallest. Tests of one task use the same studies, so that their p-values are low or high together."""


def _levels_table(tests: dict[tuple[str, str], dict[str, Any]]) -> str:
    head = ["task", "test", "p ≤ 0.05", "KS D", "KS p", "KS D, random ties", "KS p, random ties"]
    rows = [
        [
            case,
            test,
            f"{each['rejected']:.1%}",
            *(
                " ".join(_shown(value, digits) for value in each[key])
                for key, digits in (("reported D", 3), ("reported p", 2), ("random D", 3), ("random p", 2))
            ),
        ]
        for (case, test), each in tests.items()
        if test not in FAMILIES
    ]
    return table(head, rows)


def _shown(value: float, digits: int) -> str:
    least = 10.0**-digits
    return f"< {least:g}" if value < least else f"{value:.{digits}f}"


def _families_table(tests: dict[tuple[str, str], dict[str, Any]]) -> str:
    cases = [case for case, test in tests if test == FAMILIES[0]]
    rows = [[case, *(_rate(tests[case, test]) for test in FAMILIES)] for case in cases]
    return table(["task", "permutation", "Mann-Whitney"], rows)


def _rate(each: dict[str, Any]) -> str:
    low, high = each["interval"]
    return f"{each['rejected']:.1%} ({low:.1%} to {high:.1%})"


def _reference_table(found: Found) -> str:
    series: dict[str, dict[str, list[float]]] = {}
    for key, value in found.items():
        if key.startswith("levels/"):
            for test, values in value["published"].items():
                series.setdefault(key.split("/")[1], {}).setdefault(test, []).extend(values)
    tests = ("Kruskal-Wallis", "smallest pair", "smallest pair, Mann-Whitney", "participants")
    rows = [
        [case, *(f"{np.mean(np.array(of_case[test]) <= LEVEL):.1%}" for test in tests)]
        for case, of_case in series.items()
        if of_case
    ]
    return table(
        ["task", "Kruskal-Wallis", "any pair, permutation", "any pair, Mann-Whitney", "permutation of all"], rows
    )


def _mixed_table(found: Found) -> str:
    rows = []
    for key, value in found.items():
        if key.startswith("mixed/"):
            outside = ~np.array(value, bool)
            low, high = accuracy_interval(outside)
            rows.append([key.split("/")[1], f"{outside.mean():.1%} ({low:.1%} to {high:.1%})", str(len(outside))])
    return table(["task", "intervals without 0", "intervals"], rows)


def _ranking_table(sizes: list[tuple[str, Found]]) -> str:
    numbers = sorted({participants for _, value in sizes for participants, _ in value["rows"]})
    rows = []
    for sd, value in sizes:
        tau = {participants: each for participants, each in value["rows"]}
        taus = np.array(value["taus"])
        checked = f"{taus.mean():.3f} ({(taus >= TAU).mean():.0%} are {TAU:g} or more)" if len(taus) else "–"
        rows.append(
            [
                sd,
                *(f"{tau[number]:.3f}" if number in tau else "" for number in numbers),
                str(value["recommended"] or "none"),
                checked,
            ]
        )
    head = ["SD of the strengths", *(f"{number}" for number in numbers), "recommended", "tau in other studies"]
    return table(head, rows)


def _interval_text(found: Found) -> str:
    cells = [f"{value:.1%} with {key.split('/')[1]}" for key, value in found.items() if key.startswith("intervals/")]
    return f"The 95 % intervals of 20 strengths contain those of the population in {', '.join(cells)} participants."


def _comparison_table(of_sorter: dict[str, list[int]], sizes: list[tuple[str, Found]]) -> str:
    kinds = dict(of_sorter) | {f"simulated raters, SD {sd}": value["comparisons"] for sd, value in sizes}
    rows = [
        [kind, str(len(counts)), f"{np.mean(counts):.1f}", str(min(counts)), str(max(counts))]
        for kind, counts in kinds.items()
    ]
    return table(["sorting 50 images", "rankings", "mean", "fewest", "most"], rows)
