"""Pretraining with the Hub at either end: data that are streamed from it, and a model that is sent to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoModel

from stedfm_hf.cli import main
from stedfm_hf.hub.endpoint import ENDPOINT_FILES
from stedfm_hf.runs import EXIT_DONE, EXIT_USAGE, Manifest
from stedfm_hf.training.curve import Curve
from tests.hub_server import Hub, environment_of, hub_server, use_hub
from tests.training.pretraining import (
    ROOT,
    SCRIPT,
    assert_same_weights,
    curve_of,
    run,
    words_of,
    write_blobs,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*ranks reads", "ignore:.*each epoch drops")
MIXED = "--dataset-weights 3 1"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("data")
    return [write_blobs(folder / "crops"), write_blobs(folder / "more", 40, seed=1)]


@pytest.fixture(scope="module")
def local(data: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run on both folders."""
    output = tmp_path_factory.mktemp("runs") / "local"
    run([str(folder) for folder in data], output, MIXED)
    return output


def test_two_data_sets_are_mixed_and_named(local: Path) -> None:
    card = (local / "README.md").read_text(encoding="utf-8")
    # 60 and 40 crops, of which validation and test take half.
    assert "| crops | 30 |" in card and "| more | 20 |" in card
    recipe = (local / "recipe.yaml").read_text(encoding="utf-8")
    assert recipe.startswith("# trained on crops, more\n") and "weights:\n- 3\n- 1\n" in recipe.replace(".0", "")
    recorded = Manifest.load(local / "manifest.json").settings["data"]
    assert [each["name"] for each in recorded] == ["crops", "more"]
    # Six of the eight crops of a step are of the first, which counts the epochs.
    last = Curve(local / "curve.csv").rows()[-1]
    assert (last.step, last.samples, last.epoch) == (10, 80, 10 / (30 // 6))


@pytest.mark.slow
def test_a_killed_run_on_streamed_data_ends_as_an_unbroken_one_on_folders(
    data: list[Path], local: Path, tmp_path: Path
) -> None:
    names = ["lab/crops", "hf://datasets/lab/more"]
    command = [sys.executable, SCRIPT, *words_of(names, tmp_path / "run", MIXED)]
    with hub_server(crops=data[0], more=data[1]) as hub:
        environment = environment_of(hub, tmp_path / "cache")
        begun = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        with begun:
            assert begun.stderr is not None
            for line in begun.stderr:
                if line.startswith("stedfm: step 6/"):
                    break
            begun.send_signal(signal.SIGKILL)
        assert begun.returncode == -signal.SIGKILL and not (tmp_path / "run" / "model.safetensors").exists()
        sent, hub.sent = hub.sent, 0
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    # It went on from the checkpoint of step 4, and read the crops from the Hub both times.
    assert "step 6/" in ended.stderr and "step 2/" not in ended.stderr
    assert sent > 0 and hub.sent > 0
    assert curve_of(tmp_path / "run") == curve_of(local)
    assert_same_weights(tmp_path / "run", local)
    assert "| lab/more | 20 |" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


ENDPOINT = {file.name for file in ENDPOINT_FILES}


@pytest.fixture
def hub(loopback: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as hub:
        use_hub(hub, monkeypatch)
        yield hub


def test_a_finished_folder_goes_to_the_hub_without_checkpoints(
    hub: Hub, data: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two interpreters load the model to check it, which tests/hub/test_publish.py tests.
    monkeypatch.setattr("stedfm_hf.hub.kinds.check_loading", lambda folder: [])
    output = tmp_path / "run"
    words = words_of(data[0], output, "--max_steps 4 --push_to_hub --hub_model_id lab/m --licence mit")
    hub.refuses = True
    assert main(["pretrain", *words]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert f"stedfm: error: {output}: is finished, but was not published. lab/m: the token has no write access" in said
    assert not hub.repositories
    assert Manifest.load(output / "manifest.json").ended is not None
    assert AutoModel.from_pretrained(output).config.hidden_size == 128
    weights = (output / "model.safetensors").read_bytes()

    (output / "runs" / "Nov15_host").mkdir(parents=True)
    (output / "runs" / "Nov15_host" / "events").touch()  # of TensorBoard, with the names of the host and its folders

    # The same command sends it now, and does not train again.
    hub.refuses = False
    assert main(["pretrain", *words]) == EXIT_DONE
    assert hub.model("lab/m").private
    sent = hub.model("lab/m").files
    kept = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    left_out = ("checkpoint-", "runs/", "manifest.json")
    assert set(sent) - {".gitattributes"} - ENDPOINT == {name for name in kept if not name.startswith(left_out)}
    assert sent["model.safetensors"] == weights and {"recipe.yaml", "figures/curve.png"} <= set(sent)
    assert 'from_pretrained("lab/m")' in sent["README.md"].decode()


def test_the_curve_goes_to_tensorboard_too(data: list[Path], tmp_path: Path) -> None:
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(data[0], tmp_path / "run", "--max_steps 4 --report_to tensorboard")
    (folder,) = (tmp_path / "run" / "runs").iterdir()
    events = module.EventAccumulator(str(folder)).Reload()
    rows = Curve(tmp_path / "run" / "curve.csv").rows()
    for name, column in {
        "train/loss": "loss",
        "train/learning_rate": "learning_rate",
        "train/images_per_second": "images_per_second",
        "eval/loss": "held_out_loss",
        "eval/psnr": "psnr",
    }.items():
        found = [(event.step, event.value) for event in events.Scalars(name)]
        wanted = [(row.step, value) for row in rows if (value := getattr(row, column)) is not None]
        assert len(found) >= 1 and found == [(step, pytest.approx(value)) for step, value in wanted]
