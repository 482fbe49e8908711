"""Load a model for onnxruntime or OpenVINO: an exported folder, or an export in the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoImageProcessor

from stedfm_hf.exports.backends import EXPORT_PRECISIONS, check_backend, check_export_precision
from stedfm_hf.exports.cached import cached_export
from stedfm_hf.exports.kinds import Kind
from stedfm_hf.exports.runtime_models import FILES, load_runtime_model
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm import StedFmPreTrainedModel
from stedfm_hf.runs import UserError
from stedfm_hf.weights.damage import explained
from stedfm_hf.weights.models import ModelSource


@dataclass(frozen=True)
class Request:
    """Model that is to be loaded for a backend.

    Attributes:
        source: Model: a folder or Hub id of a torch model, or the folder of an export.
        kind: Kind of the model that is needed.
        backend: `onnx` or `openvino`.
        precision: Precision, or `auto`.
        device: `auto` or `cpu`.
    """

    source: ModelSource
    kind: Kind
    backend: str
    precision: str
    device: str

    def load(
        self,
        weights_sha256: Callable[[str], str],
        load_torch: Callable[[ModelSource], StedFmPreTrainedModel],
        fast_bfloat16: bool,
    ) -> dict[str, Any]:
        """Return the attributes of `Loaded`.

        Args:
            weights_sha256: Function that returns the SHA-256 of the weights of a folder or Hub id.
            load_torch: Function that loads the torch model in float32, called if it must be exported.
            fast_bfloat16: Whether the CPU computes bfloat16 fast, for the precision `auto`.

        Raises:
            UserError: If the backend cannot run the model in this precision, or a library is missing.
        """
        check_backend(self.backend, self.precision, self.device)
        source, made_for = self.source, exported_for(self.source)
        if made_for not in (None, self.backend):
            raise UserError(f"model {source.given}: is an export for {made_for}; use --backend {made_for}")
        with explained(source.given, source.location, "give a folder written by `stedfm convert`, a Hub id or demo"):
            processor = AutoImageProcessor.from_pretrained(source.location)
            config = AutoConfig.from_pretrained(source.location)
            sha256 = weights_sha256(source.location) if made_for is None else ""
        if not isinstance(processor, StedFmImageProcessor) or not isinstance(config, StedFmConfig):
            raise UserError(f"model {source.location}: is not a STED-FM model")
        if made_for is None:
            folder = cached_export(
                self.kind,
                config,
                sha256,
                backend=self.backend,
                precision=self._resolved(fast_bfloat16),
                name=source.given,
                load=lambda: load_torch(source),
            )
        else:
            folder = Path(source.location)
        model = load_runtime_model(folder, self.kind, self.backend, source.name)
        if self.precision not in ("auto", "float32", model.precision):
            raise UserError(
                f"model {source.given}: is an export of precision {model.precision}; remove --precision "
                f"{self.precision}, or export the model again"
            )
        return {"model": model, "processor": processor, "name": source.name, "weights_sha256": model.weights_sha256}

    def _resolved(self, fast_bfloat16: bool) -> str:
        """Return the precision; `auto` is bfloat16 where the backend has it and the CPU computes it fast."""
        if self.precision == "auto":
            return "bfloat16" if fast_bfloat16 and "bfloat16" in EXPORT_PRECISIONS[self.backend] else "float32"
        check_export_precision(self.backend, self.precision)
        return self.precision


def exported_for(source: ModelSource) -> str | None:
    """Return the backend of the folder of an export, or None for other models."""
    folder = Path(source.location)
    if (folder / "model.safetensors").exists():
        return None
    return next((backend for backend, file in FILES.items() if (folder / file).is_file()), None)


def refuse_export(source: ModelSource) -> None:
    """Refuse the folder of an export where torch is to compute the model.

    Raises:
        UserError: If it is one.
    """
    if (backend := exported_for(source)) is not None:
        raise UserError(f"model {source.given}: is an export for {backend}; add --backend {backend}")
