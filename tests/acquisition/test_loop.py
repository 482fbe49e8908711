"""The simulated loop: scenes, policies, the comparison, resuming and the report."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from stedfm_hf import StedFmModel
from stedfm_hf.acquisition import SimulatedMicroscope, evaluate_acquisition, make_scene, measure_power
from stedfm_hf.acquisition.loop import evaluation_run
from stedfm_hf.acquisition.loop.comparison import compare, curves
from stedfm_hf.acquisition.loop.policies import POLICIES, Raster
from stedfm_hf.acquisition.loop.report import _lead
from stedfm_hf.acquisition.loop.running import Budget, run_loop
from stedfm_hf.acquisition.loop.settings import POLICY_NAMES
from stedfm_hf.acquisition.simulated_microscope import STED, scan_dose
from stedfm_hf.cli import main
from stedfm_hf.runs import UserError
from tests.models import tiny_config

SMALL: dict[str, Any] = {"kinds": ("rings", "puncta"), "size_um": 6.4, "per_kind": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loop") / "model"
    torch.manual_seed(0)
    StedFmModel(tiny_config()).save_pretrained(folder)
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the scenes of the command small."""
    monkeypatch.setattr(evaluation_run, "make_scene", partial(make_scene, **SMALL))
    monkeypatch.setattr(evaluation_run, "STRUCTURES", dict.fromkeys(SMALL["kinds"]))
    monkeypatch.setattr(evaluation_run, "measure_power", partial(measure_power, (0.0, 100.0), size_px=64))


def test_all_kinds_of_objects_are_equally_many_and_equally_bright() -> None:
    scene = make_scene(3)
    frame = pd.DataFrame({"kind": scene.kinds, "molecules": scene.counts(scene.molecules)[1:]})
    assert frame.groupby("kind").size().tolist() == [7] * 7
    means = np.log(frame["molecules"]).groupby(frame["kind"]).mean()
    assert np.ptp(means) < 0.8 and scene.counts(scene.molecules)[0] == 0
    distances = np.linalg.norm(scene.centres[:, None] - scene.centres, axis=2) + 1e9 * np.eye(49)
    assert distances.min() >= 1000 * 1.7 / scene.pixel_size_nm
    assert (make_scene(3).molecules == scene.molecules).all() and (make_scene((3, 1)).owner != scene.owner).any()
    mask = scene.mask("rings", 2)
    assert mask.shape == (400, 400) and mask[tuple((scene.centres[scene.objects("rings")[0] - 1] // 2).astype(int))]
    with pytest.raises(ValueError, match="not enough room"):
        make_scene(0, size_um=4.0)


def test_raster_and_random_regions_lie_side_by_side_in_the_sample() -> None:
    for name in ("raster", "random"):
        policy = POLICIES[name](size_um=6.4, region_um=1.6, rng=np.random.default_rng(0))
        visited: list[tuple[float, float]] = []
        for _ in range(6):
            visited.append(policy.choose(visited))
        assert all(0.799 < each < 5.601 for position in visited for each in position)
        assert all(policy.is_apart(each, visited[:number]) for number, each in enumerate(visited))
    policy = POLICIES["raster"](size_um=6.4, region_um=1.6, rng=np.random.default_rng(0))
    assert policy.choose([]) == pytest.approx((0.8, 0.8)) and policy.choose([(0.8, 0.8)]) == pytest.approx((2.4, 0.8))


def test_an_object_is_found_once_and_not_after_it_is_bleached() -> None:
    scene = make_scene(1, **SMALL)
    (row, col), wanted = scene.centres[scene.objects("rings")[0] - 1], scene.objects("rings")
    region = scan_dose(STED, 80 * 80)

    class Same(Raster):
        def choose(self, visited: Any) -> tuple[float, float]:
            return 0.02 * (col + 0.5), 0.02 * (row + 0.5)

    def run(molecules: np.ndarray) -> list[int]:
        microscope = SimulatedMicroscope(molecules, engine="builtin", seed=0)
        policy = Same(size_um=6.4, region_um=1.6, rng=np.random.default_rng(0))
        budget = Budget(3 * region.energy_mj, 0)
        steps, frames = run_loop(scene, microscope, policy, "rings", budget, region)
        assert len(frames) == 3 and steps[-1].dose.energy_mj == pytest.approx(3 * region.energy_mj)
        return [each.found for each in steps]

    assert len(wanted) == 2 and run(scene.molecules) == [0, 1, 1, 1]
    assert run(np.random.default_rng(0).binomial(scene.molecules, 0.4)) == [0, 0, 0, 0]


def test_the_comparison_is_at_the_same_dose_and_in_the_same_time() -> None:
    rows = []
    for seed, policy, step in [(s, p, n) for s in (0, 1) for p in ("random", "template") for n in range(5)]:
        overview = 1.0 if policy == "template" else 0.0
        if step == 4 and policy == "template":
            continue
        rows.append(
            {
                "seed": seed,
                "target": "rings",
                "policy": policy,
                "objects": 7,
                "regions": step,
                "found": step // 2 if policy == "random" else step + seed,
                "energy_mj": overview + step,
                "seconds": 2 * overview + step,
                "bleached": step,
                "molecules": 10,
                "budget_mj": 3.0,
                "budget_s": 5.0,
            }
        )
    table = pa.Table.from_pylist(rows)
    found = compare(table, 3)
    random, template = found["policies"]
    assert (random["at_dose"]["mean"], template["at_dose"]["mean"]) == (1.0, 2.5)
    assert (random["in_time"]["mean"], template["in_time"]["mean"]) == (2.0, 3.5)
    assert template["by_seed"] == [2.0, 3.0] and template["over_random"]["ratio"] == 2.5
    assert "over_intensity" not in template and found["overview_s"] == 2.0
    assert curves(table, "energy_mj", np.array([0.0, 1.0, 2.5]))["template"].tolist() == [[0, 0, 1], [0, 1, 2]]


def test_the_command_compares_all_policies_and_resumes(
    model: Path, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"model": model, "engine": "builtin", "regions": 3, "targets": ["puncta"]}
    whole = evaluate_acquisition(tmp_path / "whole", seeds=[5, 6], device="cpu", **options)
    frame = whole.table.to_pandas()
    assert list(dict.fromkeys(frame["policy"])) == list(POLICY_NAMES)
    counts = frame.groupby(["seed", "policy"])["regions"].max().unstack()
    assert (counts[["intensity", "template", "classifier", "classifier-exploring"]] == 3).all(axis=None)
    assert (counts[["raster", "random"]] >= 3).all(axis=None)
    assert frame["bleached"].max() > 0 and (frame["found"] <= frame["objects"]).all()
    assert set(json.loads((tmp_path / "whole" / "results.json").read_text())["targets"]) == {"puncta"}
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "classifier-exploring" in page and "http" not in page.replace("http://www.w3.org", "")
    assert "No conclusion" not in page and "bands are 95 % intervals" in page and "<dd>2 (5, 6)</dd>" in page
    assert not (tmp_path / "whole" / "parts").exists()

    simulate_seed = evaluation_run.simulate_seed

    def stop(*arguments: Any) -> Any:
        if arguments[-1] == 6:
            raise KeyboardInterrupt
        return simulate_seed(*arguments)

    monkeypatch.setattr(evaluation_run, "simulate_seed", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate_acquisition(tmp_path / "resumed", seeds=[5, 6], device="cpu", **options)
    done: list[int] = []

    def count(*arguments: Any) -> Any:
        done.append(arguments[-1])
        return simulate_seed(*arguments)

    monkeypatch.setattr(evaluation_run, "simulate_seed", count)
    resumed = evaluate_acquisition(tmp_path / "resumed", seeds=[5, 6], device="cpu", **options)
    assert done == [6] and resumed.table.equals(whole.table) and resumed.results == whole.results
    words = ["--output", str(tmp_path / "whole"), "--model", str(model), "--engine", "builtin", "--regions", "3"]
    words += ["--targets", "puncta", "--seeds", "5", "6", "--device", "cpu"]
    assert main(["evaluate", "acquisition", *words]) == 0 and done == [6]


def test_the_report_of_one_seed_draws_no_conclusion(model: Path, small: None, tmp_path: Path) -> None:
    options: dict[str, Any] = {"regions": 2, "targets": ["puncta"], "policies": ["raster", "random"], "seeds": [5]}
    evaluate_acquisition(tmp_path / "out", model=model, engine="builtin", device="cpu", **options)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No conclusion can be drawn: there is only one seed" in page and "<dd>1 (5)</dd>" in page
    assert "95 % interval" not in page and "(–)" not in page


def test_the_lead_names_all_policies_that_found_most() -> None:
    def lead(**found: float) -> str:
        policies = [{"policy": name, "at_dose": {"mean": mean}} for name, mean in found.items()]
        return _lead({"policies": policies, "objects": 7.0})

    assert lead(raster=0, random=0) == "At the same dose, no policy found an object."
    assert lead(raster=1, random=2) == "At the same dose, random found most: 2.0 of 7 objects."
    assert lead(raster=2, random=2, template=2).startswith("At the same dose, raster, random and template found most")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [1, 1]}, "--seeds names one of them twice"),
        ({"targets": ["rods"]}, "unknown structure 'rods'"),
        ({"targets": []}, "need at least one value"),
        ({"seeds": [-1]}, "must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        evaluate_acquisition(tmp_path / "out", model="demo", engine="builtin", **options)
