from __future__ import annotations

import pytest

from stedfm_hf.data.assembly import assemble as assembly
from tests.data.assembled import write_plain_card


@pytest.fixture(autouse=True)
def _without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a plain card, because plotting its figures takes most of the time."""
    if "card" not in request.fixturenames:
        monkeypatch.setattr(assembly, "write_card", write_plain_card)


@pytest.fixture
def card() -> None:
    """Request the card with its figures."""
