from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from stedfm_hf.cli import main
from stedfm_hf.studies.study import CLASSIFY, RANK, REAL_OR_GENERATED, TYPES
from tests.studies.examples import values

TABLES = {CLASSIFY: {"confusion"}, REAL_OR_GENERATED: {"detection"}, RANK: {"strengths", "rankings"}}


@pytest.mark.parametrize("kind", TYPES)
def test_a_simulated_study_is_analysed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(yaml.safe_dump(values(kind, title="<b>Maps</b>")))
    simulate = ["study", "simulate", "study.yaml", "--participants", "6", "--repeats", "3"]
    assert main(simulate) == 0
    assert "participants  trials  power" in capsys.readouterr().out
    assert main(simulate) == 0 and "is finished" in capsys.readouterr().err
    analyse = ["study", "analyse", "study.yaml", "simulated/answers.parquet", "--no-mixed-model"]
    assert main([*analyse, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert found["participants"] == 6 and found["means"][0]["group"] == "A" and found["mixed_model"] is None
    assert 0 < found["p"] <= 1
    tables = {path.stem for path in Path("analysis").glob("*.parquet")}
    assert tables == {"scores", "participants"} | TABLES.get(kind, set())
    page = Path("analysis/report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;Maps" in page and "<b>" not in page and "http" not in page
    assert main([*analyse, "--protocol", "reference", "--output", "reference"]) == 0
    assert "report: reference/report.html" in capsys.readouterr().out
    assert main(analyse) == 0 and "is finished" in capsys.readouterr().err
    Path("study.yaml").write_text(yaml.safe_dump(values(kind, title="Other")))
    assert main(analyse) == 2
    assert (
        "analysis: the study file changed since this analysis; replace it with --overwrite" in capsys.readouterr().err
    )


def test_missing_images_are_noted_if_others_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values(number=2)))
    words = [
        "study",
        "simulate",
        str(path),
        "--output",
        str(tmp_path / "out"),
        "--participants",
        "2",
        "--repeats",
        "1",
    ]
    assert main(words) == 0 and "missing" not in capsys.readouterr().err
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "0.png").touch()
    assert main([*words, "--overwrite"]) == 0
    assert "note: 3 of 4 images are missing (B/0.png, A/1.png, B/1.png)" in capsys.readouterr().err


def test_power_is_recommended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values(number=12, expect={"A": 0.9, "B": 0.1})))
    words = ["study", "simulate", str(path), "--output", str(tmp_path / "out"), "--participants", "2", "8"]
    assert main([*words, "--repeats", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recommended"]["participants"] == 8 and [row["power"] for row in found["power"]] == [0, 1]
    assert pq.read_table(tmp_path / "out" / "power.parquet").num_rows == 2


def test_one_group_has_no_test_of_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    shown = [{"id": f"c{i}", "image": "a.png"} for i in range(5)]
    path.write_text(yaml.safe_dump(values(RANK, stimuli=shown, expect={"all images": 0})))
    words = [
        "study",
        "simulate",
        str(path),
        "--output",
        str(tmp_path / "out"),
        "--participants",
        "3",
        "--image-sd",
        "2",
    ]
    assert main([*words, "--repeats", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["power"][0]["power"] is None
    words = [
        "study",
        "analyse",
        str(path),
        str(tmp_path / "out" / "answers.parquet"),
        "--output",
        str(tmp_path / "ana"),
    ]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"]["p"] is None
