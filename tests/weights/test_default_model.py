from __future__ import annotations

import zipfile
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from transformers import AutoModel

from stedfm_hf.runs.errors import UserError
from stedfm_hf.weights import default_model as module
from stedfm_hf.weights import official
from stedfm_hf.weights.default_model import HUB_ID, default_model
from tests import parity
from tests.server import Site, serve


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, loopback: Path) -> list[bool]:
    """A Hub without our repository, and how often it was asked."""
    asked: list[bool] = []

    def is_on_hub() -> bool:
        asked.append(False)
        return False

    monkeypatch.setattr(module, "_is_on_hub", is_on_hub)
    return asked


def test_the_authors_file_is_converted_once(
    loopback: Path,
    asked: list[bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save({"state_dict": parity.reference_state_dict("64-p8")}, tmp_path / "weights.pth")
    with zipfile.ZipFile(tmp_path / "mae.zip", "w") as archive:
        archive.write(tmp_path / "weights.pth", "pl_checkpoint-999.pth")
    with serve(Site((tmp_path / "mae.zip").read_bytes()), "mae-small-sted.zip") as site:
        weights = official.OfficialWeights("MAE_SMALL_STED", "stedfm-vit-small", "STED", url=site.url)
        monkeypatch.setitem(official.OFFICIAL_WEIGHTS, "MAE_SMALL_STED", weights)
        model = default_model()
        assert Path(model) == loopback / "models" / "stedfm-vit-small"
        assert AutoModel.from_pretrained(model).config.hidden_size == 128
        assert "converting the archive MAE_SMALL_STED once" in capsys.readouterr().err
        assert default_model() == model
        assert len(site.requests) == len(asked) == 1 and capsys.readouterr().err == ""


def test_a_cached_hub_repository_is_used_without_asking(
    asked: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / f"models--{HUB_ID.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    for name in ("config.json", "preprocessor_config.json"):
        (snapshot / name).write_text("{}")
    assert not module._is_cached()  # the weights are missing
    (snapshot / "model.safetensors").write_bytes(b"")
    assert default_model() == HUB_ID and asked == []


def test_the_hub_is_preferred_to_the_authors_file(loopback: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_on_hub", lambda: True)
    assert default_model() == HUB_ID


def test_without_a_network_the_ways_out_are_named(loopback: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE.*--model.*stedfm convert MAE_SMALL_STED") as error:
        default_model()
    assert "\n" not in str(error.value)
