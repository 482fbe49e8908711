"""`python -m tests.benchmarks.classification DATA WORK`: what fine-tuning of `demo` gives; writes a page of docs.

Runs the commands of the page one after another; those that are finished in WORK are not run again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stedfm_hf.runs import read_json
from tests.benchmarks.timing import machine, table, write_page

PAGE = Path("docs/benchmarks/classification.md")
MODES = {
    "full": "fine-tuned, all weights",
    "from-scratch": "from scratch",
}
FEW = 10
SEEDS = ("42", "43", "44")
SCHEDULE = ("--num-train-epochs", "6", "--num-evaluations", "3", "--device", "cpu")
HEAD = """# Classifiers trained on few labels

`demo`, the packaged encoder, fine-tuned on simulated images, compared with the same network from scratch and with
features that need no network. {leads}

{table}

Accuracy on the {test} test images, mean ± standard deviation (n − 1). The encoder `demo` was trained on simulated
images only, so this page shows that fine-tuning works. It does not predict accuracy on images from a microscope.

Measured on {machine}, with `python -m tests.benchmarks.classification DATA WORK`.

## How it was measured

| part | how |
| --- | --- |
| images | `benchmark-v1`, simulated: {sizes} images of train, validation and test |
| classes | 7; every image is a separate source image |
| first {trained} rows | {seeds} seeds: labels, head, order and augmentation are sampled again |
| other rows | 5 random selections of the labels; with all labels there is nothing to select |
| selection | on the validation images: the best weights, and C of the logistic regression |

Six epochs are few for a network from scratch, which was still learning when they ended. The frozen encoder with a
logistic regression sees whole images. Fine-tuning sees crops of 64 pixels, and with all labels it is not better.

<!-- not run: takes hours -->
```bash
{commands}
```
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is not there yet, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="benchmark-v1, made by `stedfm data simulate`")
    parser.add_argument("work", type=Path, help="folder of the runs")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    done = {
        (mode, few): _run(_fine_tuning(mode, few), arguments.data, arguments.work)
        for mode in MODES
        for few in (0, FEW)
    }
    report = arguments.work / "probe"
    _run(_probe(), arguments.data, arguments.work)
    write_page(arguments.page, _page(done, pq.read_table(report / "results.parquet").to_pylist()))
    print(arguments.page)


def _fine_tuning(mode: str, few: int) -> list[str]:
    """Words of the command after `stedfm`; DATA and WORK stand for the places."""
    words = ["finetune", "classification", "--model", "demo", "--dataset", "DATA"]
    words += ["--output", f"WORK/{mode}-{few or 'all'}", "--mode", mode, "--head-init", "random", "--seeds", *SEEDS]
    words += SCHEDULE
    return words + (["--labels-per-class", str(few)] if few else [])


def _probe() -> list[str]:
    words = ["evaluate", "probe", "--model", "demo", "--dataset", "DATA", "--output", "WORK/probe"]
    return words + ["--labels-per-class", str(FEW), "all"]


def _run(words: Sequence[str], data: Path, work: Path) -> Mapping[str, Any]:
    """Runs a command and returns the accuracies of a fine-tuning; nothing for a probe."""
    placed = [word.replace("DATA", str(data)).replace("WORK", str(work)) for word in words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "stedfm_hf.cli", *placed], check=True, env=environment)
    if words[0] == "evaluate":
        return {}
    folder = Path(placed[placed.index("--output") + 1])
    runs = [read_json(folder / f"seed-{seed}" / "metrics.json") for seed in SEEDS]
    return {
        "accuracies": [run["test"]["accuracy"] for run in runs],
        "sizes": [runs[0]["training_images"], runs[0]["validation"]["images"], runs[0]["test"]["images"]],
    }


def _page(done: Mapping[tuple[str, int], Mapping[str, Any]], probe: Sequence[Mapping[str, Any]]) -> str:
    fine_tuned = {(mode, few): each["accuracies"] for (mode, few), each in done.items()}
    rows = [[MODES[mode], _spread(fine_tuned[mode, FEW]), _spread(fine_tuned[mode, 0])] for mode in MODES]
    by_model: dict[str, dict[str, list[float]]] = {}
    for run in probe:
        by_model.setdefault(run["name"], {}).setdefault(run["setting"], []).append(run["accuracy"])
    for name, settings in by_model.items():
        title = "chance" if name == "Chance" else f"logistic regression: {name}"
        rows.append([title, _spread(settings[str(FEW)]), _spread(settings["all"])])
    sizes = done["full", 0]["sizes"]
    return HEAD.format(
        sizes=", ".join(map(str, sizes)),
        machine=machine(),
        table=table(["", f"{FEW} labels of each class", "all labels"], rows),
        test=sizes[-1],
        seeds=len(SEEDS),
        trained=len(MODES),
        leads=_lead(fine_tuned, FEW) + "\n" + _lead(fine_tuned, 0),
        commands="\n".join(
            f"stedfm {' '.join(words)}"
            for words in [*(_fine_tuning(mode, few) for mode in MODES for few in (FEW, 0)), _probe()]
        ),
    )


def _lead(accuracies: Mapping[tuple[str, int], Sequence[float]], few: int) -> str:
    ours, scratch = accuracies["full", few], accuracies["from-scratch", few]
    lead = statistics.mean(ours) - statistics.mean(scratch)
    spread = max(statistics.stdev(ours), statistics.stdev(scratch))
    labels = f"{few} labels of each class" if few else "all labels"
    return (
        f"With {labels}, fine-tuning leads by {100 * lead:.1f} points over training from scratch, "
        f"{lead / spread:.1f} times the larger standard deviation."
    )


def _spread(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f} %" if len(values) > 1 else f"{mean} %"


if __name__ == "__main__":
    main()
