from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from stedfm_hf.runs import secret_detection as secrets

TOKENS = [
    "hf_" + "aB3" * 12,
    "hf_oauth_" + "eyJhbGciOiJFZERTQSJ9.x-y_z",
    "api_org_" + "aB3" * 12,
    "ghp_" + "aB3" * 12,
    "github_pat_" + "11ABC_" * 6,
    "AKIA" + "ABCD" * 4,
    "-----BEGIN OPENSSH PRIVATE KEY-----",
]


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_found_and_hidden(tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secrets.secrets_in_text(f"key='{token}'") and token not in secrets.without_secrets(f"a {token} b")
    monkeypatch.setattr(secrets, "_BLOCK", 64)
    for start in (0, 50, 60):  # also between two blocks
        (tmp_path / "a.txt").write_text("-" * start + " " + token + "\n" + "-" * 100)
        assert len(secrets.secrets_in_file(tmp_path / "a.txt")) == 1
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", token + "\n" + "-" * 200)
    assert secrets.secrets_in_file(tmp_path / "a.zip")


@pytest.mark.parametrize(
    "text", ["hf_transfer", "hf_hub_download(...)", "AKIAS", "ghp_short", "a BEGIN of a PRIVATE KEY"]
)
def test_other_words_are_not_secrets(text: str) -> None:
    assert secrets.secrets_in_text(text) == [] and secrets.without_secrets(text) == text
