"""A web server on this machine that serves one file and can misbehave."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server answers, and what it was asked.

    Attributes:
        content: The file.
        etag: Its version.
        drops: Bytes after which each of the next responses breaks off.
        statuses: Error status of each of the next responses.
        heeds_range: Whether parts of the file can be had.
        heeds_if_range: Whether a changed file is sent whole to one who began the old one.
        requests: Headers of the requests so far.
    """

    content: bytes
    etag: str = '"one"'
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    heeds_range: bool = True
    heeds_if_range: bool = True
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(site: Site, name: str) -> Iterator[Site]:
    """Serves `site.content` as `site.url`, a URL that ends in `name`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append(dict(self.headers))
            if site.statuses:
                self.send_error(site.statuses.pop(0))
                return
            start = 0
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = not site.heeds_if_range or self.headers.get("If-Range") in (None, site.etag)
            if wanted and same and site.heeds_range:
                start = int(wanted[1])
                if start >= len(site.content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            else:
                self.send_response(200)
            body = site.content[start:]
            self.send_header("Content-Length", str(len(body)))
            if site.etag:
                self.send_header("ETag", site.etag)
            self.end_headers()
            if site.drops:
                body = body[: site.drops.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests read `site.requests`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}/models/{name}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
