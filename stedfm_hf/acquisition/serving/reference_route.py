"""The request and the answer of the published server, `POST /process`, without its risks.

Source: reference protocol, acquisition server. Differences are listed in docs/how-to/next-to-the-microscope.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from stedfm_hf.acquisition.finders import DEPTH, TREES
from stedfm_hf.acquisition.reference import LABEL_STRIDE, Windows, harvest, scale
from stedfm_hf.acquisition.serving.errors import RequestError
from stedfm_hf.acquisition.serving.images import millions

SEED = 42
TEST_FRACTION = 0.2
MOST_TREES, MOST_DEPTH = 1000, 100
MOST_CLASSES = 64
TOKENS = ("X_train", "X_test", "y_train", "y_test")
"""Tokens (n, D) and numbers of their classes (n,) that travel with every request."""
MODEL = "stedfm-hf"
"""Name of the kind of our models; forests of the published server are not rebuilt."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "test_connection": {"type": "boolean"},
        "train": {"type": "boolean"},
        "image": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        "label": {"type": "array", "items": {"type": "array"}},
        "model": {"type": "object", "nullable": True},
        "n_estimators": {"type": "integer"},
        "max_depth": {"type": "integer"},
        "warm_start": {"type": "boolean"},
        **{name: {"type": "array", "nullable": True} for name in TOKENS},
    },
}
"""Schema of a request."""


def process(windows: Windows, body: bytes, max_pixels: float) -> dict[str, Any]:
    """Respond to a request of a client of the published server.

    Args:
        windows: Windows of the encoder.
        body: JSON object of the request.
        max_pixels: Largest number of pixels of the image.

    Returns:
        `prediction` (H, W), the number of the class of every pixel; `model`, the number and depth of the trees; the
        tokens in `X_train`, `X_test`, `y_train` and `y_test`; `image-name` and `condition`.

    Raises:
        RequestError: If the request is wrong.
    """
    request = _parse(body)
    if request.get("test_connection"):
        return {"status": "ok"}
    plane = scale(_image(request, max_pixels))
    dim = int(windows.encoder.model.config.hidden_size)
    earlier = {name: request.get(name) for name in TOKENS}
    trains, trees, depth = bool(request.get("train")), *_sizes(request)
    if trains:
        tokens = _harvested(windows, plane, _label(request, plane.shape))
        if request.get("warm_start") and any(each is not None for each in earlier.values()):
            tokens = _merged(_tokens(earlier, dim), tokens)
    else:
        tokens = _tokens(earlier, dim)
    forest = RandomForestClassifier(trees, max_depth=depth, random_state=SEED, n_jobs=1)
    forest.fit(tokens["X_train"], tokens["y_train"])
    stride = round(windows.size * LABEL_STRIDE)
    found = windows.assemble(plane, stride, lambda values: forest.predict(values)[:, None] + 1)
    return {
        "prediction": found[0].astype(np.int64).tolist(),
        "model": {"meta": MODEL, "n_estimators": trees, "max_depth": depth},
        **{name: values.tolist() for name, values in tokens.items()},
        "image-name": None,
        "condition": "group0",
    }


def _parse(body: bytes) -> Mapping[str, Any]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not JSON; send a JSON object") from None
    if not isinstance(request, dict):
        raise RequestError(400, "the body is not a JSON object; send the keys of a request")
    return request


def _array(value: Any, name: str, dims: tuple[int, ...]) -> np.ndarray:
    """Return a list of finite numbers as an array float64."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.ndim not in dims or not array.size or not np.isfinite(array).all():
        shape = " or ".join(f"{each} dimensions" for each in dims)
        raise RequestError(422, f"{name}: is not a list of finite numbers with {shape}; correct the request")
    return array


def _image(request: Mapping[str, Any], max_pixels: float) -> np.ndarray:
    image = _array(request.get("image"), "image", (2,))
    if image.size > max_pixels:
        found, most = millions(image.size), millions(max_pixels)
        raise RequestError(413, f"image: has {found} pixels, more than {most}; send a part of it")
    return image


def _label(request: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return the annotation (H, W) int64: the first plane of the label."""
    label = _array(request.get("label"), "label", (2, 3))
    plane = label if label.ndim == 2 else label[0]
    if plane.shape != shape:
        raise RequestError(422, f"label: has the shape {plane.shape}, and the image {shape}; send the same size")
    with np.errstate(invalid="ignore"):  # numbers that no integer holds differ from what they become
        numbers = plane.astype(np.int64)
    if (numbers != plane).any() or numbers.min() < 0 or len(np.unique(numbers)) > MOST_CLASSES + 1:
        raise RequestError(422, f"label: must hold integers from 0, of at most {MOST_CLASSES} classes")
    return numbers


def _sizes(request: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number and the depth of the trees: those of our model, or those of the request."""
    model = request.get("model")
    source = model if isinstance(model, dict) and model.get("meta") == MODEL else request
    found = []
    for name, default, most in (("n_estimators", TREES, MOST_TREES), ("max_depth", DEPTH, MOST_DEPTH)):
        value = source.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise RequestError(422, f"{name}: must be an integer from 1 to {most}")
        found.append(value)
    return found[0], found[1]


def _tokens(values: Mapping[str, Any], dim: int) -> dict[str, np.ndarray]:
    """Check the tokens of an earlier answer."""
    found: dict[str, np.ndarray] = {}
    for part in ("train", "test"):
        given = values[f"X_{part}"], values[f"y_{part}"]
        if part == "test" and all(each in (None, []) for each in given):
            found |= {"X_test": np.empty((0, dim), np.float32), "y_test": np.empty(0, np.int64)}
            continue
        rows, numbers = _array(given[0], f"X_{part}", (2,)), _array(given[1], f"y_{part}", (1,))
        if rows.shape[1] != dim or len(rows) != len(numbers):
            raise RequestError(
                422,
                f"X_{part}: has the shape {rows.shape}, not {(len(numbers), dim)}; send those of an earlier answer",
            )
        if (numbers != numbers.astype(np.int64)).any() or not 0 <= numbers.min() <= numbers.max() < 2**31:
            raise RequestError(422, f"y_{part}: must hold integers from 0")
        found |= {f"X_{part}": rows.astype(np.float32), f"y_{part}": numbers.astype(np.int64)}
    return found


def _harvested(windows: Windows, plane: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """Collect the tokens of the annotated patches; a fifth of them is for tests.

    The class of a token is the number in the label minus 1, so that classes keep their numbers in every image.
    """
    found = [(harvest(windows, plane, label == number), number - 1) for number in np.unique(label[label > 0])]
    tokens = np.concatenate([each for each, _ in found] or [np.empty((0, 1), np.float32)])
    if not len(tokens):
        raise RequestError(422, "label: no class covers more than a quarter of a patch; annotate larger structures")
    classes = np.repeat([number for _, number in found], [len(each) for each, _ in found]).astype(np.int64)
    if len(tokens) < 2:
        return {"X_train": tokens, "X_test": tokens[:0], "y_train": classes, "y_test": classes[:0]}
    parts = train_test_split(tokens, classes, test_size=TEST_FRACTION, random_state=SEED)
    return dict(zip(TOKENS, parts, strict=True))


def _merged(earlier: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Join earlier tokens with new ones; a token that is there already is left out."""
    merged: dict[str, np.ndarray] = {}
    for part in ("train", "test"):
        tokens = np.concatenate([earlier[f"X_{part}"], new[f"X_{part}"]])
        classes = np.concatenate([earlier[f"y_{part}"], new[f"y_{part}"]])
        kept = np.sort(np.unique(tokens, axis=0, return_index=True)[1])
        merged |= {f"X_{part}": tokens[kept], f"y_{part}": classes[kept]}
    return merged
