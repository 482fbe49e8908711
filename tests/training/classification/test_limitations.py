"""What few images can show is said wherever the figures are: on the terminal, in `metrics.json`, on the card."""

from __future__ import annotations

from pathlib import Path

import pytest

from stedfm_hf.runs import read_json
from tests.training.classification.small_runs import run, write_crops

FEW = "has only 3 source images"


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_crops(tmp_path_factory.mktemp("data") / "few", 24)


def test_few_source_images_allow_no_conclusion(encoder: Path, few: Path, tmp_path: Path) -> None:
    result = run(encoder, few, tmp_path / "run", "--max_steps 2 --num-evaluations 1")
    record = read_json(tmp_path / "run" / "metrics.json")
    assert FEW in record["limitations"][0] and "fewer than 5 source images" in record["limitations"][1]
    assert f"no conclusion can be drawn: the test {FEW}" in result.summary()
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "**No conclusion can be drawn**" in card and FEW in card
