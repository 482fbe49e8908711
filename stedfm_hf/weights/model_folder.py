"""Write the folder of a converted model (the part of the conversion that needs torch)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import nn

from stedfm_hf.cards import ConvertedCardFacts, render_converted_card
from stedfm_hf.cards.converted_pipeline import ConvertedPipelineCardFacts, render_converted_pipeline_card
from stedfm_hf.runs import UserError, sha256_file
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.weights.archives import extract_checkpoint, is_checkpoint_archive
from stedfm_hf.weights.checkpoints import Checkpoint, read_checkpoint
from stedfm_hf.weights.folder_names import PIPELINE_KIND, UNET_WEIGHTS
from stedfm_hf.weights.official import OfficialWeights
from stedfm_hf.weights.reference import Translation, find_state_dict, translate


def write_model_folder(
    folder: Path, source: Path, *, name: str, title: str, sha256: str, official: OfficialWeights | None
) -> dict[str, Any]:
    """Write weights, configuration, image processor, code and card of a model or a pipeline.

    Args:
        folder: New folder; temporary files are written to its parent.
        source: Checkpoint of the reference, or archive that holds one.
        name: Name of the source.
        title: Name of the model.
        sha256: SHA-256 of the source.
        official: Facts about official weights, or None.

    Returns:
        Facts about the conversion, for the manifest.

    Raises:
        UserError: If the source is damaged or unsafe, or another model.
    """
    checkpoint, member = _open(source, folder.parent)
    shown = name if member is None else f"{name} ({member})"
    state, placeholders = find_state_dict(checkpoint, shown), list(checkpoint.placeholders)
    # Each may be a memory-mapped temporary file, which Windows does not delete while it is open.
    del checkpoint
    if any(key.startswith("model.") for key in state):
        facts = _write_pipeline(folder, state, shown, name=name, title=title, sha256=sha256)
        return facts | {"member": member, "not_rebuilt": placeholders}
    translation = translate(state, shown)
    del state
    model = translation.model()
    with quiet_transformers():
        model.save_pretrained(folder)
    card = _card_facts(translation, model, name=name, title=title, sha256=sha256, official=official)
    (folder / "README.md").write_text(render_converted_card(card), encoding="utf-8", newline="\n")
    return {
        "architecture": translation.architecture,
        "kind": translation.kind,
        "dropped": translation.dropped,
        "weights_sha256": sha256_file(folder / "model.safetensors"),
        "member": member,
        "not_rebuilt": placeholders,
    }


def _write_pipeline(
    folder: Path, state: Mapping[str, torch.Tensor], shown: str, *, name: str, title: str, sha256: str
) -> dict[str, Any]:
    """Write the folder of a diffusion model, and return facts about the conversion."""
    # Imported here, because diffusers needs seconds and other models do not need it.
    from stedfm_hf.weights.reference_pipeline import translate_pipeline

    translation = translate_pipeline(state, shown)
    pipeline = translation.pipeline()
    with quiet_transformers():
        pipeline.save_pretrained(folder)
    unet, encoder = translation.unet, translation.encoder
    parameters = {"denoising network": _count(pipeline.unet)}
    facts = ConvertedPipelineCardFacts(
        name=title,
        encoder=None if encoder is None else encoder.architecture,
        image_size=pipeline.unet.config.sample_size,
        parameters=parameters if encoder is None else parameters | {"encoder": _count(pipeline.encoder)},
        source=name,
        source_sha256=sha256,
        classes=tuple((translation.id2label or {}).values()),
        num_classes=unet.config.get("num_classes"),
        condition_dim=unet.config["condition_dim"],
        dropped=translation.dropped,
    )
    (folder / "README.md").write_text(render_converted_pipeline_card(facts), encoding="utf-8", newline="\n")
    conditions = "classes" if encoder is None and facts.num_classes else "embeddings"
    return {
        "architecture": f"stedfm-unet for {conditions}",
        "kind": PIPELINE_KIND,
        "dropped": translation.dropped,
        "weights_sha256": sha256_file(folder / UNET_WEIGHTS),
    }


def _open(path: Path, work: Path) -> tuple[Checkpoint, str | None]:
    """Read the dictionary in the file, and return it with the name of its member in the archive."""
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
            raise UserError(f"{path}: is not a readable safetensors file ({error})") from error
    return read_checkpoint(path), None


def _card_facts(
    translation: Translation, model: nn.Module, *, name: str, title: str, sha256: str, official: OfficialWeights | None
) -> ConvertedCardFacts:
    """Collect what the model card reports; `official` is None for weights that are not published by the authors."""
    encoder, config = _count(model.get_submodule("stedfm")), translation.config
    rest = "classification head" if translation.kind == "classification" else "decoder"
    return ConvertedCardFacts(
        name=title,
        architecture=translation.architecture,
        kind=translation.kind,
        config=config.to_dict(),
        parameters={"encoder": encoder, rest: _count(model) - encoder},
        source=name if official is None else str(official.url),
        source_sha256=sha256,
        dropped=translation.dropped,
        weights_name=official.name if official else None,
        corpus=official.corpus if official else None,
        training=official.training if official else (),
        licence=official.licence if official else None,
        licence_text=official.licence_note if official else None,
        labels=tuple((config.id2label or {}).values()) if translation.kind != "pretraining" else (),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
