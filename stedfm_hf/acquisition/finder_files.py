"""Folder of a finder: its arrays, and what it was fitted with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stedfm_hf.acquisition.examples import BACKGROUND, Examples
from stedfm_hf.acquisition.finders import ARRAYS, FINDERS, FOREST, LOWEST, Finder, TemplateFinder
from stedfm_hf.inference.loading import Encoder, load_recorded_encoder
from stedfm_hf.runs import UserError
from stedfm_hf.runs.files import read_json, write_json
from stedfm_hf.runs.options import REFERENCE

RECORD = "finder.json"
FILES = (RECORD, ARRAYS, FOREST)
"""Files of a finder."""
VERSION = 1
"""Version of the record."""
ACCEPTS_ALL = (
    "no patch is background, so that the finder accepts every patch; annotate an image that also shows background, or "
    "give a smallest score"
)


@dataclass(frozen=True, eq=False)
class StoredFinder:
    """Finder with the record of its fit.

    Attributes:
        finder: Finder.
        record: Content of `finder.json`: `method`, `classes`, `min_scores`, `protocol`, `model`, `weights_sha256`,
            `scaling`, `channel`, `validation` and counts.
    """

    finder: Finder
    record: dict[str, Any]

    @property
    def warning(self) -> str | None:
        """Sentence about a finder that accepts every patch, because no patch is background; or None."""
        accepts_all = isinstance(self.finder, TemplateFinder) and LOWEST in self.finder.min_scores
        return ACCEPTS_ALL if accepts_all and self.record["protocol"] != REFERENCE else None

    def save(self, folder: Path) -> None:
        """Write the finder into a folder."""
        self.finder.save(folder)
        about = {
            "version": VERSION,
            "method": self.finder.method,
            "classes": list(self.finder.classes),
            "min_scores": list(self.finder.min_scores),
            "warning": self.warning,
        }
        write_json(folder / RECORD, about | self.record)

    def load_encoder(self, model: str | Path | None = None, **how: str) -> Encoder:
        """Load the encoder that the finder was fitted with.

        Args:
            model: Folder or Hub id of the encoder; None looks where it was.
            how: Device, precision and backend, as for `stedfm_hf.inference.load_encoder`.

        Raises:
            UserError: If the encoder is not found, or has other weights.
        """
        record = self.record
        return load_recorded_encoder(
            model, record["given_model"] or record["model"], record["model"], record["weights_sha256"], "finder", **how
        )


def make_record(
    encoder: Encoder, examples: Examples, protocol: str, given_model: str | Path | None, scaling: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what `finder.json` records of the model and of the patches of a finder.

    Args:
        encoder: Encoder of the patches.
        examples: Annotated patches.
        protocol: Protocol of the fit.
        given_model: Folder or Hub id of the encoder as it was given.
        scaling: Scaling of intensities.
    """
    return {
        "protocol": protocol,
        "model": encoder.name,
        "given_model": None if given_model is None else str(given_model),
        "weights_sha256": encoder.weights_sha256,
        "scaling": dict(scaling),
        "patches": {
            name: int((examples.labels == number).sum())
            for number, name in enumerate(("background", *examples.classes), BACKGROUND)
        },
    }


def load_finder(folder: str | Path) -> StoredFinder:
    """Read a finder.

    Args:
        folder: Folder of `stedfm finder fit`.

    Raises:
        UserError: If the folder is not that of a finder, or a file is damaged.
    """
    path = Path(folder)
    record = read_record(path)
    kind = FINDERS[record["method"]]
    return StoredFinder(kind.load(path, tuple(record["classes"]), tuple(map(float, record["min_scores"]))), record)


def read_record(folder: Path) -> dict[str, Any]:
    """Read `finder.json`.

    Raises:
        UserError: If the folder is not that of a finder, or of a newer version.
    """
    if not folder.is_dir():
        raise UserError(f"finder {folder}: no such folder; give the output of `stedfm finder fit`")
    if not (folder / RECORD).is_file():
        raise UserError(f"finder {folder}: has no {RECORD}; give the output of `stedfm finder fit`")
    record = read_json(folder / RECORD)
    needed = ("method", "classes", "min_scores", "protocol", "model", "given_model", "weights_sha256", "scaling")
    if not isinstance(record, dict) or record.get("version") != VERSION:
        raise UserError(f"{folder / RECORD}: was not written by this version of stedfm-hf; fit the finder again")
    if missing := [name for name in needed if name not in record]:
        raise UserError(f"{folder / RECORD}: lacks {missing[0]}; fit the finder again")
    if record["method"] not in FINDERS:
        raise UserError(f"{folder / RECORD}: the method {record['method']!r} is unknown; fit the finder again")
    return record
