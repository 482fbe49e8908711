"""The demo: simulate or read images, train or load a network, embed, compare, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining

from stedfm_hf.demo import pictures as draw
from stedfm_hf.demo.material import Picture, Sizes, load_pixels, pictures_of, simulate
from stedfm_hf.demo.page import Story, summary, write_report
from stedfm_hf.demo.scores import score, standardised
from stedfm_hf.inference import embed, load_encoder
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.reports import save_figure
from stedfm_hf.reports.reconstructions import reconstruction_figure
from stedfm_hf.runs import Manifest, UserError, manifest_path, write_json
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.training.network import standardised_network
from stedfm_hf.training.quick import QuickResult, pretrain_quickly, quick_config, save_folder
from stedfm_hf.weights.packaged import packaged_folder

OURS = (
    "images",
    "model",
    "untrained",
    "figures",
    "embeddings.parquet",
    "embeddings.parquet.manifest.json",
    "embeddings_untrained.parquet",
    "embeddings_untrained.parquet.manifest.json",
    "metrics.json",
    "report.html",
)
"""What a demo writes into its folder besides the manifest, and may therefore remove from it."""


@dataclass(frozen=True)
class DemoResult:
    """What a demo made.

    Args:
        report: the page that shows everything.
        model: the trained Hub-layout folder, or None where published weights were used.
        metrics: all figures, as they stand in `metrics.json`.
        manifest: versions, arguments and the status of every file.
    """

    report: Path
    model: Path | None
    metrics: dict[str, Any]
    manifest: Manifest


@quiet_transformers()
def run_demo(
    output: str | Path,
    *,
    images: str | Path | None = None,
    model: str | Path | None = None,
    seconds: float = 120.0,
    seed: int = 0,
    device: str = "auto",
    sizes: Sizes | None = None,
    max_steps: int | None = None,
) -> DemoResult:
    """Shows on simulated or one's own images what the package does, and how well it came out.

    Without `images` a labelled set is simulated; without `model` a small masked autoencoder is trained on the images.
    Then all images are embedded by the function users call, and a report compares the vectors with simple baselines.
    What an earlier demo left in the folder is replaced.

    Args:
        output: folder to write; new, empty, or that of an earlier demo.
        images: folder of one's own images; the names of its folders are the labels, if there are two or more.
        model: folder or Hub id of a trained model; nothing is trained then.
        seconds: time of the training.
        seed: of everything random.
        device: "auto", "cpu", "cuda" or "mps".
        sizes: how many images to simulate.
        max_steps: ends the training after that many steps at the latest.

    Returns:
        Report, figures and manifest. Files that could not be embedded are in `manifest.failures()`.

    Raises:
        UserError: the folder holds other things, or the images or the model cannot be used.

    Example:
        >>> run_demo("demo", seconds=60).report  # doctest: +SKIP
        PosixPath('demo/report.html')
    """
    say = _Clock()
    folder = Path(output)
    manifest = Manifest(
        "demo",
        settings={"images": images, "training_seconds": seconds if model is None else None},
        options={"device": device},
        model=None if model is None else str(model),
        seed=seed,
    )
    _make_room(folder)
    manifest.save(manifest_path(folder, folder=True))

    sizes = sizes or Sizes()
    if images is None:
        train_on, embed_on = simulate(folder / "images", sizes=sizes, seed=seed)
        say(f"simulated labelled 16-bit TIFFs in {folder / 'images'}")
    else:
        train_on = embed_on = Path(images)
        if not embed_on.is_dir():
            raise UserError(f"{images}: is no folder; give the demo a folder of images")

    training: QuickResult | None = None
    trained_on = 0
    if model is None:
        processor = StedFmImageProcessor(patch_size=quick_config().patch_size)
        readable, _ = load_pixels(train_on, processor)
        crops = [pixels for pixels, _ in readable.values()]
        if len(crops) < 2:
            raise UserError(f"{train_on}: holds {len(crops)} readable images; training needs two or more")
        trained_on = len(crops)
        say(f"read {trained_on} images; training stedfm-vit-64-p8 on them, without labels, for {seconds:.0f} s")
        training = pretrain_quickly(
            crops,
            output_dir=folder,
            seconds=seconds,
            max_steps=max_steps,
            seed=seed,
            device=device,
            processor=processor,
        )
        say(f"trained {training.steps} steps, {training.crops_per_second:.0f} crops/s; saved {training.folder}")
        model = training.folder

    encoder = load_encoder(model, device=device)
    if encoder.model.config.num_channels != 1:
        raise UserError(f"model {model}: takes {encoder.model.config.num_channels} channels; the demo shows one")
    if training is not None:
        _load_back(training.folder, say)
    pixels, _ = load_pixels(embed_on, encoder.processor)
    if training is None:
        _save_untrained(encoder.model, encoder.processor, pixels, folder / "untrained", seed)

    made = embed([embed_on], model=model, output=folder / "embeddings.parquet", device=device, overwrite=True)
    manifest.items, manifest.weights_sha256 = made.manifest.items, encoder.weights_sha256
    if not made.table.num_rows:
        raise UserError(f"{embed_on}: none of the images could be embedded; {_first(made.manifest.failures())}")
    control = embed(
        [embed_on],
        model=folder / "untrained",
        output=folder / "embeddings_untrained.parquet",
        device=device,
        overwrite=True,
    )
    say(f"embedded {made.table.num_rows} images with the network and with its untrained twin")

    shown = pictures_of(made.table, pixels, simulated=images is None)
    vectors, untrained = _vectors(made.table), _vectors(control.table)
    scores = score(
        shown,
        vectors,
        untrained,
        window=encoder.model.config.image_size,
        network="Network after the training" if training else encoder.name,
    )
    say("scored the vectors and the baselines" if scores else "no labels (two or more folders), so no accuracy")
    scaled = standardised(shown, vectors)
    files, method = _figures(folder / "figures", shown, scaled, training, scores, _masked_autoencoder(model), seed)
    say(f"drew {len(files)} figures")

    story = Story(
        images=len(shown),
        simulated=images is None,
        model=encoder.name,
        seconds=say.elapsed(),
        training=training,
        trained_on=trained_on,
        scores=scores,
        map_method=method,
        figures=files,
        failed=made.manifest.failures(),
    )
    metrics = _metrics(story, seed)
    write_json(folder / "metrics.json", metrics)
    report = write_report(folder / "report.html", story)
    manifest.finish()
    manifest.save(manifest_path(folder, folder=True))
    print("", *summary(story), sep="\n", flush=True)
    print(f"{say.elapsed():.0f} s in all. Open {report}", flush=True)
    return DemoResult(report, training.folder if training else None, metrics, manifest)


class _Clock:
    """Prints what is done, with the seconds since the demo began."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"[{self.elapsed():3.0f} s] {line}", flush=True)

    def elapsed(self) -> float:
        return time.monotonic() - self.began


def _make_room(folder: Path) -> None:
    """Removes what an earlier demo left; refuses a folder with anything that is not a demo's."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder to write")
    record = manifest_path(folder, folder=True)
    if folder.is_dir() and any(folder.iterdir()):
        if not record.is_file() or Manifest.load(record).verb != "demo":
            raise UserError(f"{folder}: holds something else than an earlier demo; name a new or empty folder")
        for name in OURS:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _load_back(folder: Path, say: Callable[[str], None]) -> None:
    """Loads the saved folder the way every user of transformers would."""
    network = AutoModel.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    say(f"loaded it back: {type(network).__name__} ({millions:.1f} M parameters) and {type(processor).__name__}")


def _save_untrained(
    model: StedFmModel, processor: StedFmImageProcessor, pixels: dict[Any, Any], folder: Path, seed: int
) -> None:
    """Saves a network of the same architecture before its first step, its input standardised to these images."""
    sample = np.concatenate([plane.ravel()[::7] for plane, _ in pixels.values()])
    config = type(model.config)(**{**model.config.to_dict(), "norm_pix_loss": False})
    fresh = standardised_network(config, mean=float(sample.mean()), std=float(sample.std()), seed=seed)
    save_folder(fresh, processor, folder)


def _masked_autoencoder(model: str | Path) -> StedFmForPreTraining | None:
    """The model with its decoder, or None where the folder holds no decoder."""
    folder = packaged_folder(str(model)) or model
    network, loading = AutoModelForPreTraining.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    if any(key.startswith("decoder.") for key in loading["missing_keys"]):
        return None
    return cast(StedFmForPreTraining, network.eval())


def _vectors(table: pa.Table) -> np.ndarray:
    return np.asarray(table["embedding"].to_pylist(), dtype=np.float64)


def _first(failures: dict[str, str]) -> str:
    path, reason = next(iter(failures.items()))
    return f"{path}: {reason}"


def _figures(
    folder: Path,
    shown: list[Picture],
    vectors: np.ndarray,
    training: QuickResult | None,
    scores: Any,
    autoencoder: StedFmForPreTraining | None,
    seed: int,
) -> tuple[dict[str, Path], str]:
    """Draws and saves all figures there is material for; returns their PNG files and how the map was made."""
    places, method = draw.place_on_map(vectors, seed)
    figures = {"map": draw.map_figure(shown, places)}
    if autoencoder is not None:
        part = "query" if any(picture.part == "query" for picture in shown) else None
        chosen = [shown[place] for place in draw.one_of_each(shown, most=4, part=part)]
        with torch.inference_mode():
            filled = draw.reconstruct(autoencoder, chosen, seed=seed)
        figures["reconstructions"] = reconstruction_figure(filled)
        figures["overview"] = draw.overview_figure(filled, shown, places)
    if len({picture.path for picture in shown}) > 1:
        figures["neighbours"] = draw.neighbour_figure(shown, vectors)
    if training is not None:
        figures["loss"] = draw.loss_figure(training)
    if scores is not None:
        figures["accuracy"] = draw.accuracy_figure(scores)
    return {name: save_figure(figure, folder, name) for name, figure in figures.items()}, method


def _metrics(story: Story, seed: int) -> dict[str, Any]:
    training = story.training
    record: dict[str, Any] = {
        "images": story.images,
        "simulated": story.simulated,
        "model": story.model,
        "seed": seed,
        "seconds": round(story.seconds, 1),
        "torch_threads": torch.get_num_threads(),
        "knn": story.scores.to_json() if story.scores else None,
        "training": None,
    }
    if training is not None:
        record["training"] = {
            "images": story.trained_on,
            "held_out_images": len(training.held_out),
            "seconds": round(training.seconds, 1),
            "steps": training.steps,
            "crops": training.crops,
            "crops_per_second": round(training.crops_per_second, 1),
            "precision": training.precision,
            "device": training.device,
            "constant_loss": training.constant_loss,
            "held_out_loss": [[round(p.seconds, 1), p.crops, p.loss] for p in training.held_out_loss],
        }
    return record
