from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# The last ones are themselves half imported when they import transformers, and registration needs all of both.
BEGINNINGS = [
    "import stedfm_hf",
    pytest.param("import transformers, stedfm_hf", marks=pytest.mark.slow),
    pytest.param("import stedfm_hf.modeling.configuration_stedfm", marks=pytest.mark.slow),
    pytest.param("import stedfm_hf.modeling.pipeline_stedfm", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_transformers_knows_the_model_whichever_is_imported_first(beginning: str) -> None:
    code = f"""
{beginning}
from transformers import AutoConfig, AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
config = AutoConfig.for_model("stedfm", num_hidden_layers=1)
assert type(AutoModel.from_config(config)) is stedfm_hf.StedFmModel
assert "stedfm-feature-extraction" in PIPELINE_REGISTRY.get_supported_tasks()
from stedfm_hf.modeling.io_registry_stedfm import readable_suffixes
assert ".msr" in readable_suffixes()  # pipelines and processors read the files of instruments
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
    assert run.returncode == 0, run.stderr


def test_importing_the_package_waits_for_nothing() -> None:
    code = "import sys, stedfm_hf; sys.exit(bool({'torch', 'transformers', 'numpy'}.intersection(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=120).returncode == 0
