"""Commands on a Dask cluster write the same bytes as in one process, whatever happens to the workers.

The slow ones have faster relatives in `test_dask_workers.py`.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from stedfm_hf import StedFmForImageClassification, StedFmForSemanticSegmentation, StedFmModel
from stedfm_hf.acquisition import find, fit_finder
from stedfm_hf.data import build, simulate
from stedfm_hf.data.archives.import_archive import import_archive
from stedfm_hf.discovery.index import index
from stedfm_hf.evaluation import evaluate_knn
from stedfm_hf.inference import classify, embed, segment
from stedfm_hf.inference.preparation import Preparation
from stedfm_hf.runs import UserError
from stedfm_hf.runs.dask_cluster import check_cluster, open_cluster
from stedfm_hf.runs.parts import PartStore
from tests.data.archives.fabricated import scraped, write_tar
from tests.figures import plotted_figures
from tests.labels.labelled_data import class_folder
from tests.models import tiny_config

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes the POSIX way")
WITH_TIMES = ("manifest.json", "README.md")
"""Ends of the names of files that tell the time."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),  # as commands do
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as two,
    ):
        yield two


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(24):
        pixels = np.random.default_rng(number).poisson(5.0, (40 + number % 3, 48)).astype(np.uint16)
        np.save(folder / f"{number:02d}.npy", pixels)
    (folder / "12.npy").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    StedFmModel(tiny_config()).save_pretrained(root / "encoder")
    masks = tiny_config(decoder="linear", target_type="multi_label", id2label={0: "actin", 1: "tubulin"})
    StedFmForSemanticSegmentation(masks).save_pretrained(root / "segmenter")
    StedFmForImageClassification(tiny_config(id2label={0: "actin", 1: "tubulin"})).save_pretrained(root / "classifier")
    (root / "clicks.csv").write_text("path,y_px,x_px,class\n00.npy,20,20,spot\n01.npy,20,30,spot\n")
    fit_finder(images, root / "finder", clicks=root / "clicks.csv", model=root / "encoder", device="cpu")
    write_tar(root / "crops.tar", [scraped(number) for number in range(24)])
    class_folder(root / "set", {"actin": 8, "tubulin": 8}, size=40)
    return root


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stedfm_hf.inference.stepwise.CHUNK", 3)
    monkeypatch.setattr("stedfm_hf.inference.segmenting.BATCH", 3)
    monkeypatch.setattr("stedfm_hf.data.building.build.FILES_PER_PART", 3)
    monkeypatch.setattr("stedfm_hf.data.assembly.assemble.ROWS_PER_PROCESS", 1)


Command = Callable[[Path, Path, Path, str | None], Any]


def by_embed(images: Path, output: Path, models: Path, cluster: str | None = None) -> Any:
    return embed(images, output=output / "embeddings.parquet", model=models / "encoder", device="cpu", cluster=cluster)


def by_segment(images: Path, output: Path, models: Path, cluster: str | None = None) -> Any:
    return segment(images, output, model=models / "segmenter", device="cpu", overlay=False, cluster=cluster)


def by_index(images: Path, output: Path, models: Path, cluster: str | None = None) -> Any:
    return index(images, output=output, model=models / "encoder", device="cpu", cluster=cluster)


def by_build(images: Path, output: Path, models: Path, cluster: str | None = None) -> Any:
    return build(images, output, crop_size=32, workers=1, cluster=cluster)


def by_simulate(images: Path, output: Path, models: Path, cluster: str | None = None) -> Any:
    return simulate(output, structures=["rings"], per_structure=1, workers=1, cluster=cluster)


def some(images: Path) -> list[Path]:
    """Return few of the images, because each is plotted."""
    return [images / f"{number:02d}.npy" for number in (0, 1, 2, 12, 13)]


def by_classify(images: Path, output: Path, models: Path, cluster: str | None = None) -> Any:
    target: dict[str, Any] = {"output": output / "classes.parquet", "maps": output / "maps"}
    with plotted_figures():  # as the workers do
        return classify(some(images), model=models / "classifier", **target, device="cpu", cluster=cluster)


def by_find(images: Path, output: Path, models: Path, cluster: str | None = None) -> Any:
    finder = models / "finder"
    with plotted_figures():  # as the workers do
        return find(some(images), finder, output, region_size_px=16, count=2, device="cpu", cluster=cluster)


def by_evaluate(images: Path, output: Path, models: Path, cluster: str | None = None) -> Any:
    names, cache = ["untrained", "histogram"], output.parent / f"{output.name}-features"
    model = [str(models / "encoder")]
    return evaluate_knn(
        models / "set", output, model=model, baselines=names, k=[1], cache=cache, device="cpu", cluster=cluster
    )


def by_import(images: Path, output: Path, models: Path, cluster: str | None = None) -> Any:
    return import_archive(models / "crops.tar", output, rows_per_shard=8, cluster=cluster)


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(WITH_TIMES))
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


COMMANDS = [by_embed, by_classify, by_segment, by_index, by_build, by_simulate, by_find, by_import, by_evaluate]


# Workers plot every figure, and import what plots: the others go the same way to them.
PLOTTING = [pytest.param(command, marks=pytest.mark.slow) for command in (by_classify, by_find)]


@pytest.mark.parametrize("command", [by_embed, by_segment, by_index, by_build, by_simulate, by_import, *PLOTTING])
def test_results_are_those_of_one_process(
    command: Command, images: Path, models: Path, cluster: Any, tmp_path: Path
) -> None:
    alone = command(images, tmp_path / "alone", models, None)
    before = cluster.scheduler.transition_counter
    together = command(images, tmp_path / "together", models, cluster.scheduler_address)
    assert cluster.scheduler.transition_counter > before  # the workers had work
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
    assert together.manifest.items == alone.manifest.items
    assert command in (by_import, by_simulate) or together.manifest.items["12.npy"].state in ("failed", "skipped")


@pytest.mark.slow
def test_an_evaluation_computes_the_features_of_one_process(
    images: Path, models: Path, cluster: Any, tmp_path: Path
) -> None:
    alone = by_evaluate(images, tmp_path / "alone", models, None)
    together = by_evaluate(images, tmp_path / "together", models, cluster.scheduler_address)
    assert together.record["summary"] == alone.record["summary"]
    caches = [sorted((tmp_path / f"{name}-features").iterdir()) for name in ("alone", "together")]
    assert len(caches[0]) >= 3  # of three methods
    for one, other in zip(*caches, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(load_file(one)["features"], load_file(other)["features"])


@pytest.mark.slow
@pytest.mark.parametrize("command", [by_embed, by_segment, by_build])
@pytest.mark.parametrize("seed", [0, 1])
def test_results_survive_killed_and_added_workers(
    command: Command, seed: int, images: Path, models: Path, cluster: Any, tmp_path: Path
) -> None:
    command(images, tmp_path / "alone", models, None)
    ended = threading.Event()

    def disturb() -> None:
        moments = random.Random(seed)
        cluster.scale(3)
        for _ in range(4):  # a worker needs seconds to start: more kills would leave none
            if ended.wait(moments.uniform(0.1, 1.5)):
                return
            for pid in worker_pids(cluster)[: moments.choice((1, 1, 2))]:
                os.kill(pid, signal.SIGKILL)

    with ThreadPoolExecutor(1) as pool:
        disturbing = pool.submit(disturb)
        try:
            command(images, tmp_path / "together", models, cluster.scheduler_address)
        finally:
            ended.set()
        disturbing.result()
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")


def worker_pids(cluster: Any) -> list[int]:
    return [nanny.pid for nanny in cluster.workers.values() if nanny.pid]


def deadly(self: Preparation, source: Any) -> Any:
    """Kill the worker at one file."""
    if source.path == "05.npy":
        os.kill(os.getpid(), signal.SIGKILL)
    return _prepare(self, source)


_prepare = Preparation.__call__


def kill_at_one_file() -> None:
    Preparation.__call__ = deadly  # type: ignore[method-assign]  # in the worker process only


class DeadlyFile(distributed.WorkerPlugin):  # type: ignore[name-defined]  # the module is imported by a function
    """Makes one file deadly in every worker, also in restarted ones."""

    def setup(self, worker: Any) -> None:
        kill_at_one_file()


@pytest.mark.slow
def test_a_file_that_kills_its_worker_fails_and_the_others_are_done(
    images: Path, models: Path, tmp_path: Path
) -> None:
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as fragile:
        with distributed.Client(fragile) as client:
            client.register_plugin(DeadlyFile())
            result = by_embed(images, tmp_path / "out", models, fragile.scheduler_address)
    assert set(result.manifest.failures()) == {"05.npy", "12.npy"}
    assert "killed its worker three times" in result.manifest.failures()["05.npy"]
    assert len(result.table) == 22


def fill_disk() -> None:
    def full(self: PartStore, *args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    PartStore.write = full  # type: ignore[method-assign]  # in the worker process only


@pytest.mark.slow
def test_a_worker_with_a_full_disk_is_not_used(
    images: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as half_full:
        with distributed.Client(half_full) as client:
            first = min(client.nthreads())
            client.run(fill_disk, workers=[first])
        by_embed(images, tmp_path / "together", models, half_full.scheduler_address)
        assert f"the disk of the worker {first} is full; other workers go on" in capsys.readouterr().err
        by_embed(images, tmp_path / "alone", models)
        assert contents(tmp_path / "together") == contents(tmp_path / "alone")
        with distributed.Client(half_full) as client:
            client.run(fill_disk)
        with pytest.raises(OSError, match="No space left"):
            by_embed(images, tmp_path / "none", models, half_full.scheduler_address)


@pytest.mark.slow
def test_a_dead_scheduler_is_one_sentence_and_the_same_command_resumes(
    images: Path, models: Path, cluster: Any, tmp_path: Path
) -> None:
    processes = []
    address_file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command in (
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
        [*dask, "worker", "--nthreads", "1", "--no-dashboard", "--death-timeout", "60"],
    ):
        command += ["--scheduler-file", str(address_file)]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
    try:
        while not address_file.exists() or not address_file.read_text().strip():
            time.sleep(0.1)
        address = json.loads(address_file.read_text())["address"]
        parts = tmp_path / "together" / "embeddings.parquet.parts"

        def kill() -> None:
            while not list(parts.glob("part-*.parquet")):
                time.sleep(0.01)
            processes[0].kill()

        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(kill)
            with pytest.raises(UserError, match="has ended; run the same command again to resume"):
                by_embed(images, tmp_path / "together", models, address)
            killing.result()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    by_embed(images, tmp_path / "together", models, cluster.scheduler_address)
    by_embed(images, tmp_path / "alone", models)
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")


@pytest.mark.slow
def test_two_devices_of_one_machine_give_the_same_bytes(images: Path, models: Path, tmp_path: Path) -> None:
    embed(images, output=tmp_path / "two" / "e.parquet", model=models / "encoder", device="cpu,cpu")
    embed(images, output=tmp_path / "one" / "e.parquet", model=models / "encoder", device="cpu")
    assert (tmp_path / "two" / "e.parquet").read_bytes() == (tmp_path / "one" / "e.parquet").read_bytes()


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("local:0", "is unknown; give local:4"),
        ("ftp://host:1", "is unknown"),
        ("tcp://host", "is unknown"),
        ("none.yaml", "no such file"),
    ],
)
def test_a_wrong_cluster_is_refused_at_once(cluster: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_cluster(cluster)


def test_workers_of_this_machine_are_not_profiled() -> None:
    with open_cluster("local:1") as workers:
        assert (
            workers is not None
            and workers.submit(dask.config.get, "distributed.worker.profile.enabled").result() is False
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a", "needs the keys"),
        ("{system: slurm}", "needs the keys"),
        ("{system: slrm, jobs: 2}", "did you mean slurm"),
        ("{system: slurm, jobs: none}", "must be a number"),
        ("{system: slurm, jobs: 1, waltime: 1}", "the key 'waltime' is unknown; did you mean walltime"),
        ("{system: slurm, jobs: 1, job_script_prologue: module load cuda}", "must be a list of lines"),
        ("a: [", "is not valid YAML"),
        ("system: slurm\njobs: 2\njobs: 4", "line 3: the key jobs appears twice"),
    ],
)
def test_a_wrong_cluster_file_is_refused(
    content: str, message: str, images: Path, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "slurm.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        by_embed(images, tmp_path / "out", models, str(tmp_path / "slurm.yaml"))


def test_jobs_leave_ctrl_c_to_the_command(images: Path, models: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    (tmp_path / "slurm.yaml").write_text("{system: slurm, jobs: 1, waltime: 1}")
    with pytest.raises(UserError):
        by_embed(images, tmp_path / "out", models, str(tmp_path / "slurm.yaml"))
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_scheduler_that_does_not_answer_leaves_no_output(
    command: Command, images: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stedfm_hf.runs.dask_cluster.TIMEOUT", 0.2)
    with pytest.raises(UserError, match=r"cluster tcp://127.0.0.1:1: no scheduler answers there"):
        command(images, tmp_path / "out", models, "tcp://127.0.0.1:1")
    assert not (tmp_path / "out").exists()
