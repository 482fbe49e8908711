"""All published sets: names, resuming, outputs with other results, the card, and the commands."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_dataset

from stedfm_hf.cli import main
from stedfm_hf.data import OFFICIAL_SETS, import_set
from stedfm_hf.data.assembly.staging import Staging, part_name
from stedfm_hf.data.official import import_set as importing
from stedfm_hf.data.official.registry import NOT_STATED
from stedfm_hf.runs import UserError
from tests.data.official.fabricated import OPTIM, PROTOCOLS, counted, rows_of, write_npz, write_optim

Captured = pytest.CaptureFixture[str]


def content(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "data").glob("*.parquet")}


def test_every_set_has_an_importer_with_corrections() -> None:
    for name, each in OFFICIAL_SETS.items():
        module = import_module(f"stedfm_hf.data.official.{each.module}")
        assert each.name == name and module.CORRECTIONS and callable(module.plan) and module.__doc__
        assert each.url is None or each.url.startswith("https://")
        assert each.availability and each.citation and each.licence and each.size


def test_unknown_names_sources_and_options_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Choose one of optim, neural-activity-states"):
        import_set("imagenet", tmp_path, tmp_path / "repo")
    with pytest.raises(UserError, match="no such file or folder"):
        import_set("optim", tmp_path / "gone", tmp_path / "repo")
    with pytest.raises(UserError, match="keep_all cannot be used with the reference protocol"):
        import_set("peroxisome", tmp_path, tmp_path / "repo", protocol="reference", keep_all=True)


def test_an_output_with_other_results_is_not_changed(tmp_path: Path) -> None:
    write_optim(tmp_path / "set")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds other files"):
        import_set("optim", tmp_path / "set", tmp_path / "other", overwrite=True)
    import_set("optim", tmp_path / "set", tmp_path / "repo")
    before = content(tmp_path / "repo")
    with pytest.raises(UserError, match="protocol: 'default' before, 'reference' now"):
        import_set("optim", tmp_path / "set", tmp_path / "repo", protocol="reference")
    assert content(tmp_path / "repo") == before
    with pytest.raises(UserError, match="is a file"):
        import_set("optim", tmp_path / "set", tmp_path / "other" / "thesis.txt")
    again = import_set("optim", tmp_path / "set", tmp_path / "repo", protocol="reference", overwrite=True)
    assert again.labels == OPTIM and content(tmp_path / "repo") != before


def test_an_interrupted_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_optim(tmp_path / "set")
    shutil.copytree(tmp_path / "set" / "optim-data" / "actin", tmp_path / "set" / "optim_train" / "actin" / "copies")
    monkeypatch.setattr(importing, "PART_ITEMS", 5)
    whole = import_set("optim", tmp_path / "set", tmp_path / "whole")
    read, write = list[str](), importing._write_part

    def stop_at_the_third(staging: Staging, name: str, *rest: Any) -> None:
        read.append(name)
        if name == part_name(3):
            raise KeyboardInterrupt
        write(staging, name, *rest)

    monkeypatch.setattr(importing, "_write_part", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        import_set("optim", tmp_path / "set", tmp_path / "repo")

    def go_on(staging: Staging, name: str, *rest: Any) -> None:
        read.append(name)
        write(staging, name, *rest)

    monkeypatch.setattr(importing, "_write_part", go_on)
    resumed = import_set("optim", tmp_path / "set", tmp_path / "repo")
    assert read == [part_name(number) for number in (1, 2, 3, 3, 4, 5, 6)] and content(tmp_path / "repo") == content(
        tmp_path / "whole"
    )
    assert resumed.manifest.items == whole.manifest.items
    # The copies of test images are known although those were read by the earlier run.
    assert counted(resumed)["train"] == dict.fromkeys(OPTIM, 2)
    read.clear()
    assert import_set("optim", tmp_path / "set", tmp_path / "repo").crops == whole.crops and not read


def test_a_changed_source_is_refused(tmp_path: Path) -> None:
    write_optim(tmp_path / "set")
    import_set("optim", tmp_path / "set", tmp_path / "repo")
    (tmp_path / "set" / "optim-data" / "actin" / "new.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="source: "):
        import_set("optim", tmp_path / "set", tmp_path / "repo")


def test_the_output_may_be_inside_the_source(tmp_path: Path) -> None:
    write_optim(tmp_path / "set")
    first = import_set("optim", tmp_path / "set", tmp_path / "set" / "repo")
    again = import_set("optim", tmp_path / "set", tmp_path / "set" / "repo")
    assert first.crops == again.crops and "repo/manifest.json" not in first.manifest.items


@pytest.mark.parametrize("legacy", [False, True])
def test_the_card_lists_corrections_and_the_set_loads(tmp_path: Path, card: None, legacy: bool) -> None:
    write_optim(tmp_path / "set")
    write_npz(tmp_path / "set" / "optim-data" / "actin" / "flat-0.80.npz", np.full((224, 224), 5.0))
    import_set("optim", tmp_path / "set", tmp_path / "repo", protocol=PROTOCOLS[legacy])
    text = (tmp_path / "repo" / "README.md").read_text(encoding="utf-8")
    assert ("Not corrected here: An image without contrast" in text) is legacy
    assert "Durand et al." in text and NOT_STATED in text
    loaded = load_dataset(str(tmp_path / "repo"), split="test")
    assert loaded.features["label"].names == list(OPTIM) and len(loaded) == 9


def test_the_list_of_sets(capsys: Captured) -> None:
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *OFFICIAL_SETS]
    assert main(["data", "list", "--json"]) == 0
    sets = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in sets] == list(OFFICIAL_SETS)
    assert {"url", "availability", "licence", "citation", "size", "reference_name"} <= set(sets[0])


def test_the_command(tmp_path: Path, capsys: Captured) -> None:
    write_optim(tmp_path / "set")
    damaged = tmp_path / "set" / "optim-data" / "tubulin" / "day 1" / "image-1-0.95.npz"
    damaged.write_bytes(b"PK\x03\x04 damaged")
    words = ["data", "import-set", "optim", str(tmp_path / "set"), "--output", str(tmp_path / "repo")]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "23 crops" in out and "12 x score below 0.70" in out
    assert "error: optim-data/tubulin/day 1/image-1-0.95.npz: " in err
    assert main([*words, "--overwrite", "--protocol", "reference", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["labels"] == list(OPTIM) and (result["done"], result["failed"], result["skipped"]) == (23, 1, 12)
    assert main([*words[:2], "nothing", *words[3:]]) == 2


def test_an_import_without_any_image_left_is_an_error(tmp_path: Path) -> None:
    write_optim(tmp_path / "set", ("optim-data",))
    for path in (tmp_path / "set").rglob("*.npz"):
        path.write_bytes(b"PK")
    with pytest.raises(UserError, match="no crop is left"):
        import_set("optim", tmp_path / "set", tmp_path / "repo")
    assert rows_of(tmp_path / "repo") == []
