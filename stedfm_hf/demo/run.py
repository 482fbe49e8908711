"""The demo: the commands of the package in sequence, on simulated images or images of the user."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stedfm_hf.demo.settings import DemoSettings
from stedfm_hf.runs import UserError, write_json
from stedfm_hf.runs.output import open_output
from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings

STRUCTURES = ("rings", "fibres", "microtubules", "puncta")
"""Four of the seven structures, which a minute or two of training can begin to distinguish."""
PHYSICS: dict[str, Any] = {
    "height": 128,
    "width": 128,
    "photons": (20.0, 80.0),
    "background": (0.3, 1.5),
    "coverage": (0.45, 0.65),
    "match_with": list(STRUCTURES),
}
"""Small dense fields with the photon counts of real STED images: a short training needs few empty patches."""
RECIPE: dict[str, Any] = {
    "architecture": "stedfm-vit-64-p8",
    "decoder_hidden_size": 128,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 512,
    "effective_batch_size": 32,
    "learning_rate": 2e-3,
    "warmup_ratio": 0.08,
    "logging_steps": 50,
    "eval_steps": 250,
    "save_steps": 5000,
    "num_train_epochs": 100_000,
}
"""Settings of a pretraining of minutes: many small steps at a high learning rate, and a narrow decoder."""
BASELINES = ("untrained", "log-spectrum", "histogram", "chance")
NEIGHBOURS = 10
TABLE = "embeddings.parquet"
RESULTS = ("report.html", "metrics.json")
PARTS = ("images", "pool", "data", "model", "evaluation", "figures", TABLE, f"{TABLE}.manifest.json")


@dataclass(frozen=True)
class DemoResult(OutputResult):
    """Result of a demo.

    Attributes:
        output: Folder with `report.html`.
        manifest: Settings, versions and the status of every image.
        metrics: Content of `metrics.json`.
        text: Summary of the results, one sentence each.
    """

    metrics: dict[str, Any]
    text: tuple[str, ...]

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.output / "report.html"

    def summary(self) -> str:
        """Return the summary of the results."""
        return "\n".join([*self.text, f"{self.report}: {self.metrics['seconds']:.0f} s in all"])

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        return super().to_json() | {"metrics": self.metrics}


@takes_settings(DemoSettings)
@quiet_transformers()
def demo(settings: DemoSettings) -> DemoResult:
    """Run the steps of the package on simulated images or images of the user, and write a report.

    Raises:
        UserError: If the folder holds other files, or the images or the model cannot be used.

    Example:
        >>> demo("demo", max_seconds=60).report  # doctest: +SKIP
        PosixPath('demo/report.html')
    """
    from stedfm_hf.demo.figures import save_figures
    from stedfm_hf.demo.page import summarise, write_report
    from stedfm_hf.inference import embed

    began, folder = time.monotonic(), Path(settings.output)
    with open_output(folder, "demo", settings, results=RESULTS, temporary=PARTS, overwrite=True) as output:
        count = settings.per_structure
        if simulated := settings.images is None:
            images = simulate_images(
                folder / "images", settings.seed, splits={"train": count // 2, "test": count // 5}, first_index=count
            )
        else:
            images = Path(str(settings.images))
        trained = None if settings.model is not None else train(settings, images, folder)
        model = settings.model or str(folder / "model")
        made = embed([images], model=model, output=folder / TABLE, device=settings.device)
        output.manifest.items = dict(made.manifest.items)
        if not made.table.num_rows:
            raise UserError(f"{images}: none of the images could be embedded")
        evaluated = evaluate(settings, images, model, folder)
        save_figures(
            folder / "figures",
            made.table,
            images,
            model,
            simulated=simulated,
            seed=settings.seed,
            data=None if trained is None else folder / "data",
        )
        metrics = {
            "images": made.table.num_rows,
            "simulated": simulated,
            "model": made.table["model"][0].as_py(),
            "training": trained,
            "knn": evaluated,
            "failed": made.manifest.failures(),
            "seconds": round(time.monotonic() - began, 1),
        }
        write_json(folder / "metrics.json", metrics)
        text = summarise(metrics)
        write_report(folder, metrics, text)
    return DemoResult(folder, output.manifest, metrics, tuple(text))


def simulate_images(folder: Path, seed: int, **counts: Any) -> Path:
    """Simulate labelled 16-bit TIFF files and return their folder."""
    from stedfm_hf.data import simulate

    # One process, because spawned processes would run the code of a calling notebook or script again.
    made = simulate(folder, structures=list(STRUCTURES), seed=seed, masks=False, workers=1, **PHYSICS, **counts)
    return made.output / "images"


def train(settings: DemoSettings, images: Path, folder: Path) -> dict[str, Any]:
    """Build a data set of crops of the images and train on it, without labels.

    Returns:
        Values for `metrics.json`.
    """
    from stedfm_hf.data import build
    from stedfm_hf.inference.loading import choose_device, has_fast_bfloat16
    from stedfm_hf.training.curve import CURVE_FILE, Curve
    from stedfm_hf.training.pretrain import pretrain

    crop = 64
    if settings.images is None:
        # Images that are neither embedded nor tested.
        images, crop = simulate_images(folder / "pool", settings.seed, per_structure=settings.per_structure), 128
    build([images], folder / "data", crop_size=crop, min_foreground=0.0, validation=0.1, test=0.0, workers=1)
    fast = has_fast_bfloat16(choose_device(settings.device))
    result = pretrain(
        [str(folder / "data")],
        output=folder / "model",
        max_seconds=settings.max_seconds,
        seed=settings.seed,
        device=settings.device,
        precision="bfloat16" if fast else "float32",
        **RECIPE,
    )
    held_out = [row for row in Curve(folder / "model" / CURVE_FILE).rows() if row.held_out_loss is not None]
    last = held_out[-1] if held_out else None
    return {
        "steps": result.steps,
        "crops": result.samples,
        "seconds": settings.max_seconds,
        "precision": "bfloat16" if fast else "float32",
        "held_out_loss": last and last.held_out_loss,
        "constant_loss": last and last.constant_loss,
    }


def evaluate(settings: DemoSettings, images: Path, model: str, folder: Path) -> Mapping[str, Any] | None:
    """Evaluate nearest neighbours with the subfolders as labels; None if there are no labels."""
    from stedfm_hf.evaluation import evaluate_knn

    try:
        result = evaluate_knn(
            images,
            folder / "evaluation",
            model=[model],
            baselines=list(BASELINES),
            k=[NEIGHBOURS],
            zscore=True,
            leave_one_out=settings.images is not None,
            seed=settings.seed,
            device=settings.device,
            cache=None,
        )
    except UserError as error:
        if settings.images is None:
            raise
        print_note(f"the evaluation is skipped: {error}")
        return None
    record, setting = result.record, result.record["summary"][0]["setting"]
    keys = {each["key"]: "network" if each["kind"] == "model" else each["key"] for each in record["methods"]}
    return {
        "k": NEIGHBOURS,
        "notes": record["notes"],
        "methods": {
            keys[row["method"]]: {"accuracy": row["accuracy"]["mean"], "interval": row["interval"]}
            for row in record["summary"]
            if row["setting"] == setting
        },
        "network_over": {
            keys[row["other"]]: {name: row[name] for name in ("difference", "low", "high")}
            for row in record["comparisons"]
            if row["setting"] == setting
        },
    }
