from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stedfm_hf import doctor
from stedfm_hf.cli import app, main
from stedfm_hf.runs import Manifest, UserError
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.weights.convert import Conversion
from stedfm_hf.weights.settings import ConvertSettings

Captured = pytest.CaptureFixture[str]
COMMANDS = sorted(
    command.name or str(getattr(command.callback, "__name__", "")) for command in app.registered_commands
)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    """Put a module with these members in the place of a room, so that only the door is tested."""
    module = ModuleType(name)
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, name, module)


def raising(error: BaseException) -> Any:
    def diagnose() -> None:
        raise error

    return diagnose


@pytest.fixture
def image(tmp_path: Path) -> Path:
    np.save(tmp_path / "cell.npy", np.zeros((2, 5, 7), np.uint16))
    return tmp_path / "cell.npy"


def test_help_names_every_command(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert {"info", "convert", "demo", "doctor"} <= set(COMMANDS)
    for command in COMMANDS:
        assert f"\n  {command.split()[0]} " in shown
    assert "..." not in shown.partition("Commands:")[2], "a summary is cut off: shorten it"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str, capsys: Captured) -> None:
    assert main([command, "--help"]) == 0
    assert f"Example: stedfm {command}" in capsys.readouterr().out


def test_a_command_may_have_a_name_of_two_words(capsys: Captured) -> None:
    assert main(["pretrain", "generation", "--help"]) == 0
    assert "Usage: stedfm pretrain generation [OPTIONS]" in capsys.readouterr().out
    assert main(["pretrain", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: stedfm pretrain [OPTIONS]" in shown and "stedfm pretrain generation" in shown
    assert main(["pretrain", "--dataset", "generation", "--output", "run"]) == 2
    assert "generation: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--help"], ["data", "simulate", "--help"], ["pretrain", "generation", "--help"]], ids=" ".join
)
def test_help_imports_neither_torch_nor_transformers(words: list[str]) -> None:
    """They take seconds, for which nobody wants to wait who only asks how a command is called."""
    code = (
        "import sys; from stedfm_hf.cli import main; status = main(sys.argv[1:]); "
        "print(sorted({'torch', 'transformers'}.intersection(sys.modules)), file=sys.stderr); sys.exit(status)"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=root, timeout=120)
    assert run.returncode == 0 and f"Usage: stedfm {' '.join(words[:-1])}" in run.stdout, run.stderr
    assert run.stderr.strip() == "[]"


def test_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("stedfm ")


@pytest.mark.parametrize(
    "words", [["nonsense"], ["info"], ["demo", "--device", "tpu"], ["info", "--nonsense", "a.tif"]]
)
def test_wrong_arguments_end_with_2_and_a_line_on_standard_error(words: list[str], capsys: Captured) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and "rror: " in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "given"),
    [(["--query", "3"], "only 3"), (["--query", "3", "--model", "demo"], "only 3"), (["--query"], "none")],
)
def test_one_number_where_two_are_needed_is_named(words: list[str], given: str, capsys: Captured) -> None:
    assert main(["explain", "a.tif", *words]) == 2
    expected = f"stedfm: error: --query takes two numbers, --query Y X, but {given} is given\n"
    assert capsys.readouterr().err == expected


def test_info_is_a_table(image: Path, capsys: Captured) -> None:
    assert main(["info", str(image)]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["file", "series"]
    assert str(image) in row and "2: 0, 1" in row and "5 x 7" in row and "uint16" in row and "not in the file" in row


def test_info_as_json(image: Path, capsys: Captured) -> None:
    assert main(["info", "--json", str(image)]) == 0
    (series,) = json.loads(capsys.readouterr().out)
    assert series["path"] == str(image) and series["shape"] == [2, 5, 7] and series["pixel_size_nm"] is None


def test_one_unreadable_file_among_several_is_named_and_the_others_are_shown(image: Path, capsys: Captured) -> None:
    empty = image.with_name("empty.tif")
    empty.touch()
    assert main(["info", str(empty), str(image)]) == 1
    out, err = capsys.readouterr()
    assert "cell.npy" in out and err.count("\n") == 1 and err.startswith("stedfm: error: ") and "empty.tif" in err


@pytest.mark.parametrize("name", ["empty.tif", "gone.tif"])
def test_an_unreadable_file_alone_is_wrong_input(name: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "empty.tif").touch()
    assert main(["info", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and name in err


def test_convert_tells_what_was_left_out_and_why(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    dropped = {f"optimizer.{i}": "state of the optimizer" for i in range(5)} | {"pos": "computed again"}
    facts = {"architecture": "stedfm-vit-tiny", "kind": "pretraining", "weights_sha256": "ab12", "dropped": dropped}

    @takes_settings(ConvertSettings)
    def convert(settings: ConvertSettings) -> Conversion:
        assert settings == ConvertSettings("a.pth", "out", overwrite=True)
        options = {**facts, "not_rebuilt": ["os.system"]}
        return Conversion(Path("out"), Manifest("convert", {"source": "a.pth"}, options))

    stand_in(monkeypatch, "stedfm_hf.weights.convert", convert=convert)
    assert main(["convert", "a.pth", "out", "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "stedfm-vit-tiny (pretraining) written to out",
        "sha256 of the weights: ab12",
        "left out: optimizer.0, optimizer.1, optimizer.2 and 2 more: state of the optimizer",
        "left out: pos: computed again",
        "named in the file and not executed: os.system",
    ]
    assert main(["convert", "a.pth", "out", "--overwrite", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert facts.items() <= answer.items() and answer["settings"] == {"source": "a.pth"}


@pytest.mark.parametrize(("status", "expected"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_doctor_ends_with_1_if_something_will_not_work(
    status: Any, expected: int, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda: [doctor.Check("torchvision", status, "found", "pip uninstall it")])
    assert main(["doctor"]) == expected
    assert capsys.readouterr().out.splitlines() == [f"{status:<5} torchvision: found", "      -> pip uninstall it"]
    assert main(["doctor", "--json"]) == expected
    assert json.loads(capsys.readouterr().out) == [
        {"name": "torchvision", "status": status, "detail": "found", "fix": "pip uninstall it"}
    ]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            UserError("a.pth: is no checkpoint;\nname another file"),
            "error: a.pth: is no checkpoint; name another file",
        ),
        (PermissionError(13, "Permission denied", "out"), "error: [Errno 13] Permission denied: 'out'"),
        (ImportError("no module"), "error: no module (run `stedfm doctor` to find the cause)"),
    ],
)
def test_an_error_that_a_user_can_fix_is_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(doctor, "diagnose", raising(error))
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == f"stedfm: {line}\n"
    monkeypatch.setenv("STEDFM_DEBUG", "1")
    with pytest.raises(type(error)):
        main(["doctor"])


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "diagnose", raising(ValueError("default")))
    with pytest.raises(ValueError, match="default"):
        main(["doctor"])


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(doctor, "diagnose", raising(KeyboardInterrupt()))
    assert main(["doctor"]) == 130
    assert "same command" in capsys.readouterr().err


def test_a_console_that_cannot_show_a_letter_does_not_end_the_command(tmp_path: Path) -> None:
    np.save(tmp_path / "zelle_µ.npy", np.zeros((4, 4), np.float32))
    command = [sys.executable, "-m", "stedfm_hf.cli", "info", str(tmp_path / "zelle_µ.npy")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    root = Path(__file__).parents[2]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "zelle_\\xb5.npy" in run.stdout


@pytest.mark.slow
def test_doctor_works_when_torchvision_breaks_transformers(tmp_path: Path) -> None:
    """The very case it is for: that STED-FM cannot be registered with transformers must not end it."""
    info = tmp_path / "torchvision-0.29.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.29.2\n", encoding="utf-8")
    (tmp_path / "torchvision").mkdir()
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "torchvision" / "__init__.py").write_text(broken, encoding="utf-8")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    command = [sys.executable, "-m", "stedfm_hf.cli", "doctor", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert run.returncode == 1, run.stderr
    assert "not registered with transformers: " in run.stderr
    found = {check["name"]: check for check in json.loads(run.stdout)}
    assert found["torchvision"]["status"] == "fail" and found["torchvision"]["fix"] == "pip uninstall torchvision"


def test_help_lists_options_under_headings(capsys: Captured) -> None:
    assert main(["segment", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: stedfm segment [OPTIONS] INPUT..." in shown
    starts = [shown.index(f"\n{heading}:") for heading in ("Arguments", "Options", "Input", "Computation", "General")]
    assert starts == sorted(starts)
    assert shown.index("  --channel") > starts[2] and shown.index("  --device") > starts[3]
