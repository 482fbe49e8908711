"""Representation scores of batch effects, compared with scib-metrics, scikit-learn and literal definitions."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples, silhouette_score

from stedfm_hf.metrics.neighbour_scores import (
    UndefinedScoreError,
    graph_connectivity,
    kbet,
    kbet_per_label,
    lisi,
    lisi_batch,
    lisi_label,
    neighbour_graph,
)
from stedfm_hf.metrics.representation_scores import (
    BATCH_SCORES,
    BIOLOGY_SCORES,
    cluster_agreement,
    map_without_replicates,
    representation_scores,
    silhouette_batch,
    silhouette_label,
)
from tests.metrics.scib_reference import PATH, Case, cases, scores_of_scib_metrics

REFERENCE = json.loads(PATH.read_text("utf-8"))
CASES = {case.name: case for case in cases()}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_the_neighbours_are_those_of_the_cases(case: Case) -> None:
    rows, distances = neighbour_graph(case.embeddings, case.k)
    expected_rows, expected_distances = case.neighbours()
    assert np.array_equal(rows, expected_rows)
    assert distances == pytest.approx(expected_distances, abs=1e-12)


def test_scores_equal_stored_values_of_scib_metrics(case: Case) -> None:
    """scib-metrics computes in single precision, and searches weights of LISI to a tolerance of 1e-5."""
    rows, distances = case.neighbours()
    expected = REFERENCE[case.name]
    found = {
        "graph_connectivity": graph_connectivity(rows, case.labels),
        "kbet": kbet(rows, case.batches),
        "lisi_batch": lisi_batch(rows, distances, case.batches),
        "lisi_label": lisi_label(rows, distances, case.labels),
        "silhouette_label": silhouette_label(case.embeddings, case.labels),
        "silhouette_batch": silhouette_batch(case.embeddings, case.labels, case.batches),
        "silhouette_label_euclidean": silhouette_label(case.embeddings, case.labels, metric="euclidean"),
        "silhouette_batch_euclidean": silhouette_batch(case.embeddings, case.labels, case.batches, metric="euclidean"),
    }
    assert found == pytest.approx({name: expected[name] for name in found}, abs=2e-5)
    for kind, names in (("batches", case.batches), ("labels", case.labels)):
        assert lisi(rows, distances, names) == pytest.approx(np.array(expected[f"each_{kind}"]), abs=2e-4)


def test_the_stored_values_are_those_of_scib_metrics(case: Case) -> None:
    if importlib.util.find_spec("scib_metrics") is None:
        pytest.skip("needs scib-metrics, which is not a dependency")
    assert scores_of_scib_metrics(case)["kbet"] == pytest.approx(REFERENCE[case.name]["kbet"], abs=1e-5)


def test_kbet_within_classes_is_close_to_the_diffusion_distances_of_scib_metrics(case: Case) -> None:
    """scib-metrics counts a class as 0 if its graph falls apart, as that of one of the three weak classes does."""
    found = kbet_per_label(case.embeddings, case.labels, case.batches)
    computed = 2 / 3 if case.name.startswith("weak") else 1.0
    assert computed * found == pytest.approx(REFERENCE[case.name]["kbet_per_label"], abs=0.1)


def test_the_silhouettes_are_those_of_scikit_learn(case: Case) -> None:
    expected = (silhouette_score(case.embeddings, case.labels, metric="cosine") + 1) / 2
    assert silhouette_label(case.embeddings, case.labels) == pytest.approx(expected)
    by_class = []
    for label in range(3):
        members = case.labels == label
        values = silhouette_samples(case.embeddings[members], case.batches[members], metric="cosine")
        by_class.append(np.mean(1 - abs(values)))
    assert silhouette_batch(case.embeddings, case.labels, case.batches) == pytest.approx(np.mean(by_class))


def test_the_reference_score_equals_its_literal_definition() -> None:
    """Spec: the recall step times the precision, summed from the second rank; recall counts the query."""
    case = CASES["weak classes, few neighbours"]
    unit = case.embeddings / np.linalg.norm(case.embeddings, axis=1, keepdims=True)
    means = []
    for batch in np.unique(case.batches):
        members = np.flatnonzero(case.batches == batch)
        precisions = []
        for query in members:
            others = members[members != query]
            ranked = others[np.argsort(1 - unit[others] @ unit[query], kind="stable")]
            hits = np.cumsum(case.labels[ranked] == case.labels[query])
            recall = hits / (case.labels[members] == case.labels[query]).sum()
            precision = hits / np.arange(1, len(ranked) + 1)
            precisions.append(np.sum(np.diff(recall) * precision[1:]))
        means.append(np.mean(precisions))
    found = map_without_replicates(case.embeddings, case.labels, case.batches, reference=True)
    assert found == pytest.approx(np.mean(means))
    assert found < map_without_replicates(case.embeddings, case.labels, case.batches)


def test_images_of_the_source_of_the_query_are_not_ranked() -> None:
    rng = np.random.default_rng(0)
    sources = np.arange(30).repeat(4)
    labels = (sources % 3 == 0).astype(int)
    embeddings = rng.normal(size=(30, 8))[sources] + 0.01 * rng.normal(size=(120, 8))
    batches = np.zeros(120)
    assert map_without_replicates(embeddings, labels, batches) > 0.6
    assert map_without_replicates(embeddings, labels, batches, sources=sources) < 0.6


def test_scores_fall_with_the_displacement_of_a_batch_and_rise_with_the_separation_of_classes() -> None:
    rng = np.random.default_rng(0)
    labels, batches = np.repeat([0, 1, 2], 60), np.tile([0, 1], 90)
    noise, centres, move = rng.normal(size=(180, 16)), rng.normal(size=(3, 16)), rng.normal(size=16)
    found = {
        (separation, size): representation_scores(
            noise + separation * centres[labels] + size * batches[:, None] * move, labels, batches
        )
        for separation, size in ((2.0, 0.0), (2.0, 2.0), (0.3, 0.0))
    }
    for name in BATCH_SCORES[1:]:
        assert found[2.0, 0.0].values[name] > found[2.0, 2.0].values[name]
    for name in BIOLOGY_SCORES:
        assert found[2.0, 0.0].values[name] > found[0.3, 0.0].values[name]
    best = found[2.0, 0.0]
    assert set(best.values) == {*BATCH_SCORES, *BIOLOGY_SCORES}
    assert best.overall == pytest.approx(0.4 * best.batch + 0.6 * best.biology)
    assert best.overall == max(each.overall for each in found.values())


def test_clusters_agree_with_separate_classes_only() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 30)
    centres = 9 * np.eye(3).repeat(30, axis=0)
    assert cluster_agreement(centres + rng.normal(size=(90, 3)), labels) == pytest.approx((1, 1))
    assert cluster_agreement(rng.normal(size=(90, 3)), labels) == pytest.approx((0, 0), abs=0.1)


def test_a_score_that_cannot_be_computed_is_missing_and_never_0() -> None:
    rng = np.random.default_rng(0)
    embeddings, two = rng.normal(size=(40, 4)), np.arange(40) % 2
    one_batch = representation_scores(embeddings, two, np.zeros(40))
    assert set(one_batch.reasons) == {"kbet", "lisi_batch", "silhouette_batch"}
    assert np.isnan([one_batch.batch, one_batch.overall]).all()
    assert np.isfinite(one_batch.biology)
    one_class = representation_scores(embeddings, np.zeros(40), two)
    assert set(one_class.reasons) == set(BIOLOGY_SCORES)
    assert np.isnan([one_class.values[name] for name in BIOLOGY_SCORES]).all()
    assert np.isfinite(one_class.batch)
    few = representation_scores(embeddings[:5], two[:5], np.array([0, 0, 1, 1, 0]))
    assert few.reasons["kbet"] == "no class has 10 images and two batches"
    assert few.reasons["lisi_batch"] == "4 neighbours are too few for a perplexity of 1"
    collapsed = representation_scores(np.ones((40, 4)), two, two)
    assert set(collapsed.reasons.values()) == {"there is only one embedding, or all are equal"}
    assert np.isnan(list(collapsed.values.values())).all()
    with pytest.raises(UndefinedScoreError, match="no image has another"):
        map_without_replicates(embeddings, two, np.arange(40))
    with pytest.raises(UndefinedScoreError, match="every class has only one image"):
        silhouette_label(embeddings, np.arange(40))


def test_equal_embeddings_have_finite_scores() -> None:
    """Blank crops, or an augmentation that changes nothing: neighbours at distance 0."""
    rng = np.random.default_rng(0)
    embeddings = np.concatenate([np.ones((30, 4)), rng.normal(size=(50, 4)), np.zeros((10, 4))])
    rows, distances = neighbour_graph(embeddings, 25)
    values = lisi(rows, distances, np.arange(90) % 3)
    assert np.isfinite(values).all()
    assert values.min() >= 1 - 1e-9
    assert values.max() <= 3 + 1e-9
    assert representation_scores(embeddings, np.arange(90) % 3, np.arange(90) % 2).reasons == {}


def test_lisi_does_not_depend_on_the_unit_of_distances() -> None:
    rows, distances = CASES["mixed"].neighbours()
    first = lisi(rows, distances, CASES["mixed"].batches)
    assert lisi(rows, 1e-9 * distances, CASES["mixed"].batches) == pytest.approx(first, abs=1e-6)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="4 embeddings, 3 labels and 4 batches"):
        representation_scores(np.zeros((4, 2)), np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="k counts the row itself"):
        neighbour_graph(np.ones((4, 2)), 1)
