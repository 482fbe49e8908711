"""A small Hub on this machine: repositories with commits, tags and large files, a login, and faults for tests."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import datasets
import huggingface_hub
import pytest
import transformers.utils.hub
from huggingface_hub import constants

TOKEN = "hf_" + "owner" * 7
"""Token with the right to write to the namespaces of the server."""
LARGE_SUFFIXES = (".safetensors", ".parquet", ".onnx", ".png")
"""Files that are sent as large files (LFS), as on the Hub with its usual .gitattributes."""
_KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
_ID = r"(?P<id>[^/]+/[^/]+?)"


def _blob_id(content: bytes) -> str:
    """Name that Git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Commit:
    """A state of a repository.

    Args:
        oid: 40 hexadecimal digits.
        title: first line of the message.
        files: content of every file, by path.
    """

    oid: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """A repository.

    Args:
        private: whether a login is needed to read it.
        gated: whether nobody gets its files.
        commits: its states, oldest first.
        tags: commit of every tag.
    """

    private: bool = False
    gated: bool = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """Content of the files in the newest state, by path."""
        return self.commits[-1].files

    def commit(self, title: str, files: dict[str, bytes]) -> Commit:
        """Add a state."""
        oid = hashlib.sha1(f"{len(self.commits)} {title} {sorted(files)}".encode()).hexdigest()
        self.commits.append(Commit(oid, title, files))
        return self.commits[-1]

    def find(self, revision: str) -> Commit | None:
        """Return the state of a branch, tag or commit."""
        if revision == "main":
            return self.commits[-1]
        oid = self.tags.get(revision, revision)
        return next((each for each in self.commits if each.oid == oid), None)


@dataclass
class Hub:
    """What the server holds, what it was asked for, and how it fails.

    Args:
        url: for `HF_ENDPOINT`.
        namespaces: users and organisations whose repositories the token may write.
        repositories: by kind (`model`, `dataset`, `space`) and id.
        objects: contents of large files, by SHA-256.
        requests: method and path of every request.
        puts: SHA-256 of every large file that was received whole.
        sent: bytes of file contents sent.
        refuses: whether nothing may be written.
        role: right of the token: `write` or `read`.
        cut_puts: number of large files whose connection is closed half-way.
        cut_commits: number of commits whose connection is closed.
    """

    url: str = ""
    namespaces: set[str] = field(default_factory=lambda: {"lab", "flclab", "my-lab"})
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    puts: list[str] = field(default_factory=list)
    sent: int = 0
    refuses: bool = False
    role: str = "write"
    cut_puts: int = 0
    cut_commits: int = 0

    def model(self, hub_id: str) -> Repository:
        """Return a repository of a model."""
        return self.repositories["model", hub_id]

    def dataset(self, hub_id: str) -> Repository:
        """Return a repository of a data set."""
        return self.repositories["dataset", hub_id]

    def add(self, kind: str, hub_id: str, folder: Path, *, private: bool = False) -> Repository:
        """Add a repository with the files of a folder."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in _files(folder)}
        repository = self.repositories[kind, hub_id] = Repository(private)
        repository.commit("Upload", files)
        return repository


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


@contextmanager
def hub_server(**datasets: Path) -> Iterator[Hub]:
    """Serve a Hub on 127.0.0.1 while the block runs.

    Args:
        datasets: folders of public data sets; `crops=folder` is served as `lab/crops`.
    """
    hub = Hub()
    for name, folder in datasets.items():
        hub.add("dataset", f"lab/{name}", folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None = TOKEN) -> None:
    """Let this process take the server for the Hub, and log in.

    Args:
        hub: the server.
        monkeypatch: undoes it.
        token: the token that is saved on this computer; None for nobody.
    """
    for module, name, value in (
        (constants, "ENDPOINT", hub.url),
        (constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"),
        (constants, "HF_HUB_OFFLINE", False),
        (huggingface_hub.hf_api.api, "endpoint", hub.url),
        (datasets.config, "HF_ENDPOINT", hub.url),
        (datasets.config, "HF_HUB_OFFLINE", False),
    ):
        monkeypatch.setattr(module, name, value)
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    huggingface_hub.HfFileSystem.clear_instance_cache()
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)


def environment_of(hub: Hub, cache: Path) -> dict[str, str]:
    """Return the environment of another process that takes the server for the Hub, and reaches no other host.

    Args:
        hub: the server.
        cache: folder of its cache.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")}
    nowhere = "http://127.0.0.1:9"
    proxies = {name: nowhere for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")}
    return (
        kept
        | proxies
        | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_ENDPOINT": hub.url}
        | {
            "HF_HOME": str(cache),
            "HF_TOKEN": TOKEN,
        }
    )


class _Refused(Exception):
    """Answer with an error status."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, body


class _Cut(Exception):
    """Close the connection."""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._respond()

        do_GET = do_POST = do_PUT = do_HEAD

        def _respond(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            url = urlsplit(self.path)
            path = unquote(url.path)
            self.query = parse_qs(url.query)
            try:
                length = int(self.headers.get("Content-Length", 0))
                if path.startswith("/large/") and self.command == "PUT" and hub.cut_puts:
                    hub.cut_puts -= 1
                    self.rfile.read(length // 2)
                    raise _Cut
                self.content = self.rfile.read(length)
                with lock:
                    self._route(path)
            except _Cut:
                self.close_connection = True
                self.connection.close()
            except _Refused as refusal:
                headers = {"X-Error-Message": str(refusal)} | ({"X-Error-Code": refusal.code} if refusal.code else {})
                self._json({"error": str(refusal)} | refusal.body, refusal.status, headers)

        def _route(self, path: str) -> None:
            routes = (
                (r"/api/whoami-v2", self._who),
                (r"/api/validate-yaml", lambda: self._json({"errors": [], "warnings": []})),
                (r"/api/repos/create", self._create),
                (r"/large/(?P<oid>[0-9a-f]{64})", self._put),
                (r"/verify", lambda: self._json({})),
                (rf"/(?:(?P<kind>datasets|spaces)/)?{_ID}\.git/info/lfs/objects/batch", self._batch),
                (rf"/(?:(?P<kind>datasets|spaces)/)?{_ID}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", self._file),
                (rf"/api/(?P<kind>models|datasets|spaces)/{_ID}", self._info),
                (
                    rf"/api/(?P<kind>models|datasets|spaces)/{_ID}/(?P<call>revision|tree|paths-info|preupload|commit|"
                    r"tag|refs|commits)(?:/(?P<revision>[^/]+)(?:/(?P<name>.*))?)?",
                    self._call,
                ),
            )
            for pattern, respond in routes:
                if match := re.fullmatch(pattern, path):
                    respond(**match.groupdict())
                    return
            raise _Refused(404, "there is no such page", "EntryNotFound")

        def _login(self) -> bool:
            """Whether the request has the token; another token is refused."""
            given = self.headers.get("Authorization", "")
            if given not in ("", f"Bearer {TOKEN}"):
                raise _Refused(401, "Invalid credentials in Authorization header")
            return bool(given)

        def _may_write(self, hub_id: str) -> None:
            if not self._login():
                raise _Refused(401, "Invalid username or password.")
            if hub.refuses or hub_id.partition("/")[0] not in hub.namespaces:
                raise _Refused(403, "you may not write here")

        def _find(self, kind: str | None, hub_id: str, *, files: bool = False) -> Repository:
            repository = hub.repositories.get((_KINDS[kind or "models"], hub_id))
            if repository is None or (repository.private and not self._login()):
                raise _Refused(404 if self._login() else 401, "Repository not found", "RepoNotFound")
            if repository.gated and files:
                raise _Refused(403, f"Access to {hub_id} is restricted", "GatedRepo")
            return repository

        def _state(self, repository: Repository, revision: str | None) -> Commit:
            commit = repository.find(revision or "main")
            if commit is None:
                raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return commit

        def _who(self) -> None:
            if not self._login():
                raise _Refused(401, "Invalid username or password.")
            token = {"accessToken": {"displayName": "test", "role": hub.role}}
            orgs = [{"name": each} for each in sorted(hub.namespaces)]
            self._json({"name": "ada", "type": "user", "orgs": orgs, "auth": {"type": "access_token", **token}})

        def _create(self) -> None:
            asked = json.loads(self.content)
            kind, hub_id = asked.get("type", "model"), f"{asked.get('organization') or 'lab'}/{asked['name']}"
            self._may_write(hub_id)
            url = f"{hub.url}/{'' if kind == 'model' else kind + 's/'}{hub_id}"
            if (kind, hub_id) in hub.repositories:
                raise _Refused(409, "You already created this repo", url=url)
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            hub.repositories[kind, hub_id] = Repository(private)
            hub.repositories[kind, hub_id].commit("initial commit", {".gitattributes": b""})
            self._json({"url": url, "id": hub_id})

        def _put(self, oid: str) -> None:
            if hashlib.sha256(self.content).hexdigest() != oid:
                raise _Refused(400, "other content than announced")
            hub.objects[oid] = self.content
            hub.puts.append(oid)
            self._json({})

        def _batch(self, kind: str | None, id: str) -> None:
            self._find(kind, id)
            self._may_write(id)
            objects = []
            for asked in json.loads(self.content)["objects"]:
                each = {"oid": asked["oid"], "size": asked["size"]}
                if asked["oid"] not in hub.objects:  # what the server has is not sent again
                    upload, verify = f"{hub.url}/large/{asked['oid']}", f"{hub.url}/verify"
                    each["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
                objects.append(each)
            self._json({"transfer": "basic", "objects": objects})

        def _info(self, kind: str, id: str, revision: str | None = None) -> None:
            repository = self._find(kind, id)
            commit = self._state(repository, revision)
            facts = {"id": id, "sha": commit.oid, "private": repository.private, "gated": repository.gated and "auto"}
            self._json(facts | {"tags": [], "siblings": [{"rfilename": name} for name in sorted(commit.files)]})

        def _call(self, kind: str, id: str, call: str, revision: str | None, name: str | None) -> None:
            if call in ("preupload", "commit", "tag"):
                self._may_write(id)
            repository = self._find(kind, id)
            if call == "refs":
                branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commits[-1].oid}]
                tags = [
                    {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid}
                    for tag, oid in repository.tags.items()
                ]
                self._json({"branches": branches, "tags": tags, "converts": []})
                return
            commit = self._state(repository, revision)
            if call == "revision":
                self._info(kind, id, revision)
            elif call == "commits":
                listed = [
                    {"id": each.oid, "title": each.title, "message": "", "authors": [], "date": _DATE}
                    for each in reversed(repository.commits)
                ]
                self._json(listed)
            elif call == "tag":
                tag = json.loads(self.content)["tag"]
                if tag in repository.tags:
                    raise _Refused(409, f"Tag {tag} already exists")
                repository.tags[tag] = commit.oid
                self._json({})
            elif call == "preupload":
                self._json({"files": [_upload_mode(each, commit) for each in json.loads(self.content)["files"]]})
            elif call == "commit":
                self._commit(repository, kind, id)
            elif call == "paths-info":
                wanted = self._wanted_paths()
                self._json([each for each in _tree(commit.files) if each["path"] in wanted])
            else:
                self._json(self._listed(commit, (name or "").strip("/")))

        def _wanted_paths(self) -> list[str]:
            """Paths of the body, which is JSON or a form."""
            text = self.content.decode()
            return list(json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", []))

        def _listed(self, commit: Commit, folder: str) -> list[dict[str, Any]]:
            prefix = f"{folder}/" if folder else ""
            inside = [each for each in _tree(commit.files) if each["path"].startswith(prefix)]
            if folder and not inside:
                raise _Refused(404, f"{folder} does not exist", "EntryNotFound")
            if self.query.get("recursive", ["false"])[0].lower() == "true":
                return inside
            return [each for each in inside if "/" not in each["path"][len(prefix) :]]

        def _commit(self, repository: Repository, kind: str, hub_id: str) -> None:
            if hub.cut_commits:
                hub.cut_commits -= 1
                raise _Cut
            title, files = "", dict(repository.files)
            for line in self.content.splitlines():
                record = json.loads(line)
                value = record["value"]
                if record["key"] == "header":
                    title = value["summary"]
                elif record["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif record["key"] == "lfsFile":
                    if value["oid"] not in hub.objects:
                        raise _Refused(400, f"{value['path']} was not uploaded")
                    files[value["path"]] = hub.objects[value["oid"]]
                elif record["key"] == "deletedFile":
                    del files[value["path"]]
                else:
                    files = {name: file for name, file in files.items() if not name.startswith(value["path"])}
            commit = repository.commit(title, files)
            url = f"{hub.url}/{'' if kind == 'models' else kind + '/'}{hub_id}/commit/{commit.oid}"
            self._json({"commitUrl": url, "commitOid": commit.oid})

        def _file(self, kind: str | None, id: str, revision: str, name: str) -> None:
            commit = self._state(self._find(kind, id, files=True), revision)
            headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
            content = commit.files.get(name)
            if content is None:
                headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
                self._send(404, b"", headers)
                return
            headers["ETag"] = f'"{_blob_id(content)}"'
            if name.endswith(LARGE_SUFFIXES):
                headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
                headers["X-Linked-Size"] = str(len(content))
            status, whole = 200, len(content)
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(match[1]), min(int(match[2] or whole - 1), whole - 1)
                content, status = content[first : last + 1], 206
                headers["Content-Range"] = f"bytes {first}-{last}/{whole}"
            if self.command == "GET":
                hub.sent += len(content)
            self._send(status, content, headers)

        def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


_DATE = "2026-01-01T00:00:00.000Z"


def _upload_mode(asked: dict[str, Any], commit: Commit) -> dict[str, Any]:
    """Say how a file is to be sent, and which content of it the server has."""
    path, large = asked["path"], asked["path"].endswith(LARGE_SUFFIXES)
    held = commit.files.get(path)
    oid = None if held is None else hashlib.sha256(held).hexdigest() if large else _blob_id(held)
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}


def _tree(files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Describe all files and folders, sorted by path."""
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    found: list[dict[str, Any]] = [
        {"type": "directory", "oid": _blob_id(name.encode()), "size": 0, "path": name} for name in folders
    ]
    for name, content in files.items():
        entry: dict[str, Any] = {"type": "file", "oid": _blob_id(content), "size": len(content), "path": name}
        if name.endswith(LARGE_SUFFIXES):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        found.append(entry)
    return sorted(found, key=lambda each: str(each["path"]))
