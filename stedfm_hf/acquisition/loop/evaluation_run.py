"""The run of `evaluate acquisition`: one item for each seed, then comparison and report."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.acquisition.loop.comparison import compare
from stedfm_hf.acquisition.loop.fields import embed_examples, embed_field, one_kind
from stedfm_hf.acquisition.loop.figures import Shown, plot_scene
from stedfm_hf.acquisition.loop.policies import POLICIES, Policy
from stedfm_hf.acquisition.loop.power import measure_power
from stedfm_hf.acquisition.loop.report import write_report
from stedfm_hf.acquisition.loop.running import CURVE_SCHEMA, Budget, run_loop
from stedfm_hf.acquisition.loop.scenes import make_scene
from stedfm_hf.acquisition.loop.settings import COMMAND, CURVES, POWER, REPORT, RESULTS, LoopSettings
from stedfm_hf.acquisition.simulated_microscope import OVERVIEW, STED, SimulatedMicroscope, scan_dose
from stedfm_hf.data.simulation.structures import STRUCTURES
from stedfm_hf.inference.loading import Encoder, load_encoder
from stedfm_hf.reports.figures import save_figure
from stedfm_hf.runs import ItemStatus, read_json, write_json
from stedfm_hf.runs.files import atomic_path
from stedfm_hf.runs.items import process_items
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.runs.parts import PartStore
from stedfm_hf.weights.models import ModelSource

PARTS, FIGURES = "parts", "figures"
SAMPLE, ANNOTATED, NOISE = 0, 1, 2
"""Second number of the seeds of the sample, of the annotated sample, and of the noise."""


def run_evaluation(settings: LoopSettings, engine: str, model: ModelSource) -> tuple[Output, pa.Table, dict[str, Any]]:
    """Run all policies, compare them, and write the report (see `evaluate_acquisition`).

    Args:
        settings: Settings of the command.
        engine: Physics.
        model: Model.
    """
    encoder = load_encoder(model, device=settings.device)
    targets = list(STRUCTURES) if settings.targets is None else settings.targets
    with open_output(
        settings.output,
        COMMAND,
        settings,
        results=[CURVES, POWER, RESULTS, REPORT],
        temporary=[PARTS, FIGURES],
        resolved={"engine": engine, "targets": targets},
        options={"device": str(encoder.model.device)},
        model=encoder.name,
        weights_sha256=encoder.weights_sha256,
        overwrite=settings.overwrite,
    ) as output:
        folder = output.path
        if output.finished:
            output.report_finished()
            return output, pq.read_table(folder / CURVES), read_json(folder / RESULTS)
        store = PartStore(folder / PARTS)

        def keep(item: str, found: tuple[list[dict[str, Any]], Shown]) -> None:
            rows, shown = found
            save_figure(plot_scene(shown), folder / FIGURES, item)
            store.write(item, pa.Table.from_pylist(rows, CURVE_SCHEMA), {item: ItemStatus("done")})

        items = {_item(seed): (seed,) for seed in settings.seeds}
        run = partial(simulate_seed, settings, engine, encoder, targets)
        process_items(output, items, run, keep=keep, unit="seeds")
        table = pa.concat_tables([store.read(_item(seed)).table() for seed in settings.seeds])
        results = compare(table, settings.regions)
        power = measure_power(engine=engine, seeds=settings.seeds[:3])
        for name, values in ((CURVES, table), (POWER, pa.Table.from_pylist([asdict(each) for each in power]))):
            with atomic_path(folder / name) as temporary:
                pq.write_table(values, temporary)
        write_json(folder / RESULTS, results)
        write_report(folder, settings, engine, encoder, table, results, power, _item(settings.seeds[0]))
        store.remove()
    return output, table, results


def simulate_seed(
    settings: LoopSettings, engine: str, encoder: Encoder, targets: list[str], seed: int
) -> tuple[list[dict[str, Any]], Shown]:
    """Run all policies for all targets in the sample of a seed.

    Args:
        settings: Settings of the command.
        engine: Physics.
        encoder: Encoder.
        targets: Kinds of objects to find.
        seed: Seed.

    Returns:
        Rows of the table of curves, and what the figure of the seed shows: the search for the first target.
    """
    overview = replace(OVERVIEW, depletion_mw=settings.overview_depletion_mw)
    sted = replace(STED, depletion_mw=settings.depletion_mw)
    scene, annotated = make_scene((seed, SAMPLE)), make_scene((seed, ANNOTATED))

    def microscope(molecules: np.ndarray, *noise: int) -> SimulatedMicroscope:
        number = int(np.random.SeedSequence([seed, NOISE, *noise]).generate_state(1)[0])
        return SimulatedMicroscope(
            molecules,
            scene.pixel_size_nm,
            engine=engine,
            seed=number,
            overview_scan=overview,
            region_scan=sted,
        )

    first, other = microscope(scene.molecules, 0), microscope(annotated.molecules, 1)
    field = embed_field(encoder, first.overview())
    planes = np.stack([annotated.mask(kind, other.overview_step) for kind in STRUCTURES])
    examples = embed_examples(encoder, other.overview(), planes, tuple(STRUCTURES))
    size_px = round(1000 * settings.region_size_um / scene.pixel_size_nm)
    region = scan_dose(sted, size_px**2)
    budget = Budget(
        first.dose.energy_mj + settings.regions * region.energy_mj,
        first.dose.seconds + settings.regions * region.seconds,
    )
    rows, shown = list[dict[str, Any]](), list[tuple[Policy, Any, Any]]()
    for target in targets:
        annotations = one_kind(examples, target)
        for name in settings.policies:
            kind = POLICIES[name]
            about = list(STRUCTURES).index(target), list(POLICIES).index(name)
            used = microscope(first.molecules if kind.needs_overview else scene.molecules, 2, *about)
            if kind.needs_overview:
                used.dose = first.dose
            policy = kind(
                size_um=len(scene.molecules) * scene.pixel_size_nm / 1000,
                region_um=settings.region_size_um,
                rng=np.random.default_rng([seed, NOISE, 3, *about]),
                field=field if kind.needs_overview else None,
                examples=annotations,
            )
            steps, frames = run_loop(scene, used, policy, target, budget, region)
            rows += [
                {
                    "seed": seed,
                    "target": target,
                    "policy": name,
                    "objects": len(scene.objects(target)),
                    **each.row(),
                    "molecules": int(scene.molecules.sum()),
                    "budget_mj": budget.energy_mj,
                    "budget_s": budget.seconds,
                }
                for each in steps
            ]
            if target == targets[0]:
                shown.append((policy, steps, frames))
    return rows, Shown(scene, field, targets[0], seed, settings.regions, shown)


def _item(seed: int) -> str:
    return f"seed-{seed:06d}"
