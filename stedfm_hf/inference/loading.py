"""Loading a model for inference: device, precision, processor and the fingerprint of the weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
from transformers.utils import cached_file

from stedfm_hf.inference.packaged import PACKAGED, packaged_folder
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification, StedFmModel, StedFmPreTrainedModel
from stedfm_hf.runs import UserError, sha256_file

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Loaded:
    """A model ready for use.

    Attributes:
        model: On its device, in its precision, in evaluation mode.
        processor: The image processor of its folder.
        name: Hub id, or the name of the folder; of a packaged encoder the id, with what must be said of it.
        weights_sha256: Of `model.safetensors` as it lies in the folder, whatever precision it runs in.
    """

    model: StedFmPreTrainedModel
    processor: StedFmImageProcessor
    name: str
    weights_sha256: str


@dataclass(frozen=True)
class Encoder(Loaded):
    """An encoder ready for use, see `Loaded`."""

    model: StedFmModel


@dataclass(frozen=True)
class Classifier(Loaded):
    """A classifier (or a model of several labels, or of values) ready for use, see `Loaded`."""

    model: StedFmForImageClassification


def load_encoder(model: str | Path, *, device: str = "auto", precision: str = "float32") -> Encoder:
    """Load the encoder of a folder or Hub repository.

    Args:
        model: A folder as `save_pretrained` or `stedfm convert` write it, a Hub id, or `"demo"`: a small encoder that
            comes with the package, trained on simulated images only.
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"` or `"mps"`; `"cuda:1"` and the like too.
        precision: `"float32"` (the same vectors on every machine), `"bfloat16"`, `"float16"`, or `"auto"`: bfloat16
            where the hardware computes it fast, else float32.

    Raises:
        UserError: If the model, the device or the precision is not to be had; says how to mend it.
    """
    place, dtype = _where(device, precision)
    source = _source(model)
    try:
        network = AutoModel.from_pretrained(source, dtype=dtype)
        facts = _facts(model, source)
    except (OSError, ValueError) as error:
        raise _cannot_load(source, error, "give a folder written by `stedfm convert`, a Hub id or demo") from error
    if not isinstance(network, StedFmModel) or not isinstance(facts["processor"], StedFmImageProcessor):
        raise UserError(f"model {source}: is a {type(network).__name__}, not a STED-FM model")
    return Encoder(network.to(place).eval(), **facts)


def load_classifier(model: str | Path, *, device: str = "auto", precision: str = "float32") -> Classifier:
    """Load a model with a classification head from a folder or Hub repository.

    Args:
        model: A folder as `stedfm finetune classification` or `save_pretrained` write it, or a Hub id.
        device: As for `load_encoder`.
        precision: As for `load_encoder`.

    Raises:
        UserError: Also for a model without such a head, which would be drawn at random otherwise.
    """
    place, dtype = _where(device, precision)
    source = _source(model)
    try:
        # Asked first, for transformers would draw a head at random and print a page about it.
        architectures = AutoConfig.from_pretrained(source).architectures or []
        network, loading = None, {}
        if any(name.endswith("ForImageClassification") for name in architectures):
            network, loading = AutoModelForImageClassification.from_pretrained(
                source, dtype=dtype, output_loading_info=True
            )
        facts = _facts(model, source)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: weights of other sizes than configured
        raise _cannot_load(
            source, error, "give a folder written by `stedfm finetune classification` or a Hub id"
        ) from error
    if network is None:
        held = ", ".join(architectures) or "no known model"
        raise UserError(f"model {model}: has no classifier, it is a {held}; train one: stedfm finetune classification")
    if loading["missing_keys"]:
        raise UserError(f"model {source}: weights are missing ({', '.join(sorted(loading['missing_keys'])[:3])}, ...)")
    if not isinstance(network, StedFmForImageClassification) or not isinstance(
        facts["processor"], StedFmImageProcessor
    ):
        raise UserError(f"model {source}: is a {type(network).__name__}, not a STED-FM model")
    return Classifier(network.to(place).eval(), **facts)


def _where(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    place = choose_device(device)
    return place, choose_precision(precision, place)


def _source(model: str | Path) -> str:
    """What `from_pretrained` takes for what a user named, checked as far as it can be without opening it."""
    source = str(packaged_folder(str(model)) or model)
    if source.lower() in PACKAGED and not Path(source).exists():
        raise UserError(f"model {source}: did you mean {source.lower()}?")
    if Path(source).is_file():
        raise UserError(f"model {source}: is a file; if it is a checkpoint: stedfm convert {source} FOLDER")
    if source.startswith((".", "/", "~")) and not Path(source).exists():
        raise UserError(f"model {source}: no such folder; check the path")
    return source


def _facts(model: str | Path, source: str) -> dict[str, Any]:
    """What stands beside the network: processor, name and checksum."""
    if str(model) in PACKAGED:
        name = f"{model} ({PACKAGED[str(model)]})"
    else:
        name = Path(source).resolve().name if Path(source).exists() else source
    return {
        "processor": AutoImageProcessor.from_pretrained(source),
        "name": name,
        "weights_sha256": weights_sha256(source),
    }


def _cannot_load(source: str, error: Exception, mend: str) -> UserError:
    return UserError(f"model {source}: cannot be loaded ({' '.join(str(error).split())}); {mend}")


def choose_device(device: str) -> torch.device:
    """Resolve `"auto"` and check that the device is there.

    Raises:
        UserError: If it is not.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next((name for name in ("cuda", "mps") if available[name]), "cpu"))
    kind = device.partition(":")[0]
    if kind not in available:
        raise UserError(f"device {device!r} is unknown; choose {', '.join(DEVICES)}")
    if not available[kind]:
        raise UserError(f"device {device!r} is not available here; use --device cpu, or see `stedfm doctor`")
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Resolve `"auto"` to the fastest precision whose vectors stay at cosine 0.9999 or more to those of float32.

    Raises:
        UserError: If the precision is unknown.
    """
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; choose auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices itself, which makes it two to three times as fast."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def weights_sha256(source: str) -> str:
    """Return the SHA-256 of the weights of a folder or Hub id; of the list of shards where there are several."""
    single = cached_file(source, "model.safetensors", _raise_exceptions_for_missing_entries=False)
    if single is not None:
        return sha256_file(single)
    index = cached_file(source, "model.safetensors.index.json")
    shards = sorted(Path(str(index)).parent.glob("model-*.safetensors"))
    listed = "".join(f"{sha256_file(shard)}  {shard.name}\n" for shard in shards)
    return hashlib.sha256(listed.encode()).hexdigest()
