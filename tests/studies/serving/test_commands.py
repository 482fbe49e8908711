from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pyarrow.parquet as pq
import pytest
import yaml

from stedfm_hf.cli import main
from stedfm_hf.runs import UserError
from stedfm_hf.studies.answers import read_answers
from stedfm_hf.studies.serving.running import is_served, only_server
from stedfm_hf.studies.serving.store import Store
from stedfm_hf.studies.settings import StudyServeSettings, parse_address
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, parse_study
from tests.hub_server import hub_server, use_hub
from tests.studies.examples import values
from tests.studies.serving.served import Participant, make_context, served_study, write_images


def study_file(folder: Path) -> Path:
    """A study file with its images."""
    content = values(CHOOSE)
    write_images(parse_study(content), folder)
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    return folder / "study.yaml"


def serve_during(words: list[str], visit: Callable[[], None]) -> int:
    """Run `stedfm study serve` in this thread, and stop it when a visit in another thread has ended."""

    def visit_and_stop() -> None:
        try:
            visit()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=visit_and_stop)
    thread.start()
    status = main(["study", "serve", *words])
    thread.join()
    return status


def test_a_study_is_served_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    notes: list[str] = []
    monkeypatch.setattr("stedfm_hf.studies.serving.serve.print_note", notes.append)
    pages: list[int] = []

    def visit() -> None:
        deadline = time.monotonic() + 30
        while len(notes) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        for note in notes[:2]:
            pages.append(httpx2.get(note.partition(": ")[2]).status_code)
        assert main(["study", "invite", "answers.sqlite", "--participants", "2"]) == 0

    assert serve_during(["study.yaml", "--port", "0", "--open"], visit) == 0
    assert pages == [200, 200] and notes[0].startswith("for you: http://127.0.0.1:")
    links, _, last = capsys.readouterr().out.strip().rpartition("\n")
    assert last == "stopped; answers.sqlite holds 0 answers of 0 participants"
    assert all(each.startswith(notes[0][9:30]) and "/p/" in each for each in links.split())
    assert main(["study", "invite", "answers.sqlite", "--address", "https://study.example.org/", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["links"][0].startswith("https://study.example.org/p/")
    assert "no server is running: the links work while `stedfm study serve` runs at https://study.example.org" in err
    with Store("answers.sqlite").reading() as transaction:
        invited = transaction.participants()
    assert main(["study", "invite", "answers.sqlite"]) == 2
    assert "no server is running, so the address of the links is not known" in capsys.readouterr().err
    with Store("answers.sqlite").reading() as transaction:
        assert transaction.participants() == invited
    assert main(["study", "export", "answers.sqlite"]) == 2
    assert "holds no answers yet" in capsys.readouterr().err


def test_problems_are_reported_before_the_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "A/0.png").unlink()
    for words, problem in (
        (["study.yaml", "--port", "0"], "images cannot be shown: A/0.png: no such file"),
        (["study.yaml", "--images", "A", "--port", "0"], "no such file"),
        (["study.yaml", "--host", "0.0.0.0"], "--host 0.0.0.0 needs --address"),
        (["study.yaml", "--address", "study.example.org"], "is not http://HOST"),
        (["study.yaml", "--host", "203.0.113.1", "--address", "http://a"], "is not available"),
    ):
        assert main(["study", "serve", *words]) == 2
        assert problem in capsys.readouterr().err
    assert not (tmp_path / "answers.sqlite").exists()
    monkeypatch.setattr("stedfm_hf.studies.serving.serve.find_spec", lambda name: None)
    assert main(["study", "serve", "study.yaml"]) == 2
    assert 'pip install "stedfm-hf[serve]"' in capsys.readouterr().err


def test_a_file_of_answers_has_one_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    with only_server(tmp_path / "new" / "answers.sqlite"):
        assert is_served("new/answers.sqlite") and not is_served("other.sqlite")
        assert main(["study", "serve", "study.yaml", "--answers", "new/answers.sqlite", "--port", "0"]) == 2
    assert "new/answers.sqlite: another server is using this file; stop that server" in capsys.readouterr().err
    assert not is_served("new/answers.sqlite") and not Path("new/answers.sqlite").exists()


def test_addresses_are_checked() -> None:
    assert StudyServeSettings("s.yaml", address="http://a:80/").address == "http://a:80"
    for wrong in ("a", "ftp://a", "http://", "http://a/b", "http://u@a", "http://[", "http://a?b", "http://a:99999"):
        with pytest.raises(UserError, match="is not http://HOST"):
            parse_address(wrong)


def test_answers_are_exported_and_pushed_to_a_private_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = make_context(served_study(CLASSIFY), tmp_path)
    for _ in range(2):
        who = Participant(context)
        who.start()
        who.finish()
    monkeypatch.chdir(tmp_path)
    export = ["study", "export", "answers.sqlite"]
    assert main(export) == 0
    assert capsys.readouterr().out == "answers.parquet: 16 answers of 2 participants\n"
    frame = read_answers("answers.parquet", context.study)
    assert frame["participant"].nunique() == 2 and not frame["undone"].any() and frame["answered_at"].notna().all()
    assert main(export) == 2 and "answers.parquet: exists" in capsys.readouterr().err
    with hub_server() as hub:
        use_hub(hub, monkeypatch)
        assert main([*export, "--overwrite", "--push-to-hub", "my-lab/my-answers"]) == 0
        assert "datasets/my-lab/my-answers (private)" in capsys.readouterr().out
        made = hub.repositories["dataset", "my-lab/my-answers"]
        assert made.private and {"answers.parquet", "study.json", "README.md"} <= set(made.files)
        who.post("undo", trial=7, attempt=0)
        assert main([*export, "--overwrite", "--push-to-hub", "my-lab/my-answers"]) == 0
    assert "answers.parquet: 16 rows: 15 answers of 2 participants, and 1 undone\n" in capsys.readouterr().out
    assert pq.read_table("answers.parquet")["undone"].to_pylist().count(True) == 1


def test_an_exported_study_is_analysed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = make_context(parse_study(values(CHOOSE)), tmp_path)
    for _ in range(3):
        who = Participant(context)
        who.start()
        who.finish()
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values(CHOOSE)))
    monkeypatch.chdir(tmp_path)
    assert main(["study", "export", "answers.sqlite"]) == 0
    assert main(["study", "analyse", "study.yaml", "answers.parquet", "--no-mixed-model"]) == 0
    told = capsys.readouterr()
    assert "12 answers of 3 participants\n" in told.out and "changed" not in told.err
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump(values(CHOOSE, question="Another?", exclude={"min_response_s": 0}))
    )
    assert main(["study", "analyse", "study.yaml", "answers.parquet", "--no-mixed-model", "--overwrite"]) == 0
    note = "question, exclude: changed in the study file since the study was served"
    assert f"note: {note}" in capsys.readouterr().err
    page = (tmp_path / "analysis" / "report.html").read_text(encoding="utf-8")
    assert note in page and "Question to the participants: “Another?”" in page
