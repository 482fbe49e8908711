"""Tiny models of all heads, decoders and target types, with inputs, for the laws that hold for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments

from stedfm_hf import (
    StedFmBackbone,
    StedFmForImageClassification,
    StedFmForPreTraining,
    StedFmForSemanticSegmentation,
    StedFmModel,
)
from tests.models import pixels, tiny_config

CLASSES = 3


@dataclass(frozen=True)
class Case:
    """A model class with settings.

    Attributes:
        model_class: Class of the model.
        changes: Fields of the configuration.
    """

    model_class: type[Any]
    changes: tuple[tuple[str, Any], ...] = ()

    def model(self, seed: int = 0, **changes: Any) -> Any:
        """Return the model with random weights."""
        torch.manual_seed(seed)
        return self.model_class(tiny_config(**{"num_labels": CLASSES, **dict(self.changes), **changes}))

    def labels(self, batch: int) -> torch.Tensor:
        """Return labels of a batch; a part of the pixels of masks is ignored, in each image another part."""
        generator = torch.Generator().manual_seed(batch)
        kind = dict(self.changes).get("target_type", "single_label")
        size = (32, 32) if self.model_class is StedFmForSemanticSegmentation else ()
        if kind == "single_label":
            labels = torch.randint(0, CLASSES, (batch, *size), generator=generator)
        else:
            values = torch.rand(batch, CLASSES, *size, generator=generator)
            labels = values.round() if kind == "multi_label" else values / values.sum(1, keepdim=True)
        for number in range(batch if size else 0):
            labels[number, ..., : 3 * number, :] = 255
        return labels

    def inputs(self, batch: int = 2) -> dict[str, Any]:
        """Return the arguments of a training step."""
        images = {"pixel_values": pixels(batch)}
        if self.model_class is StedFmForPreTraining:
            return images | {"noise": torch.rand(batch, 16, generator=torch.Generator().manual_seed(2))}
        return images | {"labels": self.labels(batch)} if self in HEADS else images

    def __str__(self) -> str:
        return "-".join([self.model_class.__name__, *(str(value) for _, value in self.changes)])


ENCODERS = [Case(StedFmModel), Case(StedFmModel, (("pooling", "token"),)), Case(StedFmBackbone)]
PRETRAINING = [Case(StedFmForPreTraining), Case(StedFmForPreTraining, (("norm_pix_loss", True),))]
TARGETS = ("single_label", "multi_label", "soft", "regression")
CLASSIFIERS = [Case(StedFmForImageClassification, (("target_type", kind),)) for kind in TARGETS]
_SEGMENTERS: list[dict[str, Any]] = [
    *({"decoder": "upernet", "target_type": kind} for kind in TARGETS),
    {"decoder": "upernet", "target_type": "single_label", "use_auxiliary_head": True},
    {"decoder": "unetr", "target_type": "single_label"},
    {"decoder": "linear", "target_type": "single_label"},
    {"decoder": "linear", "target_type": "multi_label", "segmentation_loss": "mse"},
    {"decoder": "unetr", "target_type": "single_label", "segmentation_loss": "mse"},
]
SEGMENTERS = [Case(StedFmForSemanticSegmentation, tuple(changes.items())) for changes in _SEGMENTERS]
HEADS = [*CLASSIFIERS, *SEGMENTERS]
TRAINABLE = [*PRETRAINING, *HEADS]
ALL = [*ENCODERS, *TRAINABLE]


def hold_statistics(model: torch.nn.Module) -> None:
    """Keep batch normalisation from using the statistics of a batch, which depend on its size by definition."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def outputs(model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of the output by name."""
    found = {}
    with torch.no_grad():
        for name, value in model(**inputs).items():
            if isinstance(value, torch.Tensor):
                found[name] = value
            else:
                found |= {f"{name}.{number}": each for number, each in enumerate(value)}
    return found


class Examples(Dataset[dict[str, torch.Tensor]]):
    """Images with labels, one at a time.

    Args:
        case: Model that the examples are for.
        number: Number of examples.
    """

    def __init__(self, case: Case, number: int) -> None:
        self.number, self.inputs = number, case.inputs(number)
        self.inputs.pop("noise", None)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: values[index] for name, values in self.inputs.items()}


def trainer(model: Any, folder: Any, examples: Any = None, **settings: Any) -> Trainer:
    """Return the stock Trainer on a CPU, without its progress bar."""
    plain = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "num_train_epochs": 1}
    arguments = TrainingArguments(str(folder), **{**plain, **settings})
    made = Trainer(model=model, args=arguments, train_dataset=examples)
    made.remove_callback(PrinterCallback)
    return made
