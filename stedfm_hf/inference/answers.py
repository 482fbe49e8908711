"""Answers of a classifier: the columns they stand in, and how they are computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from stedfm_hf.inference.loading import Classifier, names_of
from stedfm_hf.inference.stepwise import Fact, table_of
from stedfm_hf.inference.tables import OF_IMAGE, OF_MODEL
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.modeling.tiling_stedfm import encode_images


def answer_columns(classifier: Classifier) -> dict[str, str]:
    """Columns for the answers of a model, `p_<label>` or `value_<label>` of a regression, and their labels."""
    prefix = "value_" if classifier.model.config.target_type == "regression" else "p_"
    return {f"{prefix}{name}": name for name in names_of(classifier, "labels")}


def answers_of(
    model: StedFmForImageClassification, images: Iterable[np.ndarray], *, tile_size: int | str | None, batch_size: int
) -> Iterator[np.ndarray]:
    """What the head says of each image, (C,) float32: probabilities, or values for regression.

    One image at a time, so that an answer does not depend on its neighbours by a rounding.
    """
    kind = model.config.target_type
    for vector in encode_images(
        model, images, pooling=model.config.pooling, tile_size=tile_size, batch_size=batch_size
    ):
        with torch.inference_mode():
            logits = model.classify(torch.from_numpy(vector[None]).to(model.device, model.dtype))[0].float()
            if kind != "regression":
                logits = logits.sigmoid() if kind == "multi_label" else logits.softmax(dim=0)
            yield logits.cpu().numpy()


def answer_schema(columns: Sequence[str], *, labelled: bool, maps: bool) -> pa.Schema:
    """Columns of the table of `classify`: with the one most probable class, and with maps, where there are."""
    return pa.schema(
        [
            *OF_IMAGE,
            *([("label", pa.string())] if labelled else []),
            *((column, pa.float32()) for column in columns),
            *([("map", pa.string())] if maps else []),
            *OF_MODEL,
        ]
    )


def answer_table(
    results: list[tuple[Fact, np.ndarray]], schema: pa.Schema, classifier: Classifier, columns: dict[str, str]
) -> pa.Table:
    """The table of images with their answers."""
    answers = np.array([answer for _, answer in results], dtype=np.float32).reshape(-1, len(columns))
    filled: dict[str, Any] = {column: answers[:, number] for number, column in enumerate(columns)}
    if "label" in schema.names:
        names = list(columns.values())
        filled["label"] = [names[number] for number in answers.argmax(axis=1)]
    return table_of([fact for fact, _ in results], schema, classifier, filled)
