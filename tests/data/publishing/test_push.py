from __future__ import annotations

import fnmatch
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils._paths import filter_repo_objects

from stedfm_hf.cli import main
from stedfm_hf.data.publishing.push import Pushed, check_repository, upload
from stedfm_hf.data.settings import PushSettings
from stedfm_hf.runs import UserError
from tests.data.assembled import labelled_crops, noisy_crop, write_repo


class FakeHub:
    """The used part of `HfApi`, with one repository in memory."""

    endpoint = "https://huggingface.co"

    def __init__(self, files: dict[str, bytes] | None = None, *, private: bool = True, breaks: int = 0) -> None:
        self.files, self.private, self.breaks = files, private, breaks
        self.commits: list[list[str]] = []

    def repo_info(self, repo_id: str, *, repo_type: str) -> Any:
        assert repo_type == "dataset"
        if self.files is None:
            raise RepositoryNotFoundError(
                "not there", response=httpx2.Response(404, request=httpx2.Request("GET", "x"))
            )
        return SimpleNamespace(private=self.private, siblings=[SimpleNamespace(rfilename=name) for name in self.files])

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool) -> None:
        assert self.files is None
        self.files, self.private = {".gitattributes": b""}, private

    def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: Path, **options: Any) -> None:
        assert self.files is not None
        for name in list(self.files):
            if any(fnmatch.fnmatch(name, pattern) for pattern in options.get("delete_patterns") or ()):
                del self.files[name]
        names = sorted(path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*") if path.is_file())
        patterns = {key: options[key] for key in ("allow_patterns", "ignore_patterns")}
        chosen = list(filter_repo_objects(names, **patterns))
        if self.breaks:
            self.breaks -= 1
            self.files[chosen[0]] = (folder_path / chosen[0]).read_bytes()
            raise ConnectionError("the line is dead")
        self.files |= {name: (folder_path / name).read_bytes() for name in chosen}
        self.commits.append(chosen)


def push(repo: Path, hub_id: str, *, api: Any = None, **options: Any) -> Pushed:
    return upload(PushSettings(repo, hub_id, **options), api)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    write_repo(tmp_path / "repo", labelled_crops(24))
    return tmp_path / "repo"


def test_everything_but_the_manifest_is_uploaded_privately_the_card_last(repo: Path) -> None:
    (repo / "data/.half.tmp.parquet").write_bytes(b"left by a killed run")
    (repo / "notes.txt").write_text("mine", encoding="utf-8")
    hub = FakeHub()
    pushed = push(repo, "lab/cells", api=hub)
    assert hub.private and pushed.private and pushed.url == "https://huggingface.co/datasets/lab/cells"
    assert sum(pushed.crops.values()) == 24 and pushed.shards == len(list(repo.glob("data/[!.]*.parquet")))
    assert hub.files is not None
    for name in ("README.md", "index.json", "figures/contact_sheet.png", "preview/train.parquet"):
        assert hub.files[name] == (repo / name).read_bytes()
    assert not {"manifest.json", "notes.txt", "data/.half.tmp.parquet"} & set(hub.files)
    assert [name for name in hub.commits[0] if name.endswith((".md", ".json"))] == []
    assert {"README.md", "index.json"} <= set(hub.commits[-1])
    with_manifest = FakeHub()
    push(repo, "lab/cells", manifest=True, api=with_manifest)
    assert with_manifest.files is not None and "manifest.json" in with_manifest.files


def test_datasets_loads_the_published_data_set(repo: Path, tmp_path: Path) -> None:
    import datasets

    hub = FakeHub()
    push(repo, "lab/cells", api=hub)
    assert hub.files is not None
    for name, content in hub.files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    loaded = datasets.load_dataset(str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"))
    assert sum(map(len, loaded.values())) == 24


def test_an_interrupted_upload_resumes(repo: Path) -> None:
    hub = FakeHub(breaks=1)
    with pytest.raises(UserError, match=r"the line is dead.*run the same command again"):
        push(repo, "lab/cells", api=hub)
    push(repo, "lab/cells", api=hub)
    assert hub.files is not None and "index.json" in hub.files


def test_shards_of_an_earlier_version_are_removed(repo: Path) -> None:
    hub = FakeHub()
    push(repo, "lab/cells", api=hub)
    assert hub.files is not None
    hub.files["LICENSE"] = b"theirs"
    shutil.rmtree(repo)
    write_repo(repo, labelled_crops(8))
    push(repo, "lab/cells", api=hub)
    shards = {name for name in hub.files if name.startswith("data/")}
    assert shards == {f"data/{path.name}" for path in repo.glob("data/*")} and "LICENSE" in hub.files


def test_another_data_set_is_not_overwritten(repo: Path) -> None:
    hub = FakeHub({"data/train-00000-of-00007.parquet": b"of somebody else", "README.md": b""})
    with pytest.raises(UserError, match="holds another data set"):
        push(repo, "lab/cells", api=hub)
    assert hub.files is not None and len(hub.files) == 2


@pytest.mark.parametrize(("is_private", "words"), [(False, "exists and is public; give --public"), (True, "private")])
def test_an_existing_repository_must_have_the_requested_visibility(repo: Path, is_private: bool, words: str) -> None:
    hub = FakeHub({".gitattributes": b""}, private=is_private)
    with pytest.raises(UserError, match=words):
        push(repo, "lab/cells", public=is_private, api=hub)
    assert hub.commits == []
    push(repo, "lab/cells", public=not is_private, api=hub)


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
def test_an_incomplete_data_set_is_not_published(repo: Path, spoil: Any, words: str) -> None:
    spoil(repo)
    hub = FakeHub()
    with pytest.raises(UserError, match=words) as error:
        push(repo, "lab/cells", api=hub)
    assert "\n" not in str(error.value) and hub.files is None


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


def test_text_that_only_looks_like_a_path_is_published(tmp_path: Path) -> None:
    metadata = {"url": "https://example.org/a/b", "unit": "1/um", "ratio": "a/b/c", "time": "10:30", "q": "s: /"}
    write_repo(tmp_path / "repo", [noisy_crop(0, source="plate 1/well A/1.tif", metadata=metadata)])
    check_repository(tmp_path / "repo")


@pytest.mark.parametrize("hub_id", ["cells", "a/b/c", "lab/"])
def test_an_invalid_hub_id_is_refused(repo: Path, hub_id: str) -> None:
    with pytest.raises(UserError, match="OWNER/NAME"):
        push(repo, hub_id, api=FakeHub())


def test_the_message_without_a_login_says_how_to_log_in(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="hf auth login"):
        push(repo, "lab/cells")


def test_offline_mode_is_reported(repo: Path) -> None:
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        push(repo, "lab/cells", api=huggingface_hub.HfApi(token="hf_none"))


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
        push(repo, "lab/cells", api=huggingface_hub.HfApi(endpoint=url, token="hf_none"))
    assert "\n" not in str(error.value)


def test_the_command_prints_the_url(
    repo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_none")
    assert main(["data", "push", str(repo), "lab/cells", "--public"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("https://huggingface.co/datasets/lab/cells: 24 crops in ") and "public" in printed
    assert not hub.private
    assert main(["data", "push", str(repo), "lab/cells"]) == 2
