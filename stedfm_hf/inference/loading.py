"""Load models for inference: device, precision, processor and checksum of the weights."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    AutoModelForSemanticSegmentation,
)
from transformers.utils import cached_file

from stedfm_hf.exports.kinds import CLASSES, Kind
from stedfm_hf.exports.runtime_models import RuntimeModel
from stedfm_hf.inference.backends import Request, refuse_export
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification, StedFmModel, StedFmPreTrainedModel
from stedfm_hf.runs import UserError, sha256_file
from stedfm_hf.runs.options import DEVICES
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.runs.worker_process import device_or, worker_number
from stedfm_hf.weights.damage import explained, refuse_missing
from stedfm_hf.weights.models import HEADS, ModelSource, check_head, find_model

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO_CLASSES: dict[Kind, Any] = {
    "pretraining": AutoModelForPreTraining,
    "classifier": AutoModelForImageClassification,
    "segmenter": AutoModelForSemanticSegmentation,
}
"""Auto class of transformers that loads a model with a head, by kind."""


@dataclass(frozen=True)
class Loading:
    """How a model is loaded, so that worker processes load it themselves.

    Attributes:
        function: Function that loads it, such as `load_encoder`.
        source: Location of the model.
        device: Device; the process may have its own (`runs.worker_process`).
        precision: Precision.
        backend: Library that computes it.
    """

    function: Callable[..., Loaded]
    source: ModelSource
    device: str
    precision: str
    backend: str = "torch"


@lru_cache(maxsize=2)
def _load_once(loading: Loading) -> Loaded:
    """Load a model, or return the one that this process has loaded before."""
    return loading.function(
        loading.source, device=loading.device, precision=loading.precision, backend=loading.backend
    )


@dataclass(frozen=True)
class Loaded:
    """Model with its processor, ready for inference.

    Attributes:
        model: Model on its device, in its precision, in evaluation mode. With another backend than torch it is a
            `RuntimeModel`, which has the calls that inference uses, but no weights.
        processor: Image processor of its folder.
        name: Hub id or name of the folder; for a packaged encoder the id with a note on its training data.
        weights_sha256: SHA-256 of `model.safetensors` in the folder.
        loading: How another process loads it; None if it cannot.
    """

    model: StedFmPreTrainedModel
    processor: StedFmImageProcessor
    name: str
    weights_sha256: str
    loading: Loading | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process loads the model, instead of its weights."""
        if self.loading is None:
            raise TypeError(f"the model {self.name} is in memory only; another process cannot load it")
        return _load_once, (replace(self.loading, precision=self.precision),)

    @property
    def precision(self) -> str:
        """Type in which the model computes, such as `float32`."""
        model: Any = self.model
        return model.precision if isinstance(model, RuntimeModel) else str(model.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Encoder(Loaded):
    """Encoder ready for inference (see `Loaded`)."""

    model: StedFmModel


@dataclass(frozen=True)
class Classifier(Loaded):
    """Classifier or regression model ready for inference (see `Loaded`)."""

    model: StedFmForImageClassification


def names_of(loaded: Loaded, noun: str) -> tuple[str, ...]:
    """Return the names of the classes of a head, in order; refuse missing and repeated names."""
    config = loaded.model.config
    if sorted(config.id2label) != list(range(config.num_labels)):
        raise UserError(
            f"model {loaded.name}: id2label in its config.json names the labels {sorted(config.id2label)}; "
            f"it must name 0 to {config.num_labels - 1}"
        )
    names = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"model {loaded.name}: more than one of the {noun} is named {twice[0]!r}; "
            "give each a different name in id2label of its config.json"
        )
    return names


@quiet_transformers()
def load_encoder(
    model: str | Path | ModelSource | None = None,
    *,
    device: str = "auto",
    precision: str = "float32",
    backend: str = "torch",
) -> Encoder:
    """Load the encoder of a folder or Hub repository.

    Args:
        model: Folder written by `save_pretrained` or `stedfm convert`, Hub id, or `"demo"`, a small packaged encoder
            trained on simulated images only. None loads the official small model.
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"`.
        precision: `"float32"` (the default), `"bfloat16"`, `"float16"`, or `"auto"`: bfloat16
            if the hardware computes it fast, else float32. The backend onnx has float32 and `"int8"`, openvino float32
            and bfloat16.
        backend: `"torch"`, `"onnx"` (onnxruntime) or `"openvino"`. The latter two run on the CPU. They take the folder
            of an export (`stedfm export`), or export the model into the cache when it is first used.

    Raises:
        UserError: If the model, the device, the precision or the backend is not available.
    """
    source = find_model(model)
    loading = Loading(load_encoder, source, device, precision, backend)
    if backend != "torch":
        return Encoder(**load_exported(source, "encoder", backend, device, precision), loading=loading)
    target_device, dtype = _device_and_dtype(device, precision)
    refuse_export(source)
    advice = "give a folder written by `stedfm convert`, a Hub id or demo"
    with explained(source.given, source.location, advice):
        network, report = AutoModel.from_pretrained(source.location, dtype=dtype, output_loading_info=True)
        facts = _facts(source)
    refuse_missing(source.given, report["missing_keys"], advice)
    _check_model_class(source, network, StedFmModel, facts)
    return Encoder(network.to(target_device).eval(), **facts, loading=loading)


def load_recorded_encoder(
    model: str | Path | None, record: str, name: str, weights_sha256: str, what: str, **how: str
) -> Encoder:
    """Load the encoder that an earlier result was made with, and check its weights.

    Args:
        model: Folder or Hub id of the encoder; None looks where it was.
        record: Where the encoder was: folder, Hub id or `demo`.
        name: Name of the encoder.
        weights_sha256: SHA-256 of its weights.
        what: What was made with it, for messages.
        how: Device, precision and backend, as for `load_encoder`.

    Raises:
        UserError: If the model is not found, or has other weights.
    """
    given = record if model is None else model
    try:
        encoder = load_encoder("demo" if str(given).startswith("demo (") else given, **how)
    except UserError as error:
        if model is not None:
            raise
        raise UserError(f"{error}; the {what} was made with {name}: give this model with --model") from error
    if encoder.weights_sha256 != weights_sha256:
        raise UserError(
            f"model {encoder.name}: has other weights than the model of the {what}, {name}; give that model with "
            f"--model, or make the {what} again"
        )
    return encoder


def load_classifier(
    model: str | Path | ModelSource, *, device: str = "auto", precision: str = "float32", backend: str = "torch"
) -> Classifier:
    """Load a model with a classification head from a folder or Hub repository.

    Args:
        model: Folder written by `stedfm finetune classification` or `save_pretrained`, or Hub id.
        device: As for `load_encoder`.
        precision: As for `load_encoder`.
        backend: As for `load_encoder`.

    Raises:
        UserError: If the model, the device, the precision or the backend is not available, or the model has no
            classification head.
    """
    source = find_model(model, head="ForImageClassification")
    loading = Loading(load_classifier, source, device, precision, backend)
    return Classifier(**load_headed(source, "classifier", device, precision, backend), loading=loading)


@quiet_transformers()
def load_headed(
    model: str | Path | ModelSource, kind: Kind, device: str, precision: str, backend: str = "torch"
) -> dict[str, Any]:
    """Return the attributes of `Loaded` of a model with a head; refuse a model without the head.

    Args:
        model: Folder or Hub id.
        kind: Kind of the model, a key of `AUTO_CLASSES`.
        device: As for `load_encoder`.
        precision: As for `load_encoder`.
        backend: As for `load_encoder`.
    """
    head = CLASSES[kind].__name__.removeprefix("StedFm")
    source = find_model(model, head=head)
    if backend != "torch":
        return load_exported(source, kind, backend, device, precision)
    target_device, dtype = _device_and_dtype(device, precision)
    refuse_export(source)
    advice = f"give a folder written by `{HEADS[head][1]}` or a Hub id"
    # Checked first, for transformers would initialise a head at random and print a page about it.
    with explained(source.given, source.location, advice):
        architectures = list(AutoConfig.from_pretrained(source.location).architectures or [])
    check_head(source.name, architectures, head)
    with explained(source.given, source.location, advice):
        network, loading = AUTO_CLASSES[kind].from_pretrained(source.location, dtype=dtype, output_loading_info=True)
        facts = _facts(source)
    refuse_missing(source.given, loading["missing_keys"], advice)
    _check_model_class(source, network, CLASSES[kind], facts)
    return {"model": network.to(target_device).eval(), **facts}


def load_exported(source: ModelSource, kind: Kind, backend: str, device: str, precision: str) -> dict[str, Any]:
    """Return the attributes of `Loaded` of a model that onnxruntime or OpenVINO computes.

    Args:
        source: Folder or Hub id of a torch model, or folder of an export.
        kind: Kind of the model.
        backend: `onnx` or `openvino`.
        device: `auto` or `cpu`.
        precision: Precision, or `auto`.
    """

    def load_torch(source: ModelSource) -> StedFmPreTrainedModel:
        if kind == "encoder":
            return load_encoder(source, device="cpu").model
        network: StedFmPreTrainedModel = load_headed(source, kind, "cpu", "float32")["model"]
        return network

    request = Request(source, kind, backend, precision, device)
    return request.load(weights_sha256, load_torch, has_fast_bfloat16(torch.device("cpu")))


def _device_and_dtype(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    """Return the device and the floating-point type; `auto` precision depends on the device."""
    target_device = choose_device(device)
    return target_device, choose_precision(precision, target_device)


def _facts(source: ModelSource) -> dict[str, Any]:
    """Return the attributes of `Loaded` except for the model."""
    return {
        "processor": AutoImageProcessor.from_pretrained(source.location),
        "name": source.name,
        "weights_sha256": weights_sha256(source.location),
    }


def _check_model_class(
    source: ModelSource, network: Any, kind: type[StedFmPreTrainedModel], facts: dict[str, Any]
) -> None:
    for found, wanted in ((network, kind), (facts["processor"], StedFmImageProcessor)):
        if not isinstance(found, wanted):
            raise UserError(f"model {source.location}: is a {type(found).__name__}, not a STED-FM model")


def choose_device(device: str) -> torch.device:
    """Resolve `"auto"` and check that the device is available; of several devices, take the first."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    device = device_or(device).partition(",")[0]
    if device == "auto":
        device = next((name for name in ("cuda", "mps") if available[name]), "cpu")
    kind = device.partition(":")[0]
    if kind not in available:
        raise UserError(f"device {device!r} is unknown; choose {', '.join(DEVICES)}")
    if not available[kind]:
        raise UserError(f"device {device!r} is not available here; use --device cpu, or see `stedfm doctor`")
    if device == "cuda" and (number := worker_number()) is not None:
        device = f"cuda:{number % torch.cuda.device_count()}"  # the workers of a machine share its GPUs
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Resolve `"auto"` to the fastest precision with a cosine similarity of at least 0.9999 to float32."""
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; choose auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware multiplies bfloat16 matrices, which is two to three times as fast as float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def weights_sha256(source: str) -> str:
    """Return the SHA-256 of the weights of a folder or Hub id; for sharded weights, of the list of shards."""
    single = cached_file(source, "model.safetensors", _raise_exceptions_for_missing_entries=False)
    if single is not None:
        return sha256_file(single)
    index = cached_file(source, "model.safetensors.index.json")
    shards = sorted(Path(str(index)).parent.glob("model-*.safetensors"))
    listed = "".join(f"{sha256_file(shard)}  {shard.name}\n" for shard in shards)
    return hashlib.sha256(listed.encode()).hexdigest()
