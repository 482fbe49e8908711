"""Shorten what the documentation runs: few steps, few simulated images, small forests, no pools of processes.

`python -m tests.docs.shorter stedfm ...` and `python -m tests.docs.shorter torchrun ...` run a command so, for the
lines of the documentation that need a shell.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stedfm_hf.acquisition.loop.power import measure_power
from stedfm_hf.acquisition.loop.scenes import make_scene
from stedfm_hf.acquisition.loop.settings import LoopSettings
from stedfm_hf.acquisition.settings import FindSettings, FitFinderSettings
from stedfm_hf.cli import main
from stedfm_hf.data.settings import BuildSettings, SimulateSettings
from stedfm_hf.evaluation.segmentation.forest import PixelForest
from stedfm_hf.evaluation.settings import ProbeSettings, RobustnessSettings
from stedfm_hf.generation.settings import AttributeWalkSettings, GenerateSettings
from stedfm_hf.training.finetuning.settings import ClassificationSettings, SegmentationSettings
from stedfm_hf.training.generation.settings import GenerationSettings
from stedfm_hf.training.settings import PretrainSettings

_FINETUNING = {"max_steps": 2, "effective_batch_size": 8, "num_evaluations": 1, "device": "cpu"}
IMAGES = 12
# Fields of the settings of a command that have these values, whatever the documentation says.
SHORTER: dict[type, dict[str, Any]] = {
    PretrainSettings: {"max_steps": 2, "effective_batch_size": 4, "device": "cpu"},
    GenerationSettings: {
        "max_steps": 2,
        "effective_batch_size": 4,
        "base_channels": 8,
        "patch_size": 4,
        "evaluation_images": 2,
        "evaluation_steps": 1,
        "device": "cpu",
    },
    ClassificationSettings: _FINETUNING,
    SegmentationSettings: {**_FINETUNING, "effective_batch_size": 4, "overlays": 1},
    GenerateSettings: {"num_inference_steps": 2, "number": 1, "device": "cpu"},
    AttributeWalkSettings: {"num_inference_steps": 2, "device": "cpu"},
    ProbeSettings: {"repeats": 1},
    RobustnessSettings: {"repeats": 1, "baselines": ["histogram"]},
    BuildSettings: {"workers": 1},
    FitFinderSettings: {"rotations": False, "tile_overlap": 0, "device": "cpu"},
    FindSettings: {"tile_overlap": 0, "device": "cpu"},
    LoopSettings: {"seeds": [0], "targets": ["rings"], "regions": 1, "engine": "builtin", "device": "cpu"},
}
SCRIPTS = {
    "pretrain.py": PretrainSettings,
    "generate.py": GenerationSettings,
    "classify.py": ClassificationSettings,
    "segment.py": SegmentationSettings,
}


@contextmanager
def shortened() -> Iterator[None]:
    """Shorten all commands, and the functions of the same names, while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        for kind, values in SHORTER.items():
            patch.setattr(kind, "__init__", _shorter(kind.__init__, values))  # type: ignore[misc]
        patch.setattr(SimulateSettings, "__init__", _fewer_images(SimulateSettings.__init__))
        patch.setattr("stedfm_hf.generation.measured.MOST_REAL", 4)
        loop = "stedfm_hf.acquisition.loop.evaluation_run"
        patch.setattr(f"{loop}.make_scene", partial(make_scene, size_um=6.4, per_kind=1))
        patch.setattr(f"{loop}.measure_power", partial(measure_power, (0.0, 100.0), size_px=64))
        patch.setattr(PixelForest, "__init__", _shorter(PixelForest.__init__, {"n_estimators": 2}))
        yield


def _shorter(make: Any, values: dict[str, Any]) -> Any:
    def init(self: Any, *args: Any, **given: Any) -> None:
        make(self, *args, **given | values)

    return init


def _fewer_images(make: Any) -> Any:
    def init(self: Any, *args: Any, **given: Any) -> None:
        values: dict[str, Any] = {"workers": 1}
        if not given.get("splits"):
            values["per_structure"] = IMAGES
            if given.get("preset"):  # a part of a preset can be had from number 1000 on, where no split is
                values["first_index"] = 1000
        make(self, *args, **given | values)

    return init


def _torchrun(words: Sequence[str]) -> None:
    from torch.distributed.run import main as run

    (kind,) = [SCRIPTS[Path(word).name] for word in words if Path(word).name in SCRIPTS]
    options = [word for name, value in SHORTER[kind].items() for word in (f"--{name.replace('_', '-')}", str(value))]
    run([*words, *options])


if __name__ == "__main__":
    if sys.argv[1] == "torchrun":
        _torchrun(sys.argv[2:])
    else:
        with shortened():
            sys.exit(main(sys.argv[2:]))
