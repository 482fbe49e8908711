"""Freed memory stays with the process: the same block of memory is used again without new pages from the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from stedfm_hf.runs.memory import keep_freed_memory

NEW_PAGES = """
import resource, sys
import numpy as np
from stedfm_hf.runs.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(3):
    np.ones(400_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(400_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Counts the new pages of 20 arrays of 3.2 MB, of which each is freed before the next."""
TRIMMED = {"MALLOC_TRIM_THRESHOLD_": "65536"}
"""The setting that Dask gives its workers."""


def new_pages(word: str) -> int:
    run = subprocess.run([sys.executable, "-c", NEW_PAGES, word], env=TRIMMED, capture_output=True, text=True)
    return int(run.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="needs the C library of GNU",
)
def test_a_freed_block_is_used_again_also_in_a_worker_of_dask() -> None:
    assert new_pages("give back") > 20 * 500
    assert new_pages("keep") < 500


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_are_left_alone(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", pytest.fail)
    keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
