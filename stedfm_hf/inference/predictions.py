"""Predictions of a classifier: how they are computed, and their columns in the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from stedfm_hf.inference.loading import Classifier, names_of
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.inference.stepwise import table_of
from stedfm_hf.inference.tables import OF_IMAGE, OF_MODEL
from stedfm_hf.modeling.tiling_stedfm import encode_images


def prediction_columns(classifier: Classifier) -> dict[str, str]:
    """Return the columns of the predictions, `p_<label>` or for a regression `value_<label>`, with their labels."""
    prefix = "value_" if classifier.model.config.target_type == "regression" else "p_"
    return {f"{prefix}{name}": name for name in names_of(classifier, "labels")}


def predict(
    classifier: Classifier, images: Iterable[np.ndarray], *, tile_size: int | str | None, batch_size: int
) -> Iterator[np.ndarray]:
    """Predict the probabilities of each image, or the values of a regression, (C,) float32.

    The head is applied to one image at a time, so that rounding does not depend on the other images.
    """
    model = classifier.model
    kind = model.config.target_type
    for vector in encode_images(
        model, images, pooling=model.config.pooling, tile_size=tile_size, batch_size=batch_size
    ):
        with torch.inference_mode():
            logits = model.classify(torch.from_numpy(vector[None]).to(model.device, model.dtype))[0].float()
            if kind != "regression":
                logits = logits.sigmoid() if kind == "multi_label" else logits.softmax(dim=0)
            yield logits.cpu().numpy()


def prediction_schema(columns: Sequence[str], *, labelled: bool, maps: bool) -> pa.Schema:
    """Return the schema of the table of `classify`.

    Args:
        columns: Columns of the predictions.
        labelled: Whether there is a column for the most probable class.
        maps: Whether there is a column for the file of the map.
    """
    return pa.schema(
        [
            *OF_IMAGE,
            *([("label", pa.string())] if labelled else []),
            *((column, pa.float32()) for column in columns),
            *([("map", pa.string())] if maps else []),
            *OF_MODEL,
        ]
    )


def prediction_table(
    results: list[tuple[Fact, np.ndarray]], schema: pa.Schema, classifier: Classifier, columns: dict[str, str]
) -> pa.Table:
    """Return the table of images with their predictions."""
    values = np.array([value for _, value in results], dtype=np.float32).reshape(-1, len(columns))
    filled: dict[str, Any] = {column: values[:, number] for number, column in enumerate(columns)}
    if "label" in schema.names:
        names = list(columns.values())
        filled["label"] = [names[number] for number in values.argmax(axis=1)]
    return table_of([fact for fact, _ in results], schema, classifier, filled)
