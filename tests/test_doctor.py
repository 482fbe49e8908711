from __future__ import annotations

import socket
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from stedfm_hf import doctor
from stedfm_hf.doctor import Check, diagnose


@pytest.fixture
def by_name() -> dict[str, Check]:
    return {check.name: check for check in diagnose()}


@pytest.fixture
def strange_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that Python finds first; what was imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("torchvision", "timm"):
        sys.modules.pop(name, None)


def test_this_installation_works_and_every_trouble_has_a_mend(by_name: dict[str, Check]) -> None:
    assert [check for check in by_name.values() if check.status == "fail"] == []
    assert all(check.fix for check in by_name.values() if check.status != "ok")
    expected = {"python", "stedfm-hf", "torch", "transformers", "datasets", "huggingface_hub", "safetensors"}
    expected |= {"cpu", "memory", "Hugging Face cache", "stedfm cache", "hub", "torchvision", "timm", "lightly"}
    assert expected <= set(by_name)


def test_offline_mode_asks_nobody(by_name: dict[str, Check]) -> None:
    assert by_name["hub"].status == "ok" and "HF_HUB_OFFLINE" in by_name["hub"].detail


def test_a_torchvision_that_does_not_fit_is_found(strange_packages: Path) -> None:
    (strange_packages / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')", encoding="utf-8"
    )
    (check,) = doctor._torchvision()
    assert check.status == "fail" and "torchvision::nms does not exist" in check.detail
    assert check.fix == "pip uninstall torchvision"


def test_packages_that_pull_it_in_are_named(strange_packages: Path) -> None:
    (strange_packages / "timm.py").write_text("raise RuntimeError('is never imported')", encoding="utf-8")
    timm, lightly = doctor._harmful()
    assert timm.status == "warn" and timm.fix == "pip uninstall timm" and lightly.status == "ok"


def test_versions_are_held_against_what_the_package_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"stedfm-hf": "0.1.0", "torch": "1.0+cpu", "transformers": "5.24.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    declared = ["torch>=2.13", "transformers<6,>=5.23", "tqdm>=4", 'imagecodecs>=2026; extra == "codecs"']
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda name: declared)
    monkeypatch.setattr(
        metadata, "metadata", lambda name: SimpleNamespace(get_all=lambda key: ["all", "codecs", "dev"])
    )
    found = {check.name: check for check in doctor._packages()}
    assert {name: check.status for name, check in found.items()} == {
        "stedfm-hf": "ok",
        "torch": "fail",
        "transformers": "ok",
        "tqdm": "fail",
    }
    assert found["torch"].fix == 'pip install "torch>=2.13"' and "1.0+cpu" in found["torch"].detail
    (extra,) = doctor._extras()
    assert extra == Check("extra [codecs]", "ok", "not installed (imagecodecs)", 'pip install "stedfm-hf[codecs]"')


def test_a_package_that_cannot_be_imported_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.trainer", None)
    torch_check, transformers_check = doctor._imports()
    assert (torch_check.status, transformers_check.status) == ("ok", "fail") and transformers_check.fix


def test_a_check_that_breaks_is_reported_and_the_others_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def _memory() -> Iterator[Check]:
        raise RuntimeError("no /proc here\nand more")
        yield

    monkeypatch.setattr(doctor, "_memory", _memory)
    found = {check.name: check for check in diagnose()}
    assert found["memory"].status == "fail" and found["memory"].detail == "RuntimeError: no /proc here"
    assert "hub" in found and "cpu" in found


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = namedtuple("memory", ["available", "total"])
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory(10**9, 8 * 10**9))
    (check,) = doctor._memory()
    assert check.status == "warn" and check.detail == "1.0 GB of 8.0 GB free"


def test_a_cache_folder_without_room_or_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._folder("cache", tmp_path / "not" / "yet", "HF_HOME").status in ("ok", "warn")
    assert not (tmp_path / "not").exists()
    usage = namedtuple("usage", ["free"])
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage(10**9))
        full = doctor._folder("cache", tmp_path, "HF_HOME")
    assert full.status == "warn" and full.fix is not None and "HF_HOME" in full.fix
    # A file in the place of the folder stands for a folder without permission, which does not stop an administrator.
    (tmp_path / "file").touch()
    shut = doctor._folder("cache", tmp_path / "file", "HF_HOME")
    assert shut.status == "fail" and "cannot be written" in shut.detail and shut.fix is not None


def answer_once(server: socket.socket, reply: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(reply)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]", "ok"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "warn"),
        (b"nonsense\r\n\r\n", "warn"),
    ],
)
def test_whether_the_hub_answers(reply: bytes, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        threading.Thread(target=answer_once, args=(server, reply), daemon=True).start()
        (check,) = doctor._hub()
    assert check.status == status


def test_a_hub_that_cannot_be_reached_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (check,) = doctor._hub()
    assert check.status == "warn" and constants.ENDPOINT in check.detail and check.fix is not None


def test_a_hub_that_does_not_respond_is_not_waited_for() -> None:
    hanging = threading.Event()
    told = doctor._within(0.05, lambda: str(hanging.wait(60)))
    hanging.set()
    assert told == "no response within 0.05 s"
