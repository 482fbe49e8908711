"""`python -m tests.benchmarks.studies`: errors and power of analyses of studies; writes docs/benchmarks/studies.md.

The results are kept in a JSON file: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.runs import atomic_path
from stedfm_hf.studies.answers import frame_of
from stedfm_hf.studies.bradley_terry import fit_bradley_terry
from stedfm_hf.studies.mixed import fit_mixed_model
from stedfm_hf.studies.power import PowerRow, measure_power, recommend, simulate_p_values
from stedfm_hf.studies.raters import Raters, simulate_answers
from stedfm_hf.studies.scores import losers
from stedfm_hf.studies.sorter import PairwiseSorter
from stedfm_hf.studies.study import RANK, Study
from tests.benchmarks.studies_page import page
from tests.studies.examples import study
from tests.studies.null_studies import CASES, p_values, random_ties

STUDIES, SEEDS = 500, (0, 1)
MODELS, MODEL_RATERS = 40, Raters(rater_sd=0.5, image_sd=0.5)
IMAGES, REPEATS, CHECKS = 50, 20, 40
PARTICIPANTS = (5, 10, 20, 40, 80)
IMAGE_SDS = (1.0, 2.0, 3.0)
ORDERS = 1000
PARTS = ("levels", "mixed", "rankings", "intervals", "comparisons")

Unit = tuple[str, Callable[[], Any]]


def levels(case: str, seed: int) -> dict[str, dict[str, list[float]]]:
    """Return the p-values of simulated studies without a preference: reported, with random ties, and as published."""
    rows: dict[str, list[dict[str, float]]] = {"reported": [], "random ties": [], "published": []}
    for number in range(STUDIES):
        rows["reported"].append(p_values(case, seed, number))
        rows["published"].append(p_values(case, seed, number, reference=True))
        with random_ties(seed * STUDIES + number):
            rows["random ties"].append(p_values(case, seed, number))
    return {kind: {test: [row[test] for row in found] for test in found[0]} for kind, found in rows.items()}


def mixed(case: str) -> list[bool]:
    """Return whether each 95 % interval of a mixed model contains 0, in studies without a preference."""
    inside: list[bool] = []
    for number in range(MODELS):
        of = dataclasses.replace(CASES[case].study, seed=number)
        fitted = fit_mixed_model(of, frame_of(simulate_answers(of, 10, MODEL_RATERS, seed=number).rows))
        assert fitted is not None
        inside += [each.low < 0 < each.high for each in fitted.effects]
    return inside


def ranked() -> Study:
    """Return a study of 50 images of one group."""
    shown = [{"id": f"i{number}", "image": "a.png"} for number in range(IMAGES)]
    return study(RANK, stimuli=shown, expect={"all images": 0})


def rankings(image_sd: float) -> dict[str, Any]:
    """Find the recommended number of participants, and measure the rank correlation in other studies of this size."""
    raters = Raters(rater_sd=0.5, image_sd=image_sd)
    rows: list[PowerRow] = []
    for participants in PARTICIPANTS:
        rows.append(measure_power(ranked(), participants, IMAGES, raters, repeats=REPEATS, seed=1))
        if rows[-1].recovered >= 0.8:
            break
    best = recommend(rows, 0.8, order=True)
    taus: list[float] = []
    if best is not None:
        _, found = simulate_p_values(ranked(), best.participants, IMAGES, raters, repeats=CHECKS, seed=2)
        taus = found.tolist()
    counted = frame_of(simulate_answers(ranked(), 20, raters).rows).groupby("participant").size()
    return {
        "rows": [[each.participants, each.tau] for each in rows],
        "recommended": None if best is None else best.participants,
        "taus": taus,
        "comparisons": [int(each) for each in counted],
    }


def intervals(participants: int) -> float:
    """Return the fraction of the 95 % intervals of strengths that contain the strength of the population."""
    of, inside = study(RANK, 10), []
    for seed in range(MODELS):
        simulated = simulate_answers(of, participants, Raters(rater_sd=0.5), seed=seed)
        answers = frame_of(simulated.rows)
        fitted = fit_bradley_terry(
            list(simulated.planted), answers["answer"].to_list(), losers(answers), answers["participant"].to_list()
        )
        # Preferences that vary between raters shrink the strengths of the population.
        truth = np.array(list(simulated.planted.values())) / np.sqrt(1 + 0.346 * 2 * 0.5**2)
        truth -= truth.mean()
        inside += ((fitted.low < truth) & (truth < fitted.high)).tolist()
    return float(np.mean(inside))


def comparisons() -> dict[str, list[int]]:
    """Count the comparisons that the sorting of 50 images needs, with consistent and with random answers."""
    names, rng = [f"{number:02d}" for number in range(IMAGES)], np.random.default_rng(0)
    found: dict[str, list[int]] = {"consistent answers": [], "random answers": []}
    for kind, counts in found.items():
        for _ in range(ORDERS):
            sorter = PairwiseSorter(rng.permutation(names).tolist())
            while (pair := sorter.pair) is not None:
                sorter.answer(min(pair) if kind[0] == "c" else str(rng.choice(pair)))
            counts.append(len(sorter.answers))
    return found


def units(parts: list[str]) -> Iterator[Unit]:
    """Yield the name and the measurement of each unit of work."""
    several = [case for case, null in CASES.items() if len(null.study.groups) > 1]
    every: list[Unit] = []
    for seed in SEEDS:
        every += [(f"levels/{case}/{seed}", partial(levels, case, seed)) for case in CASES]
    every += [(f"mixed/{case}", partial(mixed, case)) for case in several if case != "rank"]
    every += [(f"rankings/{sd:g}", partial(rankings, sd)) for sd in IMAGE_SDS]
    every += [(f"intervals/{number}", partial(intervals, number)) for number in (5, 10, 20)]
    every.append(("comparisons", comparisons))
    yield from (each for each in every if each[0].split("/")[0] in parts)


def extend(path: Path, parts: list[str], deadline: float) -> dict[str, Any]:
    """Measure what is missing until a time, write it, and return everything."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name, measure in units(parts):
        if name in found:
            continue
        if time.monotonic() > deadline:
            break
        found[name] = measure()
        print(name, flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(found), encoding="utf-8")
    return found


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after this time; the next call resumes")
    parser.add_argument("--results", type=Path, default=Path("build/studies.json"))
    parser.add_argument("--output", type=Path, help="page to write, from the results so far")
    arguments = parser.parse_args()
    found = extend(arguments.results, arguments.parts, time.monotonic() + 60 * arguments.minutes)
    if arguments.output:
        arguments.output.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
