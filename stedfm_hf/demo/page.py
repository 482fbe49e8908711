"""Report of the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stedfm_hf.reports import ReportFigure, Section, Table
from stedfm_hf.reports.html import write_page

FEW_STEPS = 500
NAMES = {
    "untrained": "the same network untrained",
    "log-spectrum": "a log-spectrum PCA",
    "histogram": "an intensity histogram",
}


def percent(value: float) -> str:
    """Format a fraction in whole percent, with a non-breaking space."""
    return f"{100 * value:.0f}\u00a0%"


def summarise(metrics: Mapping[str, Any]) -> list[str]:
    """Summarise the results, one sentence each, for the report and the terminal."""
    lines = []
    if (training := metrics["training"]) is not None and training["held_out_loss"] is not None:
        end, constant = training["held_out_loss"], training["constant_loss"]
        gap = f"{percent(1 - end / constant)} below" if end < constant else "not below"
        lines.append(
            f"After {training['seconds']:.0f} s of training, the loss on held-out crops is {end:.4f}, {gap} that of a "
            f"constant prediction ({constant:.4f})."
        )
        if training["steps"] < FEW_STEPS:
            lines.append(f"These were only {training['steps']} steps; a larger --max-seconds gives better results.")
    if (knn := metrics["knn"]) is not None:
        methods, network = knn["methods"], knn["methods"]["network"]
        low, high = network["interval"]
        lines.append(
            f"The nearest neighbours of its embeddings give {percent(network['accuracy'])} of the test images the "
            f"right label (95\u00a0% interval {percent(low)} to {percent(high)}); chance is "
            f"{percent(methods['chance']['accuracy'])}."
        )
        groups: dict[str, list[str]] = {}
        for key, name in NAMES.items():
            gain = knn["network_over"][key]
            word = "worse than" if gain["high"] < 0 else "not clearly different from"
            word = "better than" if gain["low"] > 0 else word
            groups.setdefault(word, []).append(f"{name} ({percent(methods[key]['accuracy'])})")
        verdicts = (f"{word} {' and '.join(members)}" for word, members in groups.items())
        lines.append(f"That is {'; '.join(verdicts)}.")
    return lines


def write_report(folder: Path, metrics: Mapping[str, Any], text: Sequence[str]) -> Path:
    """Write the report, one self-contained HTML file.

    Args:
        folder: Folder of the demo, with all figures.
        metrics: Content of `metrics.json`.
        text: Summary of the results, one sentence each.
    """
    facts = {"images embedded": str(metrics["images"])}
    sections = [Section("About this report", _about(metrics), _figure(folder / "figures/overview.png", ""))]
    if (training := metrics["training"]) is not None:
        facts["training crops"] = f"{training['crops']:,}".replace(",", "\u202f")
        curve = "Loss on training and held-out crops, compared with that of a constant prediction."
        reconstructions = "Held-out crops, not selected by their results. Grey patches are hidden from the network."
        figures = [
            *_figure(folder / "model/figures/curve.png", curve),
            *_figure(folder / "model/figures/reconstructions.png", reconstructions),
        ]
        sections.append(Section("Did it learn anything?", [_TRAINING], figures))
    if (knn := metrics["knn"]) is not None:
        facts["kNN accuracy"] = percent(knn["methods"]["network"]["accuracy"])
        names = {"network": "the network", **NAMES, "chance": "chance"}
        cells = [
            (names[key], percent(row["accuracy"]), " to ".join(map(percent, row["interval"])))
            for key, row in knn["methods"].items()
        ]
        table = Table(("embedding", "kNN accuracy", "95 % interval"), cells, "", 0)
        sections.append(Section("Is it better than simple features?", [*knn["notes"], _MORE], table=table))
    facts["whole demo"] = f"{metrics['seconds']:.0f} s"
    colours = " Colours show the labels, which the network never saw." if knn is not None else ""
    sections.append(Section("Map of the embeddings", (), _figure(folder / "figures/map.png", _MAP + colours)))
    if near := _figure(folder / "figures/neighbours.png", _NEIGHBOURS):
        sections.append(Section("Nearest neighbours", (), near))
    if training is not None:
        sections.append(Section("Use the model", _USE))
    if metrics["failed"]:
        skipped = Table(("file", "reason"), [*metrics["failed"].items()])
        sections.append(Section("Files that were skipped", table=skipped))
    subject = "simulated STED images" if metrics["simulated"] else "your images"
    return write_page(
        folder / "report.html",
        title=f"STED-FM demo: {subject}",
        lead=" ".join(text) or f"{metrics['images']} images embedded with {metrics['model']}.",
        facts=facts,
        sections=sections,
        footer="Made by `stedfm demo` of the package stedfm-hf. All numbers are in metrics.json.",
    )


_TRAINING = (
    "The network sees a quarter of the patches of a crop and predicts the pixels of the others. A network that has "
    "learned nothing predicts the mean pixel everywhere; a loss below that line shows that it has learned structure. "
    "Photon noise cannot be predicted, so the loss cannot approach zero."
)
_MORE = "The folder evaluation holds the report of `stedfm evaluate knn` with all methods, intervals and tests."
_MAP = (
    "Images that are close on the map have similar embeddings. Distances between groups and their shapes "
    "have no meaning."
)
_NEIGHBOURS = (
    "The most similar images first, by cosine similarity. A frame in another colour than the first is an error."
)
_USE = (
    'The folder model is a Hugging Face folder: AutoModel.from_pretrained("demo/model") loads the encoder, and '
    "`stedfm embed IMAGES --model demo/model` embeds your own images.",
)


def _about(metrics: Mapping[str, Any]) -> list[str]:
    """Describe the images and the network in two or three paragraphs, for simulated or own images."""
    if metrics["simulated"]:
        source = (
            "The images are simulated: clouds of emitters blurred by an effective STED point spread function, with "
            "Poisson noise, in four structures. Photons, background, blur and density come from the same ranges for "
            "all of them, and each image takes over the intensities of an image of a random structure, so that only "
            "shape distinguishes them. The results hold for these images and cannot be transferred to real ones."
        )
    else:
        source = "The images are your own files, read with their full bit depth and scaled once as a whole."
    if metrics["training"] is None:
        return [source, f"They are embedded with {metrics['model']}; nothing was trained."]
    return [
        source,
        "A small masked autoencoder (stedfm-vit-64-p8) was trained on crops of them without labels, and embedded them "
        "afterwards; every step is a command: simulate, build, pretrain, embed, evaluate knn. A minute or two shows "
        "that everything works, not what the published weights can do: those were trained on about a million crops of "
        "real images.",
    ]


def _figure(path: Path, caption: str) -> list[ReportFigure]:
    return [ReportFigure.from_png(path, caption or "Reconstructions and a map", caption)] if path.exists() else []
