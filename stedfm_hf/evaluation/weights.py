"""Run of `evaluate weights`: read the weights of models, and compare them tensor by tensor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import safe_open
from transformers.utils import cached_file

from stedfm_hf.evaluation.report.content import MethodInfo
from stedfm_hf.evaluation.report.files import RESULTS, open_report
from stedfm_hf.evaluation.report.weights import FILES, WeightsReport, write_weights_report
from stedfm_hf.evaluation.results import WeightsResult
from stedfm_hf.evaluation.settings import WeightsSettings
from stedfm_hf.inference.backends import refuse_export
from stedfm_hf.inference.loading import weights_sha256
from stedfm_hf.metrics.weight_distances import METRICS, cosine_distance, depth, layer_of, wasserstein_distance
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.runs import UserError
from stedfm_hf.runs.files import read_json
from stedfm_hf.runs.manifest import Manifest
from stedfm_hf.runs.progress import Progress
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.weights.damage import INDEX, explained
from stedfm_hf.weights.models import ModelSource
from stedfm_hf.weights.packaged import PACKAGED

WEIGHTS = "model.safetensors"
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("first", "second", "tensor", "layer")]
    + [("values", pa.int64()), *((name, pa.float64()) for name in METRICS), ("reason", pa.string())]
)
"""Columns of `distances.parquet`."""
_ADVICE = "give a folder with safetensors weights, a Hub id or demo"


@dataclass(frozen=True)
class Weights:
    """Weights of the encoder of a model.

    Attributes:
        info: Name and checksum.
        shapes: Shape of each tensor of the encoder, by name.
        heads: Names of the tensors of heads and decoders.
        read: Function from a name to the values of a tensor (n,) float32.
        config: Configuration of the model.
    """

    info: MethodInfo
    shapes: Mapping[str, tuple[int, ...]]
    heads: tuple[str, ...]
    read: Callable[[str], np.ndarray]
    config: Mapping[str, Any]


def run_weights(settings: WeightsSettings, models: Sequence[ModelSource]) -> WeightsResult:
    """Run `evaluate weights`; see `stedfm_hf.evaluation.evaluate_weights`.

    Args:
        settings: Settings of the command.
        models: Models to compare.
    """
    compared = _with_unique_names([stored_weights(model) for model in models])
    if settings.baselines != ["none"]:
        compared.append(untrained_weights(compared[0], settings.seed))
    methods = [each.info for each in compared]
    resolved = {"models": {each.key: each.weights_sha256 for each in methods}}
    with open_report("evaluate weights", settings, methods, files=FILES, resolved=resolved) as output:
        if output.finished:
            output.report_finished()
        else:
            output.manifest.items.clear()
            began = time.monotonic()
            table = compare_weights(compared)
            _record(table, compared, output.manifest)
            report = WeightsReport(methods, table, settings.seed, time.monotonic() - began)
            write_weights_report(report, output.path)
    return WeightsResult(output.path, output.manifest, dict(read_json(output.path / RESULTS)))


@quiet_transformers()
def stored_weights(source: ModelSource) -> Weights:
    """Open the safetensors weights of a model; the values are read later, tensor by tensor.

    Args:
        source: Folder or Hub id of a model of any class of transformers. Other formats, such as pickles, are not read.

    Raises:
        UserError: If the model has no safetensors weights, or they are damaged.
    """
    refuse_export(source)
    with explained(source.given, source.location, _ADVICE):
        config = read_json(Path(str(cached_file(source.location, "config.json"))))
        files = _files(source.location)
        digest = weights_sha256(source.location)
        places: dict[str, tuple[str, tuple[int, ...]]] = {}
        for path in files:
            with safe_open(path, framework="pt") as file:
                places |= {name: (path, tuple(file.get_slice(name).get_shape())) for name in file.keys()}
    # The tensors of an encoder inside of a model with a head have the type of the model as prefix.
    prefix = f"{config.get('model_type')}."
    if not any(name.startswith(prefix) for name in places):
        prefix = ""
    inside = {name.removeprefix(prefix): name for name in places if name.startswith(prefix)}

    def read(tensor: str) -> np.ndarray:
        path, _ = places[inside[tensor]]
        with explained(source.given, source.location, _ADVICE), safe_open(path, framework="pt") as file:
            return _flat(file.get_tensor(inside[tensor]))

    name = f"{source.given} (packaged)" if source.given in PACKAGED else source.name
    return Weights(
        MethodInfo(source.given, name, "model", digest),
        {name: places[stored][1] for name, stored in inside.items()},
        tuple(sorted(set(places) - set(inside.values()))),
        read,
        config,
    )


def _files(location: str) -> list[str]:
    """Return the paths of the safetensors files of a folder or Hub id.

    Raises:
        OSError: If there are none.
    """
    single = cached_file(location, WEIGHTS, _raise_exceptions_for_missing_entries=False)
    if single is not None:
        return [str(single)]
    index = cached_file(location, INDEX, _raise_exceptions_for_missing_entries=False)
    if index is None:
        raise OSError(f"there is no {WEIGHTS}; other files of weights are not read")
    shards = sorted(set(read_json(Path(str(index)))["weight_map"].values()))
    return [str(cached_file(location, shard)) for shard in shards]


def untrained_weights(first: Weights, seed: int) -> Weights:
    """Return the weights of an untrained network with the architecture of a model.

    Args:
        first: Weights of a STED-FM model.
        seed: Random seed of the weights.

    Raises:
        UserError: If the model is not a STED-FM model.
    """
    if first.config.get("model_type") != "stedfm":
        raise UserError(
            f"model {first.info.key}: is not a STED-FM model, so there is no untrained network to compare with; use "
            "--baselines none"
        )
    # fork_rng keeps the global generator unchanged.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = dict(StedFmModel(StedFmConfig.from_dict(dict(first.config))).named_parameters())
    return Weights(
        MethodInfo("untrained", "Untrained network", "baseline", None),
        {name: tuple(value.shape) for name, value in state.items()},
        (),
        lambda name: _flat(state[name]),
        first.config,
    )


def _flat(tensor: torch.Tensor) -> np.ndarray:
    """Return the values of a tensor (n,) in single precision."""
    return tensor.detach().float().flatten().numpy()


def _with_unique_names(weights: list[Weights]) -> list[Weights]:
    """Name models by what the user gave where two folders have the same name."""
    names = [each.info.name for each in weights]
    return [
        replace(each, info=replace(each.info, name=each.info.key)) if names.count(each.info.name) > 1 else each
        for each in weights
    ]


def compare_weights(weights: Sequence[Weights]) -> pa.Table:
    """Compare all pairs of models, tensor by tensor.

    Args:
        weights: Weights of the models.

    Returns:
        A row for each pair and tensor, by depth: `first`, `second`, `tensor`, `layer`, `values` (number of values),
        the distances `wasserstein` and `cosine`, and the `reason` why a tensor was left out (then without distances).

    Raises:
        UserError: If there is no tensor that can be compared.
    """
    rows: list[dict[str, Any]] = []
    names = sorted({name for each in weights for name in each.shapes}, key=depth)
    with Progress(len(names), description="Compare", unit="tensors") as progress:
        for name in names:
            rows += _compare_tensor(name, weights)
            progress.update()
    for first, second in combinations(weights, 2):
        heads = dict.fromkeys((*first.heads, *second.heads))
        rows += [_row(first, second, name, reason="part of a head or decoder") for name in heads]
    if all("reason" in row for row in rows):
        raise UserError(
            "the models have no tensor of the same name and shape. Compare models of the same architecture"
        )
    order = {pair: number for number, pair in enumerate(combinations([each.info.key for each in weights], 2))}
    rows.sort(key=lambda row: order[row["first"], row["second"]])
    return pa.Table.from_pylist(rows, SCHEMA)


def _compare_tensor(name: str, weights: Sequence[Weights]) -> Iterator[dict[str, Any]]:
    """Yield a row for each pair of models for one tensor."""
    values = {each.info.key: each.read(name) for each in weights if name in each.shapes}
    # Sorted once for all pairs.
    ordered = {key: np.sort(value) for key, value in values.items()}
    for first, second in combinations(weights, 2):
        one, other = first.info.key, second.info.key
        shapes = [each.shapes.get(name) for each in (first, second)]
        if None in shapes:
            if any(shapes):
                yield _row(first, second, name, reason="only in one of the models")
        elif shapes[0] != shapes[1]:
            yield _row(first, second, name, reason=f"different shapes: {shapes[0]} and {shapes[1]}")
        elif not values[one].size:
            yield _row(first, second, name, reason="no values")
        elif not (np.isfinite(values[one]).all() and np.isfinite(values[other]).all()):
            yield _row(first, second, name, reason="values that are not finite")
        else:
            yield _row(
                first,
                second,
                name,
                values=len(values[one]),
                wasserstein=wasserstein_distance(ordered[one], ordered[other]),
                cosine=cosine_distance(values[one], values[other]),
            )


def _row(first: Weights, second: Weights, name: str, **values: Any) -> dict[str, Any]:
    """Return a row of the table."""
    return {"first": first.info.key, "second": second.info.key, "tensor": name, "layer": layer_of(name), **values}


def _record(table: pa.Table, weights: Sequence[Weights], manifest: Manifest) -> None:
    """Record each pair as done, or as failed if none of its tensors can be compared."""
    compared = {(row["first"], row["second"]) for row in table.to_pylist() if row["reason"] is None}
    for number, (first, second) in enumerate(combinations([each.info for each in weights], 2), 1):
        item = f"pair {number}: {first.name} – {second.name}"
        if (first.key, second.key) in compared:
            manifest.done(item)
        else:
            manifest.failed(item, "no tensor of the same name and shape")
