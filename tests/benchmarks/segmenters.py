"""`python -m tests.benchmarks.segmenters SCENES WORK`: what fine-tuned segmenters give; writes a page of docs.

Runs the commands of the page one after another; those that are finished in WORK are not run again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from stedfm_hf.evaluation.segmentation import assign_folds
from stedfm_hf.evaluation.segmentation.fitting import MAX_TRAIN_IMAGES
from stedfm_hf.labels.annotated import AnnotatedImages, read_annotated
from stedfm_hf.metrics.statistics import bootstrap_interval
from stedfm_hf.metrics.summary import ALL
from stedfm_hf.runs import read_json
from tests.benchmarks.timing import machine, table

Metrics = Mapping[tuple[str, str, int], Mapping[str, Any]]
"""Metrics by decoder, mode and number of training images."""
PAGE = Path("docs/benchmarks/segmentation.md")
MODES = {
    "full": "`demo`, all weights trained",
    "from-scratch": "from scratch",
    "frozen": "`demo`, frozen",
    "untrained": "untrained encoder, frozen",
}
CASES = [
    ("upernet", "full", 10),
    ("upernet", "from-scratch", 10),
    ("upernet", "frozen", 10),
    ("upernet", "untrained", 10),
    ("linear", "full", 10),
    ("linear", "from-scratch", 10),
    ("unetr", "full", 10),
    ("unetr", "from-scratch", 10),
    ("upernet", "full", 0),
    ("upernet", "from-scratch", 0),
    ("linear", "full", 0),
    ("linear", "from-scratch", 0),
    ("unetr", "full", 0),
    ("unetr", "from-scratch", 0),
]
"""Decoder, mode, and how many training images; 0: all."""
LONG_CASES = [("upernet", "full", 10), ("upernet", "from-scratch", 10)]
SEEDS = ("42", "43", "44")
STEPS, MORE_STEPS = 200, 600
SCHEDULE = ("--num-evaluations", "2", "--overlays", "2", "--device", "cpu")
FOLDS = 5
CLASSES = ("rings", "fibres", "puncta")
HEADS = ["decoder", "encoder", "training images", "mean IoU", "mean AUPR", f"IoU of {' · '.join(CLASSES)}"]
SCORES = ("iou", "dice", "aupr")
SCORE_HEADS = ("mean IoU (95 %)", "Dice", "AUPR")
HEAD = """# Segmenters trained on few masks

`demo`, the packaged encoder, fine-tuned into segmenters on simulated images, compared with the same networks from
scratch and with classical methods.

{leads}

Measured on {machine}, with `python -m tests.benchmarks.segmenters SCENES WORK --spots SPOTS`.

## Simulated scenes

{table}

`demo` was trained on simulated images only, so this table shows that fine-tuning works. It does not predict accuracy
on images from a microscope.

| part | how |
| --- | --- |
| images | `benchmark-v1-scenes`, simulated: {sizes} images of train, validation and test |
| classes | rings, fibres and puncta; every image is a separate source image |
| metrics | mean over the {test} test images, then over the three classes |
| networks | ± standard deviation (n − 1) over {seeds} seeds: images, weights, order and augmentation differ |
| training | 200 steps of 16 crops of 64 pixels, with few and with all images; the better of two evaluations is kept |
| baselines | fitted once on {fitted} of all training images; 95 % interval over test images |

200 steps are few for a network from scratch: part of a lead means only that it learns later. With {more} steps
and everything else the same:

{long_table}

{long_leads}

`unetr` is the full decoder of the reference. Its steps take about eight times as long here as those of `upernet`.

<!-- not run: takes hours -->
```bash
{commands}
```

{zero_shot}
{spots}"""
ZERO_SHOT = """## Masks without training

Foreground masks of `demo` without training and annotations (`--zero-shot`), compared with baselines:

{table}

{verdict}

`demo` has patches of 8 pixels: its clusters outline whole bundles and rows of rings, where the annotation has single
filaments and rings. Bright structures on a dark background need no encoder. Another encoder can give other masks.

| part | how |
| --- | --- |
| simulated scenes | test images of `benchmark-v1-scenes`; rings, fibres and puncta are one foreground |
| real spots | the images of the next section. **Ten images allow no conclusion.** |
| baselines | fitted on {fitted} training images of the scenes; on the spots, in {folds}-fold cross-validation |
| settings | number of clusters and size of tiles: set on 40 training images of the scenes |
| intervals | 95 % over images |

Measured on {machine}.

<!-- not run: takes minutes -->
```bash
{commands}
```
"""
SPOTS_TITLE = "\n## Real spots\n"
SPOTS = f"""{SPOTS_TITLE}
`spot_segmentation`: {{images}} pairs of real images and masks of 224 x 224 pixels. **Ten images allow no conclusion.**

{{table}}

Each image is a separate source image. In 5-fold cross-validation every image is segmented once, by a network
that has seen none of its fold. One other fold selects the weights, and three are for training. Intervals are 95 %
over images. The authors published a mean IoU of 0.83 for one of their networks on such images. It was not measured on
these ten.

`stedfm finetune segmentation --model demo {{schedule}}` in each fold, seed 42; the
baselines: `stedfm evaluate segmentation --dataset SPOTS --folds 5`.

Measured on {{machine}}, with `python -m tests.benchmarks.segmenters SCENES WORK --spots SPOTS --only-spots`.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is not there yet, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path, help="benchmark-v1-scenes, made by `stedfm data simulate`")
    parser.add_argument("work", type=Path, help="folder of the runs")
    parser.add_argument("--spots", type=Path, help="folder of real pairs, a_image.tif and a_mask.tif")
    parser.add_argument(
        "--only-spots", action="store_true", help="measure the section on --spots only, and replace it"
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    if arguments.only_spots:
        before = arguments.page.read_text(encoding="utf-8").partition(SPOTS_TITLE)[0]
        arguments.page.write_text(before + _spots(arguments.spots, arguments.work), encoding="utf-8")
        return
    places = {"SCENES": arguments.scenes, "WORK": arguments.work}
    done = {case: _run(_fine_tuning(*case), places) for case in CASES}
    long = {case: _run(_fine_tuning(*case, MORE_STEPS), places) for case in LONG_CASES}
    baselines = _run(_evaluation(), places)
    spots, zero_shot = "", ""
    if arguments.spots is not None:
        spots = _spots(arguments.spots, arguments.work)
        zero_shot = _zero_shot(places | {"SPOTS": arguments.spots})
    arguments.page.write_text(_page(done, long, baselines, zero_shot, spots), encoding="utf-8")
    print(arguments.page)


def _fine_tuning(decoder: str, mode: str, count: int, steps: int = STEPS) -> list[str]:
    """Words of the command after `stedfm`; SCENES and WORK stand for the places."""
    output = f"WORK/{decoder}-{mode}-{count or 'all'}" + (f"-{steps}" if steps != STEPS else "")
    words = ["finetune", "segmentation", "--model", "demo", "--dataset", "SCENES", "--output", output]
    words += ["--decoder", decoder, "--mode", mode, *(["--label-count", str(count)] if count else [])]
    return [*words, "--seeds", *SEEDS, "--max-steps", str(steps), *SCHEDULE]


def _evaluation() -> list[str]:
    return [
        "evaluate",
        "segmentation",
        "--model",
        "WORK/upernet-full-10",
        "--dataset",
        "SCENES",
        "--output",
        "WORK/baselines",
    ]


def _run(words: Sequence[str], places: Mapping[str, Path]) -> dict[str, Any]:
    """Runs a command that is not finished, and returns its metrics."""
    placed = list(words)
    for name, place in places.items():
        placed = [word.replace(name, str(place)) for word in placed]
    metrics = Path(placed[placed.index("--output") + 1]) / "metrics.json"  # written at the end
    if not metrics.exists():
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "stedfm_hf.cli", *placed], check=True, env=environment)
    return dict(read_json(metrics))


def _page(done: Metrics, long: Metrics, baselines: Mapping[str, Any], zero_shot: str, spots: str) -> str:
    first = done["upernet", "full", 0]["runs"][0]
    sizes = [first["training_images"], first["validation"]["images"], first["test"]["images"]]
    commands = [*(_fine_tuning(*case) for case in CASES), *(_fine_tuning(*case, MORE_STEPS) for case in LONG_CASES)]
    return HEAD.format(
        machine=machine(),
        sizes=", ".join(map(str, sizes)),
        table=table(HEADS, [*_rows(done, sizes[0]), *_baseline_rows(baselines, sizes[0])]),
        fitted=MAX_TRAIN_IMAGES,
        test=sizes[-1],
        seeds=len(SEEDS),
        leads=_leads(done),
        more=MORE_STEPS,
        long_table=table(HEADS, _rows(long, sizes[0])),
        long_leads=_leads(long),
        commands="\n".join(f"stedfm {' '.join(words)}" for words in [*commands, _evaluation()]),
        zero_shot=zero_shot,
        spots=spots,
    )


def _zero_shot(places: Mapping[str, Path]) -> str:
    """The section on masks without training."""
    words = ["evaluate", "segmentation", "--zero-shot", "demo", "--dataset"]
    commands = [
        [
            *words,
            "SCENES",
            "--classes",
            *(f"{number}=foreground" for number in (1, 2, 4)),
            "--output",
            "WORK/zero-shot",
        ],
        [*words, "SPOTS", "--folds", str(FOLDS), "--output", "WORK/zero-shot-spots"],
    ]
    scenes, spots = (_run(each, places) for each in commands)
    rows = [[*one[:3], *other[1:3]] for one, other in zip(_methods(scenes), _methods(spots), strict=True)]
    compared = {(each["model"], each["other"]): each for each in scenes["comparisons"]}
    verdict = []
    for each in scenes["methods"]:
        if each["kind"] == "zero-shot":
            found = compared[each["key"], "otsu"]
            word = "more" if found["difference"] > 0 else "less"
            low, high = sorted((abs(found["low"]), abs(found["high"])))
            verdict.append(
                f"- On the simulated scenes, {each['name']} reaches {abs(found['difference']):.3f} of IoU {word} than "
                f"Otsu's threshold (95 %: {low:.3f} to {high:.3f})."
            )
    heads = ["", *(f"{data}: {score}" for data in ("simulated scenes", "real spots") for score in SCORE_HEADS[:2])]
    return ZERO_SHOT.format(
        table=table(heads, rows),
        verdict="\n".join(verdict),
        fitted=MAX_TRAIN_IMAGES,
        folds=FOLDS,
        machine=machine(),
        commands="\n".join(f"stedfm {' '.join(each)}" for each in commands),
    )


def _rows(done: Metrics, images: int) -> list[list[str]]:
    rows = []
    for (decoder, mode, count), figures in done.items():
        runs = figures["runs"]
        classes = np.array([run["test"]["iou_per_class"][1:] for run in runs], float).mean(axis=0)
        row = [decoder, MODES[mode], _share(count, images), _spread(runs, "iou"), _spread(runs, "aupr")]
        rows.append([*row, _joined(classes)])
    return rows


def _baseline_rows(record: Mapping[str, Any], images: int) -> list[list[str]]:
    """Rows of the baselines, in the columns of the networks."""
    found = {(row["method"], row["metric"], row["class"]): row for row in record["summary"]}
    rows = []
    for each in record["methods"]:
        if each["kind"] == "baseline":
            key = each["key"]
            iou, aupr = (_with_interval(**_ends(found[key, score, ALL])) for score in ("iou", "aupr"))
            classes = [found[key, "iou", name]["mean"] for name in CLASSES]
            rows.append(
                [f"baseline: {each['name']}", "–", _share(MAX_TRAIN_IMAGES, images), iou, aupr, _joined(classes)]
            )
    return rows


def _share(count: int, images: int) -> str:
    return f"{count or 'all'} ({100 * (count or images) / images:.0f} %)"


def _joined(classes: Iterable[float]) -> str:
    return " · ".join(f"{value:.2f}" for value in classes)


def _leads(done: Metrics) -> str:
    return "\n".join(_lead(done, decoder, count) for decoder, mode, count in done if mode == "full")


def _spread(runs: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [run["test"][name] for run in runs]
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def _lead(done: Metrics, decoder: str, count: int) -> str:
    ours, scratch = (
        [run["test"]["iou"] for run in done[decoder, mode, count]["runs"]] for mode in ("full", "from-scratch")
    )
    lead, spread = statistics.mean(ours) - statistics.mean(scratch), max(map(statistics.stdev, (ours, scratch)))
    images = f"{count} training images" if count else "all training images"
    return (
        f"- With {images} and `{decoder}`, `demo` leads by {lead:.3f} of IoU over training from scratch, "
        f"{lead / spread:.1f} times the larger standard deviation."
    )


def _methods(record: Mapping[str, Any]) -> list[list[str]]:
    """IoU, Dice and AUPR of all methods of an evaluation, with intervals."""
    found = {(row["method"], row["metric"]): row for row in record["summary"] if row["class"] == ALL}
    return [
        [each["name"], *(_with_interval(**_ends(found[each["key"], score])) for score in SCORES)]
        for each in record["methods"]
    ]


def _ends(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("mean", "low", "high")}


def _with_interval(mean: float | None, low: float | None, high: float | None) -> str:
    return "–" if mean is None else f"{mean:.3f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")


def _spots(folder: Path, work: Path) -> str:
    places = {"SPOTS": folder, "WORK": work}
    baselines = _run(
        ["evaluate", "segmentation", "--dataset", "SPOTS", "--folds", str(FOLDS), "--output", "WORK/spots"], places
    )
    data = read_annotated(folder)["all"]
    fold = assign_folds(data, FOLDS, 0)
    rows: list[list[str]] = []
    for mode in ("full", "from-scratch"):
        images: list[dict[str, Any]] = []
        for number in range(FOLDS):
            place = work / f"spots-{mode}-{number}"
            _lay_out(data, folder, fold, number, place / "data")
            words = ["finetune", "segmentation", "--model", "demo", "--dataset", "DATA", "--output", "WORK/run"]
            _run(
                [*words, "--mode", mode, "--max-steps", str(STEPS), *SCHEDULE], {"DATA": place / "data", "WORK": place}
            )
            scored = pq.read_table(place / "run" / "per_image.parquet").to_pylist()
            images += [row for row in scored if row["split"] == "test" and row["class"] != data.classes[0]]
        assert len(images) == len(data)
        values = {score: np.array([row[score] for row in images]) for score in SCORES}
        figures = [_with_interval(float(each.mean()), *bootstrap_interval(each)) for each in values.values()]
        rows.append([f"upernet, {MODES[mode]}", *figures])
    rows += _methods(baselines)
    schedule = " ".join(["--max-steps", str(STEPS), *SCHEDULE])
    return SPOTS.format(images=len(data), table=table(["", *SCORE_HEADS], rows), schedule=schedule, machine=machine())


def _lay_out(data: AnnotatedImages, folder: Path, fold: np.ndarray, number: int, output: Path) -> None:
    """Copy the images into splits: the fold is the test, the next one validation, the others are for training."""
    splits = {number: "test", (number + 1) % FOLDS: "validation"}
    for place, each in zip(data.image_ids.tolist(), fold.tolist(), strict=True):
        stem = Path(place).name.removesuffix("_image.tif")
        for kind in ("image", "mask"):
            target = output / f"{kind}s" / splits.get(each, "train") / f"{stem}.tif"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / f"{stem}_{kind}.tif", target)


if __name__ == "__main__":
    main()
