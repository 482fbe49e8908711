"""`stedfm finder fit`: a finder from annotated images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stedfm_hf.acquisition.settings import FitFinderSettings
from stedfm_hf.runs import UserError, counted
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.weights.models import find_model


@dataclass(frozen=True)
class FinderResult(OutputResult):
    """Result of `fit_finder`: the folder of the finder.

    Attributes:
        record: Content of `finder.json`.
    """

    record: dict[str, Any]

    def summary(self) -> str:
        """Return what the finder was fitted to, and how well it finds patches of other images."""
        record = self.record
        patches = ", ".join(f"{name} {count}" for name, count in record["patches"].items())
        lines = [
            f"{self.output}: {record['method']} from {counted(record['images'], 'image')}; patches with all rotations "
            f"and tiles: {patches}"
        ]
        if (found := record["validation"]) is None:
            lines.append("average precision: not measured; annotate all classes in two or more images")
        else:
            values = ", ".join(
                f"{name} {value:.2f} (chance {found['fraction_of_patches'][name]:.2f})"
                for name, value in found["average_precision"].items()
            )
            lines.append(f"average precision in images that were left out: {values}")
        if (warning := record.get("warning")) is not None:
            lines.append(f"warning: {warning}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the record of the finder."""
        return super().to_json() | {"finder": self.record}


@takes_settings(FitFinderSettings)
def fit_finder(settings: FitFinderSettings) -> FinderResult:
    r"""Fit a finder of structures to annotated images or to clicks.

    The images are scaled and embedded in overlapping tiles, unrotated and rotated. A patch belongs to an annotated
    object if the object covers it at least half as much as the patch that it covers most. Patches that no class
    touches are background; the others are not used.

    With at least two source images that show every class and the background, the average precision of the patches is
    measured in images that the finder was not fitted to (up to 5 folds of source images). The finder itself is fitted
    to all images.

    The folder holds `finder.json`, `finder.safetensors` or `forest.skops`, and `manifest.json`. No pickle is written
    or read.

    Returns:
        Folder, manifest and the content of `finder.json`.

    Raises:
        UserError: For wrong arguments, images or annotations that cannot be read, a class without a patch, or an
            output made with other settings.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from stedfm_hf import StedFmConfig, StedFmModel
        >>> folder = Path(tempfile.mkdtemp())
        >>> StedFmModel(StedFmConfig(num_hidden_layers=1)).save_pretrained(folder / "model")
        >>> (folder / "images").mkdir()
        >>> np.save(folder / "images" / "cell.npy", np.random.default_rng(0).random((64, 64)))
        >>> _ = (folder / "clicks.csv").write_text("path,y_px,x_px,class\ncell.npy,20,40,ring")
        >>> result = fit_finder(
        ...     folder / "images", folder / "finder", clicks=folder / "clicks.csv", model=folder / "model"
        ... )
        >>> result.record["classes"]
        ['ring']
    """
    folder = Path(settings.output)
    check_output(folder, "finder fit", is_folder=True, overwrite=settings.overwrite)
    if not Path(settings.dataset).exists() and str(settings.dataset).count("/") != 1:
        raise UserError(f"{settings.dataset}: no such folder; give a folder of images")
    if settings.clicks is not None and not Path(settings.clicks).is_file():
        raise UserError(f"--clicks {settings.clicks}: no such file; check the path")
    model = find_model(settings.model)

    # Errors up to here are reported at once: these modules import torch, which takes seconds.
    from stedfm_hf.acquisition.fitting_run import run_fit

    output, record = run_fit(settings, folder, model)
    return FinderResult(folder, output.manifest, record)
