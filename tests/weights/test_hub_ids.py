"""Models by their id on the Hub: what is reported when it cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from stedfm_hf.inference import load_encoder
from stedfm_hf.runs import UserError
from tests.hub_server import Hub, Repository, hub_server, use_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as hub:
        use_hub(hub, monkeypatch, token=None)
        for name, repository in {"gated": Repository(gated=True), "private": Repository(private=True)}.items():
            repository.commit("Upload", {"config.json": b"{}"})
            hub.repositories["model", f"lab/{name}"] = repository
        hub.repositories["model", "lab/empty"] = Repository()
        hub.repositories["model", "lab/empty"].commit("Upload", {"notes.txt": b"later"})
        yield hub


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "the Hub has no such repository, or it is private; check the name"),
        ("private", "the Hub has no such repository, or it is private; check the name"),
        ("gated", "access to it is restricted; ask for access on its page"),
        ("empty", "cannot be loaded|holds no model"),
    ],
)
def test_a_repository_that_cannot_be_read_is_one_line_with_a_way_out(hub: Hub, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        load_encoder(f"lab/{name}")
    assert "stedfm convert" in str(error.value) and "\n" not in str(error.value)
    assert "https://huggingface.co" not in str(error.value)


def test_offline_mode_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set\), and the model is not in the cache"):
        load_encoder("lab/none")
