"""Fabricated files with the layouts of the authors' sets, and functions that read the imported rows."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from stedfm_hf.data.assembly.output import DatasetSummary
from stedfm_hf.data.repository.decoding import to_unit_range
from tests.data.archives.fabricated import npz, rows_of, write_tar

OPTIM = ("actin", "tubulin", "CaMKII_Neuron", "PSD95_Neuron")
NAS = ("Block", "0MgGlyBic", "GluGly", "48hTTX")
PEROXISOME = ("4hMeOH", "6hMeOH", "8hMeOH", "16hMeOH")
PROTOCOLS = {False: "default", True: "reference"}
DL_SIM = ("adhesion", "factin", "microtubule", "mitochondrial")


def random_image(seed: int, *shape: int, dtype: str = "uint16") -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.random(shape or (224, 224)).astype(dtype)
    return rng.integers(7, 900, shape or (224, 224)).astype(dtype)


def minmax(pixels: np.ndarray) -> np.ndarray:
    whole = pixels.astype(np.float64)
    scaled: np.ndarray = (whole - whole.min()) / (whole.max() - whole.min())
    return scaled


def padded(pixels: np.ndarray) -> np.ndarray:
    return np.pad(pixels, [(0, 224 - side) for side in pixels.shape])


def write_npz(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, pixels)  # as arr_0


def write_tiff(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {"axes": "CYX"} if pixels.ndim == 3 else {}
    tifffile.imwrite(path, pixels, imagej=True, metadata=axes)


def write_optim(root: Path, folders: Sequence[str] = ("optim_train", "optim_valid", "optim-data")) -> None:
    """Write two images of each class to each folder, and one of low quality."""
    for number, folder in enumerate(folders):
        for place, label in enumerate(OPTIM):
            for n, score in enumerate(("0.70", "0.95", "0.69")):
                pixels = random_image(100 * number + 10 * place + n, dtype="float32")
                write_npz(root / folder / label / "day 1" / f"image-{n}-{score}.npz", pixels)


def nas_member(condition: str, number: int, folder: str, *, seed: int | None = None) -> tuple[str, bytes]:
    image = random_image(number if seed is None else seed, dtype="float32")
    buffer = io.BytesIO()
    metadata = {"condition": condition, "protein": "PSD95", "img_folder": folder}
    np.savez(buffer, image=image, mask=image > 0.5, metadata=np.array(metadata, dtype=object))
    return f"{condition}-PSD95-{number}", buffer.getvalue()


def write_nas(root: Path, split: str, counts: Sequence[int], first: int, *more: tuple[str, bytes]) -> Path:
    root.mkdir(exist_ok=True)
    members, number = list[tuple[str, bytes]](), first
    for condition, count in zip(NAS, counts, strict=True):
        for _ in range(count):
            members.append(nas_member(condition, number, f"/home/zoe/{split}/{number}.msr"))
            number += 1
    return write_tar(root / f"NAS_PSD95_{split}_v2.tar", [*members, *more])


def write_lists(root: Path, name: str, **lists: Sequence[str]) -> None:
    """Write text lists like those of the authors: paths that look absolute, below their root folder."""
    for split, paths in lists.items():
        lines = "".join(f"/evaluation-data/{root.name}/{path}\n" for path in paths)
        (root / f"{name}-{split}.txt").write_text(lines, encoding="utf-8")


def unit(row: dict[str, Any]) -> np.ndarray:
    """Return the pixels of a row, scaled to [0, 1]."""
    limits = torch.tensor([row["intensity_low"], row["intensity_high"]])
    return to_unit_range(torch.from_numpy(row["pixels"].copy())[None], limits)[0].numpy()


def counted(summary: DatasetSummary) -> dict[str, dict[str, int]]:
    """Count rows by split and class."""
    found: dict[str, Counter[str]] = {}
    for row in rows_of(summary.output):
        label = summary.labels[row["label"]] if row["label"] is not None else "none"
        found.setdefault(row["split"], Counter())[label] += 1
    return {split: dict(counts) for split, counts in found.items()}


def by_source(summary: DatasetSummary) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(summary.output):
        rows.setdefault(row["source"], []).append(row)
    return rows


def shared_sources(summary: DatasetSummary) -> list[str]:
    """Return the sources that are in more than one split."""
    return [source for source, rows in by_source(summary).items() if len({row["split"] for row in rows}) > 1]


__all__ = ["npz", "rows_of", "write_tar"]
