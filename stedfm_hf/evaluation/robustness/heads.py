"""Predictions of the head of a fine-tuned classifier, as features that need no probe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from stedfm_hf.evaluation.extractors import Extractor
from stedfm_hf.images import StedImage
from stedfm_hf.inference.loading import Classifier, load_classifier, names_of
from stedfm_hf.inference.predictions import predict
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.runs import UserError, print_note
from stedfm_hf.weights.models import ModelSource

_TARGET_TYPES = {"classes": ("single_label", "soft"), "multilabel": ("multi_label",), "regression": ("regression",)}


@dataclass(eq=False, kw_only=True)
class HeadExtractor(Extractor):
    """Predictions of a classifier: probabilities in the order of the classes of the data, or predicted numbers.

    Attributes:
        classifier: Loaded model with its processor.
        columns: Index of the output of the head for each class of the data; (0,) for a regression.
        batch_size: Number of tiles in a forward pass.
    """

    classifier: Classifier = field(repr=False)
    columns: Sequence[int]
    batch_size: int = 32

    def extract(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """Yield the predictions (d,) of each image; the last of several is the largest of all other classes."""
        prepared = (self.classifier.processor.prepare(image) for image in images)
        others = [n for n in range(self.classifier.model.config.num_labels) if n not in self.columns]
        for outputs in predict(self.classifier, prepared, tile_size="auto", batch_size=self.batch_size):
            rest = outputs[others].max() if others else 0.0
            yield np.append(outputs[list(self.columns)], np.float32(rest))

    def predictions(self, features: np.ndarray, data: LabelledImages) -> np.ndarray:
        """Convert outputs to predictions, as in `Run`; -1 where the head predicts a class that the data lacks.

        Args:
            features: Outputs (n, d) of `extract`.
            data: Images, for the type of their labels.
        """
        if data.task == "regression":
            return features[:, 0].astype(np.float64)
        if data.task == "multilabel":
            return (features[:, :-1] >= 0.5).astype(np.int64)
        best = features.argmax(axis=1)
        return np.where(best < len(data.classes), best, -1)


def load_heads(
    sources: Sequence[ModelSource], data: LabelledImages, *, device: str, precision: str, batch_size: int
) -> list[HeadExtractor]:
    """Load the heads of those models that are classifiers; print why a head is not scored.

    Args:
        sources: Models.
        data: Images, whose classes the head must know.
        device: Device of the models.
        precision: Floating-point type of the models.
        batch_size: Number of tiles in a forward pass.
    """
    found = []
    for source in sources:
        if not _has_head(source):
            continue
        try:
            classifier = load_classifier(source, device=device, precision=precision)
            columns = _columns(classifier, data)
        except UserError as error:
            print_note(f"note: the head of {source.given} is not scored: {error}")
            continue
        identity = {
            "weights": classifier.weights_sha256,
            "head": list(columns),
            "processor": classifier.processor.to_json_string(),
            "precision": classifier.precision,
        }
        name = f"{source.name}, with its head"
        found.append(
            HeadExtractor(
                f"{source.given} (head)",
                name,
                identity,
                classifier=classifier,
                columns=columns,
                batch_size=batch_size,
            )
        )
    return found


def _has_head(source: ModelSource) -> bool:
    """Return whether a model is a STED-FM classifier."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.location)
    except (OSError, ValueError):
        return False
    names = config.architectures or []
    return config.model_type == "stedfm" and any(name.endswith("ForImageClassification") for name in names)


def _columns(classifier: Classifier, data: LabelledImages) -> tuple[int, ...]:
    """Return the output of the head for each class of the data.

    Raises:
        UserError: If the head predicts another type of labels, or does not know all classes.
    """
    kind = classifier.model.config.target_type
    if kind not in _TARGET_TYPES[data.task]:
        raise UserError(f"it predicts {kind} targets, but the labels of {data.name} are of the type {data.task}")
    if data.task == "regression":
        if classifier.model.config.num_labels != 1:
            raise UserError(f"it predicts {classifier.model.config.num_labels} numbers, but there is one label")
        return (0,)
    names = names_of(classifier, "labels")
    if missing := [name for name in data.classes if name not in names]:
        raise UserError(f"it does not know {', '.join(missing)}; it predicts {', '.join(names)}")
    return tuple(names.index(name) for name in data.classes)
