"""`stedfm cluster`: split images into groups, recursively, and write tables, figures and the page of the tree."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from stedfm_hf.data.sources import find_sources
from stedfm_hf.discovery.groups.settings import ClusterSettings
from stedfm_hf.discovery.index.layout import exists
from stedfm_hf.runs import UserError, atomic_path, counted, options, write_json
from stedfm_hf.runs.output import Output, check_output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.weights.models import find_model

if TYPE_CHECKING:
    import numpy as np

    from stedfm_hf.discovery.clustering import Tree
    from stedfm_hf.discovery.groups.items import Items
    from stedfm_hf.discovery.groups.other_result import OtherResult
    from stedfm_hf.discovery.index.opened import Index

COMMAND = "cluster"
TREE, MEMBERSHIPS, NODES, REPORT = "tree.json", "memberships.parquet", "nodes.parquet", "report.html"
ENRICHMENT, DIFFERENCES, FEATURES = "enrichment.parquet", "differences.parquet", "features.parquet"
COMPARISON = "comparison.json"
_INDEX, _FIGURES = "index", "figures"
_AXIS_NAMES = {"pca": "principal component", "umap": "UMAP coordinate"}


@dataclass(frozen=True)
class Groups(OutputResult):
    """Result of `stedfm cluster`.

    Attributes:
        tree: Tree of groups.
    """

    tree: Tree

    def summary(self) -> str:
        """Return the result in a sentence, the leaves, what to do without groups, and the path of the page."""
        from stedfm_hf.discovery.groups.page import advice, verdict

        sizes = ", ".join(f"{leaf.id}: {counted(len(leaf.items), 'image')}" for leaf in self.tree.leaves)
        lines = [f"{self.output}: {verdict(self.tree)}", sizes, advice(self.tree), str(self.output / REPORT)]
        return "\n".join(line for line in lines if line)

    def to_json(self) -> dict[str, Any]:
        """Return the sizes of the leaves, whether they are significant, and the path of the page."""
        return super().to_json() | {
            "method": self.tree.method,
            "significant": self.tree.significant,
            "leaves": {leaf.id: len(leaf.items) for leaf in self.tree.leaves},
            "result": self.tree.root.evidence.result,
            "report": str(self.output / REPORT),
        }


@takes_settings(ClusterSettings)
def cluster(settings: ClusterSettings) -> Groups:
    """Split images into groups, recursively.

    A node is split only where held-out images show a valley of density between groups (the valley rule). With
    `partition`, the images are described by a given number of groups, which are marked as not significant.

    The output folder contains `report.html` (the tree with its images and tests), `tree.json`, `memberships.parquet`
    (a row per image), `nodes.parquet`, `enrichment.parquet` (tests of the condition), `differences.parquet` (numbers
    of sibling nodes), `features.parquet` (what was clustered), `figures/` and `manifest.json`. With `compare`, it also
    contains `comparison.json`.

    Returns:
        The tree. The report is in the output folder.

    Raises:
        UserError: If arguments are invalid, there are too few images for the partition, a table does not fit, or the
            other result is of other images.

    Source:
        The STED-FM paper clusters recursively by consensus; `protocol="reference"` follows its code.

    Example:
        >>> cluster("my-index", output="groups").tree.significant  # doctest: +SKIP
        True
    """
    target = Path(settings.output)
    check_output(target, COMMAND, is_folder=True, overwrite=settings.overwrite)
    _check_inputs(settings)
    _check_compared(settings, target)
    results = [TREE, MEMBERSHIPS, NODES, REPORT, ENRICHMENT, DIFFERENCES, FEATURES]
    results += [COMPARISON] if settings.compare is not None else []
    with open_output(
        target,
        COMMAND,
        settings,
        results=results,
        temporary=[_INDEX, _FIGURES],
        seed=settings.seed,
        overwrite=settings.overwrite,
    ) as output:
        from stedfm_hf.discovery.clustering import Tree

        if output.finished:
            output.report_finished()
            return Groups(target, output.manifest, Tree.from_json((target / TREE).read_text(encoding="utf-8")))
        from stedfm_hf.discovery.groups.items import read_items
        from stedfm_hf.discovery.groups.other_result import read_other

        index = _index(settings, target)
        output.manifest.options |= {"model": index.manifest.model, "weights_sha256": index.manifest.weights_sha256}
        items = read_items(
            index,
            annotations=settings.annotations,
            condition=settings.condition,
            morphology=settings.features == "morphology",
            masks=settings.masks,
        )
        other = None if settings.compare is None else read_other(Path(settings.compare), index.items)
        tree = _grow(items, settings)
        _write(output, tree, items, settings, other)
    return Groups(target, output.manifest, tree)


def _inputs(settings: ClusterSettings) -> list[Any]:
    return [settings.inputs] if isinstance(settings.inputs, str | os.PathLike) else list(settings.inputs)


def _is_index(inputs: list[Any]) -> bool:
    return len(inputs) == 1 and exists(Path(inputs[0]))


def _check_inputs(settings: ClusterSettings) -> None:
    """Check the inputs before slow imports, and before the output folder is made."""
    inputs = _inputs(settings)
    if _is_index(inputs):
        if settings.source_pattern is not None:
            raise UserError("--source-pattern is a setting of the index; give it to `stedfm index`")
    elif not any(Path(each).suffix.lower() in options.TABLES for each in inputs):
        find_sources(inputs)
        find_model(settings.model)


def _check_compared(settings: ClusterSettings, target: Path) -> None:
    """Check the other result before slow work."""
    if settings.compare is None:
        return
    from stedfm_hf.discovery.groups.other_result import check_other

    if Path(settings.compare).resolve() == target.resolve():
        raise UserError(f"--compare {settings.compare}: is the output; give the folder of another result")
    check_other(Path(settings.compare))


def _index(settings: ClusterSettings, target: Path) -> Index:
    """Open the index of the input, or make one of images or a table in the output folder."""
    from stedfm_hf.discovery.index.building import index
    from stedfm_hf.discovery.index.opened import open_index

    inputs = _inputs(settings)
    if _is_index(inputs):
        return open_index(Path(inputs[0]), settings.images)
    index(
        inputs,
        output=target / _INDEX,
        model=settings.model,
        images=settings.images,
        source_pattern=settings.source_pattern,
        series=settings.series,
        channel=settings.channel,
        device=settings.device,
        batch_size=settings.batch_size,
    )
    return open_index(target / _INDEX, settings.images)


def _grow(items: Items, settings: ClusterSettings) -> Tree:
    """Return the tree by the method of the settings.

    Raises:
        UserError: If the features are not finite, or there are fewer images than groups.
    """
    from stedfm_hf.discovery.clustering import cluster_tree, partition, reference_tree

    try:
        if settings.protocol == options.REFERENCE:
            # The published code standardises morphology, and not the embeddings.
            return reference_tree(items.X, seed=settings.seed, standardise=settings.features == "morphology")
        if settings.partition is not None:
            return partition(items.X, settings.partition, sources=items.sources, seed=settings.seed)
        return cluster_tree(items.X, sources=items.sources, seed=settings.seed)
    except ValueError as error:
        raise UserError(f"{items.index.folder}: {error}") from error


def _write(output: Output, tree: Tree, items: Items, settings: ClusterSettings, other: OtherResult | None) -> None:
    """Write the tables, figures and the page; the page last."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stedfm_hf.discovery.groups.differences import Difference, differences
    from stedfm_hf.discovery.groups.enrichment import Enrichment, enrichments
    from stedfm_hf.discovery.groups.figures import write_figures
    from stedfm_hf.discovery.groups.other_result import feature_table
    from stedfm_hf.discovery.groups.page import write_page
    from stedfm_hf.discovery.groups.tables import membership_table, node_table, records_table

    folder = output.path
    coordinates = _maps(items, settings)
    tests: list[Enrichment] = []
    if items.condition is not None:
        try:
            tests = enrichments(tree, items.columns[items.condition], items.sources, seed=settings.seed)
        except ValueError as error:
            raise UserError(f"column {items.condition}: {error}; choose another with --condition") from error
    compared = differences(tree, items.numbers, items.sources)
    tables: dict[str, pa.Table] = {
        MEMBERSHIPS: membership_table(tree, items, coordinates, _flat(items, tree, settings)),
        NODES: node_table(tree, items),
        ENRICHMENT: records_table(Enrichment, tests),
        DIFFERENCES: records_table(Difference, compared),
        FEATURES: feature_table(items.index.items, items.X),
    }
    for name, table in tables.items():
        with atomic_path(folder / name) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    with atomic_path(folder / TREE) as temporary:
        temporary.write_text(tree.to_json(), encoding="utf-8")
    shown = coordinates[settings.map]
    write_figures(folder / _FIGURES, tree, items, shown, settings.seed, axis_name=_AXIS_NAMES[settings.map])
    write_page(
        folder / REPORT,
        tree,
        items,
        name=_name(settings),
        coordinates=shown,
        map_name="PCA" if settings.map == "pca" else "UMAP",
        tests=tests,
        compared=compared,
        comparison=None if other is None else _compare(output, tree, items, settings, other),
    )
    output.manifest.options |= {"leaves": len(tree.leaves), "significant": tree.significant}


def _compare(
    output: Output, tree: Tree, items: Items, settings: ClusterSettings, other: OtherResult
) -> dict[str, Any]:
    """Compare with another tree, write the results, and return the section of the page."""
    import numpy as np

    from stedfm_hf.discovery.groups.comparing import compare_trees
    from stedfm_hf.discovery.groups.comparison_figures import Names, section, tree_name, write_comparison_figures
    from stedfm_hf.discovery.groups.other_result import describe_features, features_of_tree

    X = features_of_tree(items.X, tree)
    found = compare_trees(
        tree,
        other.tree,
        X,
        other.X,
        labels=None if items.condition is None else items.columns[items.condition],
        # The published comparison leaves out only the item itself.
        sources=None if settings.protocol == options.REFERENCE else items.sources,
        seed=settings.seed,
    )
    same = np.array_equal(X, other.X)
    features = describe_features(settings.features, items.index.manifest.model)
    trees = (tree_name(output.path.resolve().name, tree), tree_name(other.name, other.tree))
    names = Names(*trees, features, None if same else other.features)
    write_json(output.path / COMPARISON, {"names": asdict(names), **found.to_dict()})
    figures = write_comparison_figures(output.path / _FIGURES, found, names)
    return section(found, names, figures)


def _maps(items: Items, settings: ClusterSettings) -> dict[str, np.ndarray]:
    """Return the coordinates of the maps, of standardised features."""
    from stedfm_hf.discovery.clustering.items import prepare
    from stedfm_hf.discovery.groups.maps import pca_map, umap_map

    X = prepare(items.X).X
    found = {"pca": pca_map(X)}
    if settings.map == "umap":
        found["umap"] = umap_map(X, seed=settings.seed)
    return found


def _flat(items: Items, tree: Tree, settings: ClusterSettings) -> dict[str, np.ndarray]:
    """Return the flat clusterings that the settings ask for."""
    from stedfm_hf.discovery.clustering import flat_labels
    from stedfm_hf.discovery.clustering.partition import Method as FlatMethod

    k = max(2, len(tree.leaves)) if settings.partition is None else settings.partition
    methods = [method for method in get_args(FlatMethod) if method in settings.flat]
    return {method: flat_labels(items.X, method, k=min(k, len(items)), seed=settings.seed) for method in methods}


def _name(settings: ClusterSettings) -> str:
    """Return the name of the data, from the names of the inputs."""
    inputs = _inputs(settings)
    return ", ".join(Path(each).name or str(each) for each in inputs[:3]) + (", ..." if len(inputs) > 3 else "")
