from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from stedfm_hf.cli import main
from stedfm_hf.data.publishing.push import check_repository, push, upload_dataset
from stedfm_hf.data.settings import PushSettings
from stedfm_hf.runs import UserError
from tests.data.assembled import labelled_crops, noisy_crop, write_repo
from tests.hub_server import TOKEN, Hub, hub_server, use_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as hub:
        use_hub(hub, monkeypatch)
        yield hub


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "repo"
    write_repo(folder, labelled_crops(24))
    return folder


@pytest.fixture
def repo(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "repo")


def test_everything_but_the_manifest_is_uploaded_privately_the_card_last(hub: Hub, repo: Path) -> None:
    (repo / "data/.half.tmp.parquet").write_bytes(b"left by a killed run")
    (repo / "notes.txt").write_text("mine", encoding="utf-8")
    pushed = push(repo, "lab/cells")
    stored = hub.dataset("lab/cells")
    assert stored.private and pushed.private and pushed.url == f"{hub.url}/datasets/lab/cells"
    assert sum(pushed.crops.values()) == 24 and pushed.shards == len(list(repo.glob("data/[!.]*.parquet")))
    assert b'repo = "lab/cells"' in stored.files["README.md"] and b"PATH" in (repo / "README.md").read_bytes()
    for name in ("index.json", "figures/contact_sheet.png", "preview/train.parquet"):
        assert stored.files[name] == (repo / name).read_bytes()
    assert not {"manifest.json", "notes.txt", "data/.half.tmp.parquet"} & set(stored.files)
    assert not {"README.md", "index.json"} & set(stored.commits[1].files) and len(stored.commits) == 3
    push(repo, "lab/cells", manifest=True)
    assert "manifest.json" in stored.files and len(stored.commits) == 4


def test_the_same_content_makes_no_second_commit(hub: Hub, repo: Path) -> None:
    push(repo, "lab/cells")
    commits, puts = len(hub.dataset("lab/cells").commits), len(hub.puts)
    push(repo, "lab/cells")
    assert (len(hub.dataset("lab/cells").commits), len(hub.puts)) == (commits, puts)


def test_datasets_loads_the_published_data_set(hub: Hub, repo: Path, tmp_path: Path) -> None:
    import datasets

    push(repo, "lab/cells")
    for name, content in hub.dataset("lab/cells").files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    loaded = datasets.load_dataset(str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"))
    assert sum(map(len, loaded.values())) == 24


def test_an_interrupted_upload_resumes(hub: Hub, repo: Path) -> None:
    hub.cut_commits = 100
    with pytest.raises(UserError, match=r"the upload stopped.*run the same command again to resume"):
        push(repo, "lab/cells")
    hub.cut_commits, sent = 0, len(hub.puts)
    assert sent > 0
    push(repo, "lab/cells")
    assert "index.json" in hub.dataset("lab/cells").files
    assert len(set(hub.puts)) == len(hub.puts)  # no large file was sent twice


def test_shards_of_an_earlier_version_are_removed_with_consent(hub: Hub, repo: Path) -> None:
    push(repo, "lab/cells")
    stored = hub.dataset("lab/cells")
    stored.commit("Add a file", {**stored.files, "LICENSE": b"theirs"})
    shutil.rmtree(repo)
    write_repo(repo, labelled_crops(8))
    before = dict(stored.files)
    with pytest.raises(UserError, match="has other content, which would be replaced .*--overwrite"):
        push(repo, "lab/cells")
    assert stored.files == before
    push(repo, "lab/cells", overwrite=True)
    shards = {name for name in stored.files if name.startswith("data/")}
    assert shards == {f"data/{path.name}" for path in repo.glob("data/*")} and "LICENSE" in stored.files


def test_another_data_set_is_not_overwritten(hub: Hub, repo: Path, tmp_path: Path) -> None:
    (tmp_path / "other/data").mkdir(parents=True)
    (tmp_path / "other/data/train-00000-of-00007.parquet").write_bytes(b"of somebody else")
    stored = hub.add("dataset", "lab/cells", tmp_path / "other", private=True)
    with pytest.raises(UserError, match="has other content"):
        push(repo, "lab/cells")
    assert len(stored.commits) == 1


@pytest.mark.parametrize(("is_private", "words"), [(False, "exists and is public; give --public"), (True, "private")])
def test_an_existing_repository_must_have_the_requested_visibility(
    hub: Hub, repo: Path, tmp_path: Path, is_private: bool, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    stored = hub.add("dataset", "lab/cells", tmp_path / "empty", private=is_private)
    with pytest.raises(UserError, match=words):
        push(repo, "lab/cells", public=is_private)
    assert len(stored.commits) == 1
    push(repo, "lab/cells", public=not is_private)


def spoil_truncate(repo: Path) -> None:
    shard = repo / json.loads((repo / "index.json").read_text())["splits"]["train"][0]["file"]
    shard.write_bytes(shard.read_bytes()[:-30])


def spoil_swap(repo: Path) -> None:
    # All shards but the last of a split have one length: another split's need not.
    shutil.copy(next(repo.glob("data/test-*.parquet")), next(repo.glob("data/train-00000*.parquet")))
    index = json.loads((repo / "index.json").read_text())
    index["splits"]["train"][0]["row_groups"].append(1)
    (repo / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda repo: (repo / "index.json").unlink(), "has no index.json"),
        (lambda repo: (repo / "README.md").unlink(), "has no README.md"),
        (lambda repo: (repo / "README.md").write_text("# mine"), "front matter"),
        (lambda repo: (repo / "index.json").write_text("{}"), "damaged, or written by another version"),
        (lambda repo: next(repo.glob("data/train-*")).unlink(), "missing or damaged"),
        (lambda repo: (repo / "preview/train.parquet").unlink(), "train.parquet: is missing"),
        (lambda repo: shutil.copy(next(repo.glob("data/*")), repo / "data/extra.parquet"), "extra.parquet"),
        (lambda repo: (repo / ".staging").mkdir(), "is not finished"),
        (spoil_truncate, "missing or damaged"),
        (spoil_swap, "crops, but index.json lists"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_an_incomplete_data_set_is_not_published(hub: Hub, repo: Path, spoil: Any, words: str) -> None:
    spoil(repo)
    with pytest.raises(UserError, match=words) as error:
        push(repo, "lab/cells")
    assert "\n" not in str(error.value) and not hub.repositories


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "/home/ada/cells/1.tif"},
        {"source": "C:\\Users\\ada\\1.tif"},
        {"metadata": {"file": "/data/ada/1.msr"}},
        {"metadata": {"note": "copied from D:\\scans\\1.msr"}},
        {"series": "~/scans/1"},
    ],
)
def test_absolute_paths_are_published_only_on_request(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_repo(tmp_path / "repo", [noisy_crop(0, **changes)])
    with pytest.raises(UserError, match="contains an absolute path"):
        check_repository(tmp_path / "repo")
    check_repository(tmp_path / "repo", allow_paths=True)


@pytest.mark.parametrize("changes", [{"source": f"{TOKEN}.tif"}, {"metadata": {"note": f"with {TOKEN}"}}])
def test_a_token_in_a_text_of_a_crop_is_never_published(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_repo(tmp_path / "repo", [noisy_crop(0, **changes)])
    with pytest.raises(UserError, match="contains a token of the Hub") as error:
        check_repository(tmp_path / "repo", allow_paths=True)
    assert TOKEN not in str(error.value)


def test_tokens_in_the_card_and_links_to_other_folders_are_refused(repo: Path, tmp_path: Path) -> None:
    card = (repo / "README.md").read_text()
    (repo / "README.md").write_text(f"{card}\n{TOKEN}\n")
    with pytest.raises(UserError, match=r"README.md: contains a token of the Hub"):
        check_repository(repo)
    (repo / "README.md").write_text(card)
    (tmp_path / "outside.png").write_bytes(b"")
    (repo / "figures/mine.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(UserError, match=r"mine.png: is a link to a file outside of the folder"):
        check_repository(repo)


def test_text_that_only_looks_like_a_path_is_published(tmp_path: Path) -> None:
    metadata = {"url": "https://example.org/a/b", "unit": "1/um", "ratio": "a/b/c", "time": "10:30", "q": "s: /"}
    write_repo(tmp_path / "repo", [noisy_crop(0, source="plate 1/well A/1.tif", metadata=metadata)])
    check_repository(tmp_path / "repo")


@pytest.mark.parametrize("hub_id", ["cells", "a/b/c", "lab/"])
def test_an_invalid_hub_id_is_refused(repo: Path, hub_id: str) -> None:
    with pytest.raises(UserError, match="OWNER/NAME"):
        push(repo, hub_id)


def test_the_message_without_a_login_says_how_to_log_in(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="hf auth login"):
        push(repo, "lab/cells")


def test_the_owner_is_checked_before_the_shards(hub: Hub, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stedfm_hf.data.publishing.push.check_repository", lambda *given, **options: 1 / 0)
    with pytest.raises(UserError, match="theirs/cells: the token has no write access"):
        push(repo, "theirs/cells")


def test_offline_mode_is_reported(repo: Path) -> None:
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        upload_dataset(PushSettings(repo, "lab/cells"), huggingface_hub.HfApi(token="hf_none"))


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int]]]:
    """Serve a Hub on this machine that returns these statuses, and then the last one again."""
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", statuses
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([404, 401], "does not accept the token"),
        ([404, 403], "has no write access"),
        ([404, 409], "is used by a repository"),
    ],
)
def test_a_refusal_by_the_hub_is_reported_in_one_line(
    repo: Path,
    answering: tuple[str, list[int]],
    answers: list[int],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, statuses = answering
    statuses.extend(answers)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=words) as error:
        upload_dataset(PushSettings(repo, "lab/cells"), huggingface_hub.HfApi(endpoint=url, token="hf_none"))
    assert "\n" not in str(error.value)


def test_the_command_prints_the_url_and_no_token(hub: Hub, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "push", str(repo), "lab/cells", "--public"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{hub.url}/datasets/lab/cells: 24 crops in ") and "public" in printed.out
    assert TOKEN not in printed.out + printed.err
    assert not hub.dataset("lab/cells").private
    assert main(["data", "push", str(repo), "lab/cells"]) == 2
