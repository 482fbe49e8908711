"""`stedfm cluster`: files, page and messages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stedfm_hf.cli import main
from stedfm_hf.discovery.cluster import cluster
from stedfm_hf.discovery.clustering import Tree
from stedfm_hf.discovery.index import index
from stedfm_hf.runs import UserError
from tests.discovery.helpers import table_index, write_images, write_model

PER_GROUP = 40


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index of two groups of embeddings in two folders, one of which also has a few items of the other group."""
    folder = tmp_path_factory.mktemp("grouped") / "index"
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], PER_GROUP)
    embeddings = rng.normal(size=(2 * PER_GROUP, 6)) + 6 * group[:, None]
    names = ["drug" if number < 44 else "control" for number in range(2 * PER_GROUP)]
    table_index(folder, embeddings.astype(np.float32), [f"{name}/{n}.tif" for n, name in enumerate(names)])
    return folder


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise") / "index"
    table_index(folder, np.random.default_rng(1).normal(size=(60, 6)).astype(np.float32))
    return folder


def data_of(page: str) -> dict[str, Any]:
    """Return the data in a page, as the browser reads them."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = json.loads(match[1])
    return found


def test_groups_are_found_and_their_conditions_tested(grouped: Path, tmp_path: Path) -> None:
    result = cluster(grouped, output=tmp_path / "groups", flat=["ward", "hdbscan"])
    assert result.tree.significant and result.to_json()["leaves"] == {"0.0": 40, "0.1": 40}
    members = pq.read_table(tmp_path / "groups/memberships.parquet").to_pandas()
    assert len(members) == 80 and members.significant.all() and members.stability.min() > 0.9
    assert members.groupby("leaf").ward.nunique().tolist() == [1, 1]
    nodes = pq.read_table(tmp_path / "groups/nodes.parquet").to_pandas().set_index("node")
    assert nodes.loc["0", "children"] == 2 and nodes.loc["0", "valley_ratio"] < 0.6
    assert sorted(nodes.folder_purity[["0.0", "0.1"]]) == [0.9, 1.0]
    tests = pq.read_table(tmp_path / "groups/enrichment.parquet").to_pandas()
    assert set(tests.node) == {"0.0", "0.1"} and (tests.p_corrected < 0.01).all()
    stored = Tree.from_json((tmp_path / "groups/tree.json").read_text())
    assert [leaf.items.tolist() for leaf in stored.leaves] == [leaf.items.tolist() for leaf in result.tree.leaves]


def test_the_page_is_one_file_without_requests(grouped: Path, tmp_path: Path) -> None:
    cluster(grouped, output=tmp_path / "groups")
    page = (tmp_path / "groups/report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org)", page) and "2 groups, separated by valleys" in page
    assert "--partition K" not in page
    data = data_of(page)
    assert [node["id"] for node in data["nodes"]] == ["0", "0.0", "0.1"]
    assert data["condition"] == "folder"


def test_noise_is_one_leaf_with_its_evidence(noise: Path, tmp_path: Path) -> None:
    result = cluster(noise, output=tmp_path / "groups")
    assert not result.tree.significant and "No significant groups.\n" in result.summary()
    page = (tmp_path / "groups/report.html").read_text(encoding="utf-8")
    assert "No significant groups" in page and "Clearest valley" in page
    assert "--partition K" in page and "--partition K" in result.summary(), "what to do next"
    assert pq.read_table(tmp_path / "groups/nodes.parquet").num_rows == 1
    assert pq.read_table(tmp_path / "groups/enrichment.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("options", "words"), [({"partition": 3}, "not significant"), ({"protocol": "reference"}, "not a test")]
)
def test_descriptions_are_marked_everywhere(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr("stedfm_hf.discovery.clustering.reference.RESAMPLES", 5)
    result = cluster(noise, output=tmp_path / "groups", **options)
    assert words in result.summary() and words in (tmp_path / "groups/report.html").read_text(encoding="utf-8")
    for name in ("memberships", "nodes"):
        assert not any(pq.read_table(tmp_path / f"groups/{name}.parquet")["significant"].to_pylist())


def test_two_runs_are_identical(grouped: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        cluster(grouped, output=tmp_path / name, seed=3)
    for name in ("tree.json", "memberships.parquet", "nodes.parquet", "enrichment.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_images_are_embedded_and_a_finished_result_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, model = write_images(tmp_path / "images"), write_model(tmp_path / "model")
    arguments = [
        "cluster",
        str(images),
        "--model",
        str(model),
        "--output",
        str(tmp_path / "groups"),
        "--device",
        "cpu",
    ]
    assert main(arguments) == 0
    assert "not tested: fewer than 24 different sources" in capsys.readouterr().out
    assert "data:image/png" in (tmp_path / "groups/report.html").read_text(encoding="utf-8")
    assert main(arguments) == 0 and "is finished" in capsys.readouterr().err


def test_a_name_in_the_page_cannot_end_its_script(tmp_path: Path) -> None:
    embeddings = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    table_index(tmp_path / "index", embeddings, [f"</script><b>{n}.tif" for n in range(4)])
    cluster(tmp_path / "index", output=tmp_path / "groups")
    page = (tmp_path / "groups/report.html").read_text(encoding="utf-8")
    assert "<b>" not in page.replace("<\\/script><b>", "") and data_of(page)["images"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"condition": "dose"}, "--condition dose: is not a column of text; there are: folder"),
        ({"partition": 200}, "must be between 2 and the number of items, 80"),
        ({"partition": 3, "protocol": "reference"}, "exclude each other"),
        ({"source_pattern": "x"}, "give it to `stedfm index`"),
    ],
)
def test_wrong_arguments_are_explained(grouped: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        cluster(grouped, output=tmp_path / "groups", **options)


def test_an_index_of_patches_is_refused(tmp_path: Path) -> None:
    images, model = write_images(tmp_path / "images"), write_model(tmp_path / "model")
    index(images, output=tmp_path / "index", model=model, patches=True, device="cpu")
    with pytest.raises(UserError, match="is an index of patches"):
        cluster(tmp_path / "index", output=tmp_path / "groups")
