"""Read the result of another `stedfm cluster` of the same images, to compare the trees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.discovery.clustering import Node, Tree
from stedfm_hf.discovery.clustering.items import prepare
from stedfm_hf.runs import Manifest, UserError, counted, manifest_path
from stedfm_hf.weights.packaged import packaged_name

TREE, FEATURES = "tree.json", "features.parquet"
KEY = ("path", "series", "channel")


@dataclass(frozen=True, eq=False)
class OtherResult:
    """Result of another run.

    Attributes:
        name: Name of its folder.
        features: Description of its features, such as "embedding of demo".
        tree: Tree, with the items in the order of this run.
        X: Features (n, d), in the order of this run, standardised if the tree was made of standardised features.
    """

    name: str
    features: str
    tree: Tree
    X: np.ndarray


def feature_table(images: pa.Table, X: np.ndarray) -> pa.Table:
    """Return one row per image: its path, series and channel, and its features.

    Args:
        images: Table with the columns path, series and channel.
        X: Features (n, d) float32.
    """
    values = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
    return pa.table({**{name: images[name] for name in KEY}, "features": values})


def features_of_tree(X: np.ndarray, tree: Tree) -> np.ndarray:
    """Return the features (n, d) that a tree was made of: standardised if the tree standardised them."""
    return prepare(X, standardise=bool(tree.parameters.get("standardise", True))).X


def describe_features(features: str, model: str | None) -> str:
    """Return a name of the features.

    Example:
        >>> describe_features("embedding", "runs/my-model"), describe_features("morphology", "demo")
        ('embedding of my-model', 'morphology')
    """
    if features != "embedding" or not model:
        return features
    # Manifests name a packaged encoder with its note, which is too long for tables and figures.
    return f"embedding of {packaged_name(model) or Path(model).name}"


def check_other(folder: Path) -> None:
    """Check that a folder is a finished result of `stedfm cluster`.

    Raises:
        UserError: If it is not.
    """
    record = manifest_path(folder, folder=True)
    if not record.is_file() or (manifest := Manifest.load(record)).command != "cluster":
        raise UserError(f"--compare {folder}: is not a result of `stedfm cluster`; give the folder of its report.html")
    if manifest.ended is None or not all((folder / name).is_file() for name in (TREE, FEATURES)):
        raise UserError(f"--compare {folder}: is not finished; run its command again")


def read_other(folder: Path, images: pa.Table) -> OtherResult:
    """Read the result of another run of the same images.

    Args:
        folder: Folder of the other result.
        images: Table with the columns path, series and channel of the images of this run.

    Raises:
        UserError: If it is not a finished result, or of other images.
    """
    check_other(folder)
    manifest = Manifest.load(manifest_path(folder, folder=True))
    table = pq.read_table(folder / FEATURES)
    here, there = _keys(images), _keys(table)
    at = {key: number for number, key in enumerate(here)}
    only_here, only_there = set(here) - set(there), [key for key in there if key not in at]
    if only_here or only_there:
        example = next(iter(sorted(only_here) or only_there))
        raise UserError(
            f"--compare {folder}: is of other images: {counted(len(only_here), 'image')} only here, "
            f"{len(only_there)} only there (such as {' '.join(example)}); cluster the same images"
        )
    order = np.array([at[key] for key in there])
    try:
        tree = Tree.from_json((folder / TREE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"--compare {folder / TREE}: cannot be read ({error}); run its command again") from error
    column = table["features"].combine_chunks()
    X = np.empty((len(order), column.type.list_size), np.float32)
    X[order] = column.flatten().to_numpy().reshape(X.shape)
    tree = replace(tree, root=_reordered(tree.root, order))
    name = describe_features(str(manifest.settings.get("features")), manifest.options.get("model"))
    return OtherResult(folder.resolve().name, name, tree, features_of_tree(X, tree))


def _keys(table: pa.Table) -> list[tuple[str, ...]]:
    return [tuple(map(str, key)) for key in zip(*(table[name].to_pylist() for name in KEY), strict=True)]


def _reordered(node: Node, order: np.ndarray) -> Node:
    """Return a node with the new rows of its items; `order` is the new row of each item (n,)."""
    rows = order[node.items]
    sort = np.argsort(rows)
    children = tuple(_reordered(child, order) for child in node.children)
    return replace(node, items=rows[sort], stability=node.stability[sort], children=children)
