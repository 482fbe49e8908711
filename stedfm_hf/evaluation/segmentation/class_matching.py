"""Whether the classes of a model are those of annotated images, and which map is of which class (ours)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stedfm_hf.labels.annotated.stored import BACKGROUND
from stedfm_hf.runs import UserError

_UNNAMED = re.compile(r"(label_|class )\d+", re.IGNORECASE)


@dataclass(frozen=True)
class ClassMatch:
    """From the maps of a model to those of the classes of the data.

    Args:
        order: for each class of the data, the number of the model's; None: the background, which the model lacks.
        note: what a reader must know of it; empty where names are the same.

    Example:
        >>> maps = np.array([[[0.9]], [[0.2]]])
        >>> ClassMatch((None, 1, 0))(maps).round(2).ravel().tolist()
        [0.1, 0.2, 0.9]
    """

    order: tuple[int | None, ...]
    note: str = ""

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Maps of all classes of the data (L, H, W), of those of the model."""
        return np.stack([1 - maps.max(axis=0) if number is None else maps[number] for number in self.order])


def match_classes(
    name: str,
    classes: Sequence[str],
    target_type: str,
    *,
    data: str,
    data_classes: Sequence[str],
    data_type: str,
) -> ClassMatch:
    """Finds the map of each class of the data, by its name; by its place where one side has no names.

    A model of one class a pixel may be asked about planes: its background is left out. A model of planes may be asked
    about images of one class a pixel: the background is where no class reaches a half.

    Args:
        name: of the model.
        classes: its classes.
        target_type: its target type.
        data: name of the data set.
        data_classes: the classes of the data.
        data_type: their target type.

    Raises:
        UserError: the model gives no probabilities, or its classes are not those of the data.

    Example:
        >>> named = {"data": "cells", "data_classes": ["background", "rings"], "data_type": "single_label"}
        >>> match_classes("m", ["background", "Rings"], "single_label", **named).order
        (0, 1)
        >>> match_classes("m", ["rings"], "multi_label", **named).order
        (None, 0)
    """
    if target_type == "regression":
        raise UserError(f"model {name}: predicts values, not classes; its maps cannot be scored as masks")
    model, wanted, note = list(classes), list(data_classes), ""
    single, exclusive = target_type == "single_label", data_type == "single_label"
    # Only one of the two knows a background: it is set aside, and the others are compared.
    lacks = exclusive and not single and _is_background(wanted[0])
    spare = single and not exclusive and _is_background(model[0])
    if exclusive and not single and not lacks:
        raise UserError(
            f"model {name}: its classes may overlap, while those of {data} exclude each other and have no background; "
            "evaluate a model of one class a pixel"
        )
    ours, theirs = wanted[lacks:], model[spare:]
    places = {_key(each): number for number, each in enumerate(theirs)}
    if sorted(places) == sorted(map(_key, ours)) and len(places) == len(theirs):
        order = [places[_key(each)] for each in ours]
    elif len(ours) == len(theirs) and (_all_unnamed(ours) or _all_unnamed(theirs)):
        order = list(range(len(ours)))
        pairs = ", ".join(f"{one} = {other}" for one, other in zip(theirs, ours, strict=True))
        note = f"The classes of {name} were taken by their order, as one side has no names: {pairs}."
    else:
        raise UserError(
            f"model {name}: knows the classes {', '.join(model)}, and {data} has {', '.join(wanted)}; name those of "
            "the data as the model does (--classes), or evaluate another model"
        )
    if lacks:
        note += f" The classes of {name} may overlap: a pixel is background where none reaches a half."
    if spare:
        note += f" The classes of {name} exclude each other, those of the data may overlap."
    found: list[int | None] = [number + spare for number in order]
    return ClassMatch((*([None] * lacks), *found), note.strip())


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def _is_background(name: str) -> bool:
    return _key(name) == BACKGROUND


def _all_unnamed(names: Sequence[str]) -> bool:
    """Whether nobody has named the classes; the background has its name by itself."""
    others = [name for name in names if not _is_background(name)]
    return bool(others) and all(_UNNAMED.fullmatch(name.strip()) for name in others)
