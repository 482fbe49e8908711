"""Combinations of backend, precision and device, missing libraries, and telemetry."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from stedfm_hf.exports.backends import check_backend
from stedfm_hf.exports.runtimes import import_extra
from stedfm_hf.runs import UserError
from tests.docs.blocks import ROOT

WRONG = [
    (("onnx", "bfloat16"), "onnx has no precision bfloat16; choose float32 or int8"),
    (("openvino", "int8"), "openvino has no precision int8; choose float32 or bfloat16"),
    (("torch", "int8"), "precision int8 needs the backend onnx"),
    (("onnx", "float32", "cuda"), "the backend onnx runs on the CPU; remove --device cuda"),
    (("tensorrt",), "backend 'tensorrt' is unknown; choose torch, onnx, openvino"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_impossible_combinations_are_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_backend(*arguments)


@pytest.mark.parametrize(
    "arguments", [("torch", "bfloat16", "cuda"), ("onnx", "int8"), ("openvino", "bfloat16", "cpu"), ("onnx", "auto")]
)
def test_possible_combinations_are_accepted(arguments: tuple[str, ...]) -> None:
    check_backend(*arguments)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_missing_library_names_the_extra(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "stedfm_hf.exports.backends.find_spec",
        lambda name: None if name in ("onnxruntime", "openvino") else found(name),
    )
    with pytest.raises(UserError, match=rf'is not installed; pip install "stedfm-hf\[{backend}\]"'):
        check_backend(backend)
    with pytest.raises(UserError, match=r'nowhere is not installed; pip install "stedfm-hf\[onnx\]"'):
        import_extra("nowhere.inside", "onnx")


USE = """
import sys, time
from pathlib import Path
from stedfm_hf.inference import load_encoder
began = time.monotonic()
for backend, precision in (("onnx", "float32"), ("onnx", "int8"), ("openvino", "bfloat16")):
    load_encoder(sys.argv[1], device="cpu", backend=backend, precision=precision)
time.sleep(max(0, 14 - time.monotonic() + began))
"""


@pytest.mark.slow
def test_exports_and_backends_ask_no_other_host_and_leave_no_files_at_home(tmp_path: Path) -> None:
    """onnxruntime would send usage data some seconds after its import, OpenVINO at once; both through a proxy."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse() -> None:
            while True:
                try:
                    client, _ = proxy.accept()
                except OSError:
                    return
                with client:
                    asked.append(client.recv(200))

        threading.Thread(target=refuse, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = {
            name: address for each in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (each, each.lower())
        }
        home = tmp_path / "home"
        home.mkdir()
        kept = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY",)}
        environment: dict[str, Any] = kept | proxies | {"HOME": str(home), "PYTHONPATH": str(ROOT)}
        environment |= {"STEDFM_CACHE": str(tmp_path / "cache"), "NO_PROXY": "", "no_proxy": ""}
        environment.pop("XDG_CACHE_HOME", None)
        subprocess.run([sys.executable, "-c", USE, "demo"], env=environment, check=True, timeout=120)
    assert asked == []
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert len(list((tmp_path / "cache" / "exports").glob("[!.]*"))) == 3
