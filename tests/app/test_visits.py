"""Visits: every visitor has a folder, and nothing is left of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stedfm_hf.app.visits import KEPT_RESULTS, Visit, Visits, without_paths
from stedfm_hf.runs import UserError


@pytest.fixture
def visits() -> Iterator[Visits]:
    made = Visits(60.0)
    yield made
    made.close()


def upload(visits: Visits, content: str, name: str = "cell.tif") -> Path:
    """Store a file as Gradio stores uploads: in a folder named by the content."""
    file = visits.folder / f"sha-of-{content}" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    return file


def adopt(visit: Visit, file: Path) -> Path:
    with visit.adopt(file, "image-file") as kept:
        return kept


def everything(visits: Visits) -> list[str]:
    return sorted(path.name for path in visits.folder.rglob("*"))


def test_nothing_is_left_after_a_visit(visits: Visits) -> None:
    visit = visits.of("a")
    kept = adopt(visit, upload(visits, "pixels"))
    with visit.new_folder("result") as folder:
        (folder / "result.tif").write_text("result")
    assert kept.read_text() == "pixels" and kept.is_relative_to(visit.folder)
    visits.end("a")
    assert everything(visits) == [] and visit.has_left and len(visits) == 0
    visits.end("a")


def test_an_upload_that_two_visitors_share_is_deleted_with_the_last_visit(visits: Visits) -> None:
    shared = upload(visits, "same")
    files = [adopt(visits.of(name), shared) for name in "ab"]
    assert files[0] != files[1]
    visits.end("a")
    assert shared.exists() and files[1].read_text() == "same" and not files[0].exists()
    visits.end("b")
    assert everything(visits) == []


def test_an_upload_that_another_visitor_has_just_repeated_is_kept(visits: Visits) -> None:
    shared = upload(visits, "same")
    adopt(visits.of("a"), shared)
    os.utime(shared, ns=(time.time_ns(), time.time_ns() + 10**9))  # uploaded again, and not yet processed
    visits.end("a")
    assert adopt(visits.of("b"), shared).read_text() == "same"


def test_a_new_image_replaces_the_old_one_and_old_results_are_deleted(visits: Visits) -> None:
    visit = visits.of("a")
    old = adopt(visit, upload(visits, "old", "old.tif"))
    new = adopt(visit, upload(visits, "new", "new.tif"))
    assert not old.exists() and new.read_text() == "new"
    assert not (visits.folder / "sha-of-old").exists() and (visits.folder / "sha-of-new").exists()
    folders = []
    for _ in range(KEPT_RESULTS + 2):
        with visit.new_folder("result") as folder:
            folders.append(folder)
    assert [each.exists() for each in folders] == [False] * 2 + [True] * KEPT_RESULTS


def test_a_result_that_fails_or_comes_after_the_visit_leaves_nothing(visits: Visits) -> None:
    visit = visits.of("a")
    with pytest.raises(ValueError, match="failed"), visit.new_folder("result") as folder:
        raise ValueError("failed")
    assert not folder.exists()
    with visit.new_folder("result") as folder:
        visits.end("a")
        folder.mkdir(parents=True)  # as an atomic write does
        (folder / "late.tif").write_text("late")
    assert everything(visits) == []
    with pytest.raises(UserError, match="the visit has ended; reload the page"), visit.new_folder("result"):
        pass


def test_a_deleted_upload_is_reported(visits: Visits) -> None:
    gone = upload(visits, "gone")
    gone.unlink()
    with pytest.raises(UserError, match=r"cell\.tif: the upload has been deleted; upload the file again"):
        adopt(visits.of("a"), gone)


def test_idle_visits_end_and_strays_are_deleted(visits: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, idle = visits.of("busy"), visits.of("idle")
    kept = adopt(busy, upload(visits, "kept"))
    idle.last_used -= 61
    (visits.folder / "app-files").mkdir()
    for name, age in (("tmpold", 40), ("tmpnew", 1)):
        stray = visits.folder / name
        stray.touch()
        os.utime(stray, (time.time() - age, time.time() - age))
    lost = upload(visits, "lost")
    os.utime(lost.parent, (time.time() - 61, time.time() - 61))
    visits.sweep()
    assert idle.has_left and not idle.folder.exists() and not lost.exists()
    assert kept.exists() and visits.of("busy") is busy
    assert {path.name for path in visits.folder.iterdir()} >= {"app-files", "tmpnew", "sha-of-kept"}
    assert not (visits.folder / "tmpold").exists()


def test_the_folder_is_deleted_at_the_end(visits: Visits) -> None:
    adopt(visits.of("a"), upload(visits, "pixels"))
    visits.start_sweeping(0.01)
    visits.close()
    assert not visits.folder.exists()


def test_messages_hold_no_path_of_the_server(visits: Visits) -> None:
    shorten, file = without_paths(visits.folder), visits.of("a").folder / "image" / "a.tif"
    assert shorten(f"{file}: truncated; see {file}") == "a.tif: truncated; see a.tif"
    assert shorten("white (1) must be above black (2)") == "white (1) must be above black (2)"


def test_a_file_that_cannot_be_opened_leaves_the_image_before(visits: Visits) -> None:
    visit = visits.of("a")
    before = adopt(visit, upload(visits, "before"))
    broken = upload(visits, "broken")
    with pytest.raises(ValueError, match="broken"), visit.adopt(broken, "image-file"):
        raise ValueError("broken")
    assert before.exists() and not broken.exists()
