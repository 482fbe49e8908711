"""The code of a published card: it loads the repository by its id, and runs on another computer."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from stedfm_hf import StedFmForImageClassification, StedFmForSemanticSegmentation
from stedfm_hf.hub.publish import publish
from stedfm_hf.modeling.card_stedfm import CARD
from tests.hub.test_publish import write_model
from tests.hub_server import Hub, environment_of, hub_server, use_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    # The two interpreters that load the model are left out: tests of `publish` start them.
    monkeypatch.setattr("stedfm_hf.hub.kinds.check_loading", lambda folder: [])
    with hub_server() as hub:
        use_hub(hub, monkeypatch)
        yield hub


def code_of(card: bytes, language: str) -> list[str]:
    """Return the code blocks of a card."""
    return re.findall(rf"^```{language}\n(.*?)^```", card.decode(), flags=re.DOTALL | re.MULTILINE)


def loaded_ids(code: str) -> set[Any]:
    """Return the first argument of every `from_pretrained`, and the models of every `pipeline`."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    named = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "model"]
    first = [call.args[0] for call in calls if getattr(call.func, "attr", "") == "from_pretrained"]
    return {ast.literal_eval(node) for node in (*named, *first)}


@pytest.mark.parametrize("kind", [StedFmForImageClassification, StedFmForSemanticSegmentation])
def test_the_code_of_the_published_card_uses_the_id(hub: Hub, tmp_path: Path, kind: Any) -> None:
    folder = write_model(tmp_path / "my-model", kind)
    local = (folder / CARD).read_text()
    publish(folder, "my-lab/published")
    card = hub.model("my-lab/published").files[CARD]
    blocks = code_of(card, "python")
    assert [loaded_ids(code) for code in blocks] == [{"my-lab/published"}] * 2
    assert all("--model my-lab/published " in code for code in code_of(card, "bash"))
    assert (folder / CARD).read_text() == local and '"my-model"' in local
    commits = len(hub.model("my-lab/published").commits)
    publish(folder, "my-lab/published")
    assert len(hub.model("my-lab/published").commits) == commits


@pytest.mark.slow
def test_the_code_of_the_published_card_runs(hub: Hub, tmp_path: Path) -> None:
    publish(write_model(tmp_path / "my-model", StedFmForImageClassification), "my-lab/published")
    (tmp_path / "elsewhere").mkdir()
    tifffile.imwrite(tmp_path / "elsewhere/cell.tif", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    for number, code in enumerate(code_of(hub.model("my-lab/published").files[CARD], "python")):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=environment_of(hub, tmp_path / f"cache-{number}"),
            cwd=tmp_path / "elsewhere",
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
