"""Models that onnxruntime or OpenVINO compute, with the calls and outputs of the torch models that inference uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stedfm_hf.exports.kinds import Kind
from stedfm_hf.exports.onnx_format import HEAD_FILE
from stedfm_hf.exports.runtimes import ONNX_FILE, OPENVINO_FILE, OnnxSession, OpenVinoSession, Session
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.modeling_stedfm import StedFmImageClassifierOutput
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation, StedFmSegmenterOutput
from stedfm_hf.runs import UserError

NOUNS: dict[Kind, str] = {"encoder": "an encoder", "classifier": "a classifier", "segmenter": "a segmenter"}
FILES = {"onnx": ONNX_FILE, "openvino": OPENVINO_FILE}
"""File of an exported model by backend."""


class RuntimeModel:
    """Exported model; base class.

    Args:
        session: Exported model.
        config: Configuration of the model.

    Attributes:
        device: The CPU.
        dtype: float32, the type of inputs and outputs in every precision.
        precision: Precision in which the model computes.
        weights_sha256: SHA-256 of the weights that were exported.
    """

    def __init__(self, session: Session, config: StedFmConfig) -> None:
        self.session, self.config = session, config
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.precision, self.weights_sha256 = session.facts["precision"], session.facts["weights_sha256"]


class RuntimeEncoder(RuntimeModel):
    """Exported encoder, or the encoder of an exported classifier; see `StedFmModel`."""

    @property
    def base_model(self) -> RuntimeEncoder:
        """The encoder itself."""
        return self

    def __call__(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """Embed images (B, C, H, W)."""
        tokens = self.session.run(pixel_values, ["last_hidden_state"])["last_hidden_state"]
        pooled = tokens[:, 0] if self.config.pooling == "token" else tokens[:, 1:].mean(dim=1)
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=pooled)


class RuntimeClassifier(RuntimeModel):
    """Exported classifier; see `StedFmForImageClassification`.

    Args:
        session: Exported model.
        config: Configuration of the model.
        head: Weight (L, D) and bias (L,) of the head.
    """

    def __init__(self, session: Session, config: StedFmConfig, head: dict[str, torch.Tensor]) -> None:
        super().__init__(session, config)
        self.head, self.base_model = head, RuntimeEncoder(session, config)

    def __call__(self, pixel_values: torch.Tensor) -> StedFmImageClassifierOutput:
        """Classify images (B, C, H, W)."""
        return StedFmImageClassifierOutput(logits=self.session.run(pixel_values, ["logits"])["logits"])

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the logits (B, num_labels) of pooled features (B, D)."""
        return functional.linear(features, self.head["weight"], self.head["bias"])


class RuntimeSegmenter(RuntimeModel):
    """Exported segmenter; see `StedFmForSemanticSegmentation`."""

    def __init__(self, session: Session, config: StedFmConfig) -> None:
        super().__init__(session, config)
        # Without weights: how logits become probabilities depends on the configuration only.
        with torch.device("meta"):
            self.rules = StedFmForSemanticSegmentation(config)

    def __call__(self, pixel_values: torch.Tensor) -> StedFmSegmenterOutput:
        """Segment images (B, C, H, W)."""
        return StedFmSegmenterOutput(logits=self.session.run(pixel_values, ["logits"])["logits"])

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Convert logits (B, L, H, W) to probabilities, or to the values of a regression, of the same shape."""
        return self.rules.probabilities(logits)


def load_runtime_model(folder: Path, kind: Kind, backend: str, name: str) -> Any:
    """Load an exported model.

    Args:
        folder: Folder of the export.
        kind: Kind of the model that is needed: encoder, classifier or segmenter.
        backend: `onnx` or `openvino`.
        name: Name of the model in messages.

    Returns:
        `RuntimeEncoder`, `RuntimeClassifier` or `RuntimeSegmenter`.

    Raises:
        UserError: If the folder holds another model, or is damaged.
    """
    path = folder / FILES[backend]
    session = _open(path, backend, name)
    config = StedFmConfig.from_pretrained(folder)
    found = session.facts["kind"]
    if kind == "encoder" and "last_hidden_state" in session.outputs:
        return RuntimeEncoder(session, config)
    if kind != found:
        raise UserError(
            f"model {name}: is an exported {found}, and this needs {NOUNS[kind]}; export the model again"
            + (" with --encoder-only" if kind == "encoder" else "")
        )
    if kind == "classifier":
        return RuntimeClassifier(session, config, load_file(folder / HEAD_FILE))
    return RuntimeSegmenter(session, config)


def _open(path: Path, backend: str, name: str) -> Session:
    try:
        session: Session = OnnxSession(path) if backend == "onnx" else OpenVinoSession(path)
    except UserError:
        raise
    except Exception as error:  # the libraries raise errors of their own types for damaged files
        text = " ".join(str(error).split())[:200]
        raise UserError(f"model {name}: {path.name} cannot be loaded ({text}); export the model again") from error
    if not {"precision", "weights_sha256", "kind"} <= session.facts.keys():
        raise UserError(f"model {name}: {path.name} was not written by `stedfm export`; export the model with it")
    return session
