"""Check that a folder loads with and without this package, in new interpreters; a model with the same outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stedfm_hf.runs import print_note
from stedfm_hf.runs.upload_checks import Finding

_SECONDS = 600
_WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "stedfm_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""
_LOAD = """
import hashlib, json, sys, warnings
warnings.simplefilter("ignore")
import torch, transformers
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
folder, trust = sys.argv[1], sys.argv[2] == "trust"
if not trust:
    import stedfm_hf
torch.manual_seed(0)
config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust)
name = (config.architectures or [""])[0]
heads = {
    "ForPreTraining": transformers.AutoModelForPreTraining,
    "ForImageClassification": transformers.AutoModelForImageClassification,
    "ForSemanticSegmentation": transformers.AutoModelForSemanticSegmentation,
}
autos = [transformers.AutoModel, *(auto for end, auto in heads.items() if name.endswith(end))]
processor = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=trust)
size = config.image_size
image = (torch.arange(config.num_channels * size * size) * 40503 % 65521).reshape(-1, size, size)
inputs = processor(image.to(torch.int32).numpy().astype("uint16"), return_tensors="pt")
found = {}
for auto in autos:
    model, loading = auto.from_pretrained(
        folder, trust_remote_code=trust, dtype=torch.float32, output_loading_info=True
    )
    if loading["missing_keys"]:
        raise ValueError(f"weights are missing: {sorted(loading['missing_keys'])[:3]}")
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    for key, value in outputs.items():
        if isinstance(value, torch.Tensor):
            found[f"{auto.__name__}.{key}"] = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
print("OUTPUTS", json.dumps(found))
"""
_LOAD_PIPELINE = """
import sys, warnings
warnings.simplefilter("ignore")
import json, pathlib
folder, trust = sys.argv[1], sys.argv[2] == "trust"
import diffusers
pipeline = diffusers.DiffusionPipeline
if not trust:
    import stedfm_hf
    name = json.loads(pathlib.Path(folder, "model_index.json").read_text())["_class_name"]
    if isinstance(name, list):  # a pipeline of this package, whose class diffusers does not know
        pipeline = getattr(stedfm_hf, name[1], pipeline)
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
pipeline.from_pretrained(folder, trust_remote_code=trust)
print("OUTPUTS {}")
"""


def check_pipeline_loading(folder: Path) -> list[Finding]:
    """Load a pipeline of diffusers with this package, and with `trust_remote_code` where it cannot be imported.

    Args:
        folder: Folder of the pipeline.

    Returns:
        Problems; none if both load. Outputs are not compared, because they depend on the arguments of the pipeline.
    """
    return _load(folder, _LOAD_PIPELINE, "model_index.json", "pipeline")[1]


def check_loading(folder: Path) -> list[Finding]:
    """Load a model with this package, and with `trust_remote_code` where this package cannot be imported.

    The processor, the encoder and the model with its head are applied to one image. Nothing is downloaded.

    Args:
        folder: Folder of the model.

    Returns:
        Problems; none if both load and all outputs are identical.
    """
    outputs, findings = _load(folder, _LOAD, "config.json", "model")
    if len(outputs) == 2 and outputs["package"] != outputs["trust"]:
        different = [key for key in outputs["package"] if outputs["package"][key] != outputs["trust"].get(key)]
        findings.append(
            Finding(
                "modeling_stedfm.py",
                f"the model returns other values without stedfm-hf ({', '.join(different)}), because the code in the "
                "folder is of another version; load the model and save it again with `save_pretrained`",
            )
        )
    return findings


def _load(folder: Path, code: str, file: str, what: str) -> tuple[dict[str, dict[str, str]], list[Finding]]:
    """Run code that loads a folder with and without this package.

    Args:
        folder: Folder to load.
        code: Code that prints the checksums of outputs; see `_LOAD`.
        file: File to name in the problems.
        what: What is loaded, for the problems.

    Returns:
        Checksums of the outputs by how the folder was loaded ("package" or "trust"), and problems.
    """
    print_note(f"{folder}: checking that the {what} loads with and without stedfm-hf, which can take minutes")
    with tempfile.TemporaryDirectory(prefix="stedfm-publish-") as cache:
        runs = {how: _start(folder, code, how, Path(cache, how)) for how in ("package", "trust")}
        results = {how: run.communicate(timeout=_SECONDS) for how, run in runs.items()}
    outputs = {}
    findings = []
    for how, where in (("package", "with stedfm-hf"), ("trust", "without stedfm-hf, with trust_remote_code=True")):
        printed, errors = results[how]
        if runs[how].returncode:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            findings.append(Finding(file, f"the {what} does not load {where} ({last}); save it again"))
        else:
            outputs[how] = json.loads(printed.rpartition("OUTPUTS")[2])
    return outputs, findings


def _start(folder: Path, code: str, how: str, cache: Path) -> subprocess.Popen[str]:
    """Start an interpreter that runs the code, with an empty cache and without the network."""
    code = code if how == "package" else _WITHOUT + code
    # Variables of a distributed run would make the interpreter wait for other processes.
    left_out = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "HF_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for name in ("HF_MODULES_CACHE", "HF_HUB_CACHE"):
        environment.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder.resolve()), how],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
