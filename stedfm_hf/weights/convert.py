"""From a checkpoint of the reference to a folder in the layout of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from torch import nn

from stedfm_hf.cards import CardFacts, render_model_card
from stedfm_hf.runs.download import fetch, is_url, public_url
from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import sha256_file, write_json
from stedfm_hf.runs.manifest import versions
from stedfm_hf.weights.archives import CHECKPOINT_SUFFIXES, extract_checkpoint, is_checkpoint_archive
from stedfm_hf.weights.checkpoints import Checkpoint, read_checkpoint
from stedfm_hf.weights.folders import RECORD_NAME, new_folder, refuse_occupied
from stedfm_hf.weights.official import OfficialWeights, find_official, is_official_name
from stedfm_hf.weights.reference import Kind, Translation, find_state_dict, translate

__all__ = ["ConversionReport", "convert"]


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        architecture: Name of the architecture, found from the shapes.
        kind: `pretraining` (the whole masked autoencoder) or `classification`.
        dest: The folder that was written.
        dropped: Keys of the source that were left behind, with the reason.
        weights_sha256: SHA-256 of `model.safetensors`.
        source: What was converted: the official name, the URL or the file name.
        source_sha256: SHA-256 of the source file.
        member: The file taken out of a zip archive, or None.
        placeholders: Classes and functions named in the source; nothing of theirs was run.
    """

    architecture: str
    kind: Kind
    dest: Path
    dropped: dict[str, str]
    weights_sha256: str
    source: str
    source_sha256: str
    member: str | None = None
    placeholders: tuple[str, ...] = ()


def convert(source: str | Path, dest: str | Path, *, overwrite: bool = False) -> ConversionReport:
    """Converts a checkpoint of the reference into a folder that `from_pretrained` and the Hub take.

    The folder is complete: weights, configuration, image processor, the code files for `trust_remote_code`, a model
    card, and `conversion.json` with checksums and versions. It is written aside and renamed, so that it is whole or
    not there. Nothing in the source is run.

    Args:
        source: A name of official weights (`MAE_SMALL_STED`), a zip archive or a `.pth`, `.pt`, `.ckpt` file of the
            reference's pretraining (Lightning) or classifier fine-tuning, a `.safetensors` file with the reference's
            keys, or the http(s) address of one of these.
        dest: The folder to write.
        overwrite: Whether `dest` may be an earlier conversion, which is then replaced; other files in it are kept.

    Raises:
        UserError: The source cannot be had, is damaged or hostile, or is another model; `dest` is occupied.

    Example:
        >>> convert("MAE_SMALL_STED", "stedfm-vit-small").architecture  # doctest: +SKIP
        'stedfm-vit-small'
    """
    dest = Path(dest)
    refuse_occupied(dest, overwrite)
    name, path, official = _locate(str(source))
    with new_folder(dest) as folder:
        checkpoint, member = _open(path, folder.parent)
        shown = name if member is None else f"{name} ({member})"
        translation = translate(find_state_dict(checkpoint, shown), shown)
        placeholders = checkpoint.placeholders
        del checkpoint  # it may be a window on a temporary file, which Windows does not delete while it is open
        model = translation.model()
        try:
            model.save_pretrained(folder)
        except OSError as error:
            raise UserError(
                f"{dest}: cannot be written ({error}); free some space or choose another folder"
            ) from error
        report = ConversionReport(
            architecture=translation.architecture,
            kind=translation.kind,
            dest=dest,
            dropped=translation.dropped,
            weights_sha256=sha256_file(folder / "model.safetensors"),
            source=name,
            source_sha256=sha256_file(path),
            member=member,
            placeholders=placeholders,
        )
        card = render_model_card(_card_facts(report, translation, model, official))
        (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
        _write_record(report, folder)
    return report


def _locate(source: str) -> tuple[str, Path, OfficialWeights | None]:
    """Name to record, local file, and what is known of it."""
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
    raise UserError(
        f"{source}: no such file; give a checkpoint or zip file, the URL of one, or a name of official weights "
        "(MAE_SMALL_STED)"
    )


def _open(path: Path, work: Path) -> tuple[Checkpoint, str | None]:
    """The dictionary in the file, and the member of the archive it was in."""
    if is_checkpoint_archive(path):
        unpacked = work / "source.pth"
        member = extract_checkpoint(path, unpacked)
        try:
            return read_checkpoint(unpacked), member
        except UserError as error:
            raise UserError(str(error).replace(str(unpacked), f"{path} ({member})")) from error
    if path.suffix.lower() == ".safetensors":
        try:
            return Checkpoint(load_file(path)), None
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{path}: is no readable safetensors file ({error})") from error
    return read_checkpoint(path), None


def _card_facts(
    report: ConversionReport, translation: Translation, model: nn.Module, official: OfficialWeights | None
) -> CardFacts:
    encoder = _count(model.get_submodule("stedfm"))
    rest = "classification head" if report.kind == "classification" else "decoder"
    config = translation.config
    return CardFacts(
        name=report.dest.resolve().name,
        architecture=report.architecture,
        kind=report.kind,
        config=config.to_dict(),
        parameters={"encoder": encoder, rest: _count(model) - encoder},
        source=report.source if official is None else str(official.url),
        source_sha256=report.source_sha256,
        dropped=report.dropped,
        weights_name=official.name if official else None,
        corpus=official.corpus if official else None,
        training=official.training if official else (),
        licence=official.licence if official else None,
        labels=tuple((config.id2label or {}).values()) if report.kind != "pretraining" else (),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _write_record(report: ConversionReport, folder: Path) -> None:
    record: Mapping[str, Any] = {
        "source": report.source,
        "source_sha256": report.source_sha256,
        "member": report.member,
        "architecture": report.architecture,
        "kind": report.kind,
        "weights_sha256": report.weights_sha256,
        "dropped": report.dropped,
        "not_rebuilt": list(report.placeholders),
        "versions": {**versions(), "safetensors": safetensors.__version__},
        "files": sorted([path.name for path in folder.iterdir()] + [RECORD_NAME]),
    }
    write_json(folder / RECORD_NAME, record)
