"""A process survives signals after a model of OpenVINO was released in another thread."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import gc, os, signal, threading

import numpy as np

from stedfm_hf.exports.runtimes import openvino_core

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
core = openvino_core()
import openvino
from openvino import opset13

values = opset13.parameter([1, 8], np.float32)
models = [core.compile_model(openvino.Model([opset13.relu(values)], [values]), "CPU")]
del core


def release():
    models.clear()
    gc.collect()


thread = threading.Thread(target=release)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal of POSIX")
def test_a_signal_after_a_model_was_released_in_another_thread_is_handled() -> None:
    pytest.importorskip("openvino")
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "handled\n"), run.stderr
