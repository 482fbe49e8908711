"""`stedfm convert`: convert a checkpoint of the reference to a folder for transformers and the Hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stedfm_hf.runs import Manifest, UserError, manifest_path, sha256_file, some_of
from stedfm_hf.runs.download import fetch, is_url, public_url
from stedfm_hf.runs.files import sibling_folder
from stedfm_hf.runs.output import check_output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.wording import nearest
from stedfm_hf.weights.archives import CHECKPOINT_SUFFIXES
from stedfm_hf.weights.folder_names import MODEL_FILES, PIPELINE_FILES, PIPELINE_KIND
from stedfm_hf.weights.official import OFFICIAL_WEIGHTS, OfficialWeights, find_official, is_official_name
from stedfm_hf.weights.settings import ConvertSettings

COMMAND = "convert"


@dataclass(frozen=True)
class Conversion(OutputResult):
    """Result of `convert`: the folder of a model; its manifest records the source."""

    @property
    def architecture(self) -> str:
        """Name of the architecture, derived from the shapes of the weights."""
        return str(self.manifest.options["architecture"])

    @property
    def kind(self) -> str:
        """Kind: `pretraining` (masked autoencoder), `classification`, `segmentation` or `generation` (a pipeline)."""
        return str(self.manifest.options["kind"])

    @property
    def dropped(self) -> dict[str, str]:
        """Keys of the source that were not converted, with the reason."""
        return dict(self.manifest.options["dropped"])

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights: `model.safetensors`, or those of the denoising network of a pipeline."""
        return str(self.manifest.options["weights_sha256"])

    def summary(self) -> str:
        """Describe what was converted, dropped and not executed."""
        lines = [f"{self.architecture} ({self.kind}) written to {self.output}"]
        lines.append(f"sha256 of the weights: {self.weights_sha256}")
        reasons: dict[str, list[str]] = {}
        for key, why in self.dropped.items():
            reasons.setdefault(why, []).append(key)
        lines += [f"left out: {some_of(keys)}: {why}" for why, keys in reasons.items()]
        if placeholders := self.manifest.options["not_rebuilt"]:
            lines.append(f"named in the file and not executed: {', '.join(placeholders)}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, including the facts about the model in the manifest."""
        return super().to_json() | self.manifest.options


@takes_settings(ConvertSettings)
def convert(settings: ConvertSettings) -> Conversion:
    """Convert a checkpoint of the reference to a folder for `from_pretrained` and the Hub.

    The folder holds the weights, the configuration, the image processor, the code files for `trust_remote_code`, a
    model card, and a manifest with checksums and versions. That of a diffusion model is a pipeline for
    `StedFmGenerationPipeline.from_pretrained`. The files are written to a temporary folder and moved: if
    the conversion fails, the output is not changed. Nothing in the source is executed. Other files in the output are
    kept.

    The source is the name of official weights, a zip archive, a `.pth`, `.pt` or `.ckpt` file of the pretraining
    (Lightning), the fine-tuning or the diffusion model of the reference, a `.safetensors` file with the keys of the
    reference, or the URL of one of these.

    Raises:
        UserError: The source is missing, damaged, unsafe or not a STED-FM checkpoint, or the output holds other files.

    Example:
        >>> convert("MAE_SMALL_STED", "stedfm-vit-small").architecture  # doctest: +SKIP
        'stedfm-vit-small'
    """
    output = Path(settings.output)
    check_output(output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    name, path, official = _locate(str(settings.source))
    resolved = {"source": name, "source_sha256": sha256_file(path)}
    opened = partial(open_output, output, COMMAND, settings, resolved=resolved)
    if not settings.overwrite:
        with opened(results=_results(_earlier_kind(output)), writes=False) as earlier:
            if earlier.finished:
                return Conversion(output, earlier.manifest)
    from stedfm_hf.weights.model_folder import write_model_folder  # imports torch and transformers

    with sibling_folder(output) as folder:
        facts = write_model_folder(
            folder,
            path,
            name=name,
            title=output.resolve().name,
            sha256=resolved["source_sha256"],
            official=official,
        )
        with opened(results=_results(facts["kind"]), overwrite=settings.overwrite, options=facts) as written:
            for file in [path for path in folder.rglob("*") if path.is_file()]:
                target = output / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    return Conversion(output, written.manifest)


def _results(kind: Any) -> tuple[str, ...]:
    """Return the files without which a conversion of a kind is not complete."""
    return PIPELINE_FILES if kind == PIPELINE_KIND else MODEL_FILES


def _earlier_kind(output: Path) -> Any:
    """Return the kind of the model that was converted into a folder, or None."""
    record = manifest_path(output, folder=True)
    return Manifest.load(record).options.get("kind") if record.is_file() else None


def is_converted(folder: Path) -> bool:
    """Return whether a folder holds a complete conversion."""
    record = manifest_path(folder, folder=True)
    return record.is_file() and Manifest.load(record).ended is not None


def _locate(source: str) -> tuple[str, Path, OfficialWeights | None]:
    """Return the name of the source for the record, its local file, and the facts about official weights."""
    path = Path(source).expanduser()
    if path.is_file():
        return path.name, path, None
    if is_url(source):
        return public_url(source), fetch(source), None
    if path.is_dir():
        raise UserError(f"{source}: is a folder; name the checkpoint file in it ({', '.join(CHECKPOINT_SUFFIXES)})")
    if is_official_name(source):
        official = find_official(source)
        assert official.url is not None  # find_official refuses weights without a public file
        return official.name, fetch(official.url, expected_sha256=official.sha256), official
    names = [name for name, weights in OFFICIAL_WEIGHTS.items() if weights.url]
    suggestion = nearest(path.stem.upper(), names)
    raise UserError(
        f"{source}: no such file{suggestion or '.'} Give a checkpoint or zip file, the URL of one, or a "
        f"name of official weights ({', '.join(names)})"
    )
