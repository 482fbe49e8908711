"""A loopback stand-in for the Hub: serves local folders as data sets, counts the bytes, takes models and data sets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """What is served, where, and what was asked for.

    Args:
        url: for `HF_ENDPOINT`.
        repos: folder of every repository id.
        private: whether the repositories are private.
        requests: method and path of every request.
        sent: bytes of file contents sent.
        created: what was asked for every model repository that was made.
        pushed: contents of the files of those, by name.
        refuses: whether nothing may be pushed.
    """

    url: str
    repos: dict[str, Path] = field(default_factory=dict)
    private: bool = False
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    created: dict[str, dict[str, Any]] = field(default_factory=dict)
    pushed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refuses: bool = False


@contextmanager
def fake_hub(**repos: Path) -> Iterator[FakeHub]:
    """Serves folders as `lab/<name>` on 127.0.0.1 while the block runs."""
    hub = FakeHub("", {f"lab/{name}": path for name, path in repos.items()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _entry(root: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(root).as_posix()
    oid = hashlib.sha1(name.encode()).hexdigest()
    if path.is_dir():
        return {"type": "directory", "oid": oid, "size": 0, "path": name}
    return {"type": "file", "oid": oid, "size": path.stat().st_size, "path": name}


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if match := re.fullmatch(
                r"/api/(?:repos/create|(validate-yaml)|(?:models|datasets)/(.+)/(preupload|commit)/main)", self.path
            ):
                self._push(match[2], match[1] or match[3], content)
                return
            self._paths = json.loads(content or b"{}").get("paths", [])
            self._answer(body=True)

        def _push(self, repo: str | None, kind: str | None, content: bytes) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            # JSON, or lines of it: a commit has one for every file.
            records = [json.loads(line) for line in content.splitlines()]
            if hub.refuses:
                self._json({"error": "you may not write here"}, 403)
            elif kind == "validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif repo is None:
                repo = f"{records[0]['organization']}/{records[0]['name']}"
                hub.created[repo], hub.pushed[repo] = records[0], {}
                self._json({"url": f"{hub.url}/{repo}"})
            elif kind == "preupload":
                answers = {"uploadMode": "regular", "shouldIgnore": False}
                self._json({"files": [{"path": file["path"], **answers} for file in records[0]["files"]]})
            else:
                files = [record["value"] for record in records if record["key"] == "file"]
                written = {file["path"]: base64.b64decode(file["content"]) for file in files}
                hub.pushed.setdefault(repo, {}).update(written)
                self._json({"commitUrl": f"{hub.url}/{repo}/commit/{SHA}", "commitOid": SHA})

        def _answer(self, *, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            url = urlsplit(self.path)
            path = unquote(url.path)
            if match := re.fullmatch(
                r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(/.*)?)?", path
            ):
                self._api(match[1], match[2], match[4], parse_qs(url.query))
            elif match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._file(match[1], match[3], body)
            else:
                self._send(404, b"")

        def _api(self, repo: str, kind: str | None, below: str | None, query: dict[str, list[str]]) -> None:
            root = hub.repos.get(repo)
            if root is None:
                self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            elif kind in (None, "revision"):
                files = [{"rfilename": p.relative_to(root).as_posix()} for p in sorted(root.rglob("*")) if p.is_file()]
                self._json(
                    {"id": repo, "sha": SHA, "siblings": files, "private": hub.private, "tags": [], "gated": False}
                )
            elif kind == "paths-info":
                self._json([_entry(root, root / name) for name in self._paths if (root / name).exists()])
            else:
                folder = root / (below or "").strip("/")
                if not folder.is_dir():
                    self._json({"error": "not there"}, 404, {"X-Error-Code": "EntryNotFound"})
                    return
                found = (
                    folder.rglob("*") if query.get("recursive", ["false"])[0].lower() == "true" else folder.iterdir()
                )
                self._json([_entry(root, each) for each in sorted(found)])

        def _file(self, repo: str, name: str, body: bool) -> None:
            path = hub.repos[repo] / name if repo in hub.repos else None
            if path is None or not path.is_file():
                self._json({"error": "not there"}, 404, {"X-Error-Code": "EntryNotFound"})
                return
            content, status, headers = path.read_bytes(), 200, {"X-Repo-Commit": SHA, "ETag": f'"{path.name}"'}
            whole = len(content)
            headers["Accept-Ranges"] = "bytes"
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(match[1]), min(int(match[2] or whole - 1), whole - 1)
                content, status = content[first : last + 1], 206
                headers["Content-Range"] = f"bytes {first}-{last}/{whole}"
            if body:
                hub.sent += len(content)
            self._send(status, content, headers, body=body)

        def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))

        def _send(
            self, status: int, content: bytes, headers: dict[str, str] | None = None, *, body: bool = True
        ) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body and self.command != "HEAD":
                self.wfile.write(content)

    return Handler
