"""Run the loop of one policy: choose, acquire, compare with the ground truth, update."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.acquisition.loop.policies import Classifier, Policy, Position
from stedfm_hf.acquisition.loop.scenes import Scene
from stedfm_hf.acquisition.microscope import Frame
from stedfm_hf.acquisition.simulated_microscope import Dose, SimulatedMicroscope

CURVE_SCHEMA = pa.schema(
    [
        ("seed", pa.int64()),
        ("target", pa.string()),
        ("policy", pa.string()),
        ("objects", pa.int64()),
        ("regions", pa.int64()),
        ("x_um", pa.float64()),
        ("y_um", pa.float64()),
        ("found", pa.int64()),
        ("energy_mj", pa.float64()),
        ("photons", pa.int64()),
        ("bleached", pa.int64()),
        ("seconds", pa.float64()),
        ("molecules", pa.int64()),
        ("budget_mj", pa.float64()),
        ("budget_s", pa.float64()),
    ]
)
"""Columns of the table of curves."""
FOUND = 0.5
"""Fraction of the molecules of an object, as it was before the first scan, that a region must contain."""


@dataclass(frozen=True)
class Step:
    """State of a loop after a region.

    Attributes:
        regions: Number of regions so far; 0 before the first one.
        x_um: x of the centre of the region on the stage, in µm; None before the first region.
        y_um: y of the centre, in µm.
        found: Number of objects of the target found so far.
        dose: Dose so far, with that of the overview.
    """

    regions: int
    x_um: float | None
    y_um: float | None
    found: int
    dose: Dose

    def row(self) -> dict[str, Any]:
        """Return the columns of the table of curves."""
        values = asdict(self)
        return {name: each for name, each in values.items() if name != "dose"} | values["dose"]


@dataclass(frozen=True)
class Budget:
    """Dose and time that a loop may use; it ends when both are used up.

    Attributes:
        energy_mj: Energy of the beams, in millijoules.
        seconds: Time, in seconds.
    """

    energy_mj: float
    seconds: float

    def has_room(self, dose: Dose, region: Dose) -> bool:
        """Return whether there is energy or time left for a region."""
        slack = 1 + 1e-9
        return (
            dose.energy_mj + region.energy_mj <= self.energy_mj * slack
            or dose.seconds + region.seconds <= self.seconds * slack
        )


def run_loop(
    scene: Scene, microscope: SimulatedMicroscope, policy: Policy, target: str, budget: Budget, region: Dose
) -> tuple[list[Step], list[Frame]]:
    """Run one policy.

    An object is found when a region contains at least half of the molecules that it had before the first scan: a
    region must hit it, and it must not be bleached.

    Args:
        scene: Sample.
        microscope: Microscope with the sample; its dose includes that of the overview if the policy needs one.
        policy: Policy.
        target: Kind of the objects to find.
        budget: Dose and time.
        region: Dose of one region.

    Returns:
        Steps, the first before any region, and the acquired images.
    """
    wanted = scene.objects(target)
    initial = np.maximum(scene.counts(scene.molecules), 1)
    found: set[int] = set()
    visited: list[Position] = []
    steps, frames = [Step(0, None, None, 0, microscope.dose)], list[Frame]()
    while budget.has_room(microscope.dose, region):
        x_um, y_um = policy.choose(visited)
        visited.append((x_um, y_um))
        microscope.move_to(x_um, y_um)
        before = microscope.molecules.copy()
        frame = microscope.acquire(policy.region_um, policy.region_um)
        frames.append(frame)
        inside = scene.counts(np.where(_inside(frame, scene.owner.shape, microscope), before, 0))
        found |= {number for number in wanted.tolist() if inside[number] >= FOUND * initial[number]}
        steps.append(Step(len(visited), x_um, y_um, len(found), microscope.dose))
        if isinstance(policy, Classifier):
            assert policy.field is not None
            overview = policy.field.frame
            step = microscope.overview_step
            shown = _inside(frame, scene.owner.shape, microscope)[::step, ::step]
            plane = scene.mask(target, step)
            assert shown.shape == overview.pixels.shape
            policy.update(policy.field.label(plane & shown, shown, target, 1))
    return steps, frames


def _inside(frame: Frame, shape: tuple[int, ...], microscope: SimulatedMicroscope) -> np.ndarray:
    """Return which pixels of the sample a region shows (H, W) bool."""
    size = microscope.pixel_size_nm / 1000
    window = []
    for axis in (0, 1):
        middle = (frame.centre_um[1 - axis] - microscope.corner_um[1 - axis]) / size
        half = frame.pixels.shape[axis] / 2
        window.append(slice(max(0, round(middle - half)), max(0, round(middle + half))))
    inside = np.zeros(shape, bool)
    inside[tuple(window)] = True
    return inside
