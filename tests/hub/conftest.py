from __future__ import annotations

import time
from pathlib import Path

import huggingface_hub.constants
import pytest


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Lets downloads reach this machine, without waiting between attempts; gives an empty cache folder."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    cache = tmp_path / "cache"
    monkeypatch.setenv("STEDFM_CACHE", str(cache))
    return cache
