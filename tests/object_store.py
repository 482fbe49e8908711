"""An S3 server on this machine, behind a proxy that can cut connections in the middle."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACCESS_KEY, SECRET_KEY = "AKIASTEDFMSTEDFMSTED", "only-for-tests"
_LARGE = 4096
"""Size of a chunk from which it is data of an object, not a header, in bytes."""


@dataclass
class ObjectServer:
    """S3 server.

    Attributes:
        url: Address for clients, that of the proxy.
        direct: Address of the server itself.
        cut_downloads: Number of next downloads that break off in the middle.
        cut_uploads: Number of next uploads that break off in the middle.
        bytes_sent: Number of bytes that clients received.
    """

    url: str
    direct: str
    cut_downloads: int = 0
    cut_uploads: int = 0
    bytes_sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check_credentials(self, checked: bool) -> None:
        """Check the credentials of every request, or of none; the server knows no user."""
        count = b"0" if checked else b"inf"
        request = urllib.request.Request(f"{self.direct}/moto-api/reset-auth", count, {"Content-Type": "text/plain"})
        urllib.request.urlopen(request).close()


@dataclass
class Bucket:
    """An empty bucket.

    Attributes:
        name: Name of the bucket.
        server: Its server.
        system: File system of s3fs that reads past the proxy's cuts.
    """

    name: str
    server: ObjectServer
    system: Any

    @property
    def url(self) -> str:
        """URL of the bucket."""
        return f"s3://{self.name}"

    def put(self, folder: Path, name: str) -> str:
        """Upload the files of a folder, and return its URL."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.system.put_file(str(file), f"{self.name}/{name}/{file.relative_to(folder).as_posix()}")
        return f"{self.url}/{name}"

    def files(self, name: str) -> dict[str, bytes]:
        """Return the content of the objects under a name."""
        start = len(f"{self.name}/{name}/")
        return {each[start:]: self.system.cat_file(each) for each in self.system.find(f"{self.name}/{name}")}


@contextmanager
def serve_objects() -> Iterator[ObjectServer]:
    """Start the server and its proxy."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    listening = socket.create_server(("127.0.0.1", 0))
    server = ObjectServer(f"http://127.0.0.1:{listening.getsockname()[1]}", f"http://{host}:{port}")
    threading.Thread(target=_accept, args=(listening, (host, port), server), daemon=True).start()
    try:
        yield server
    finally:
        listening.close()
        moto.stop()


def _accept(listening: socket.socket, target: tuple[str, int], server: ObjectServer) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:  # closed
            return
        upstream = socket.create_connection(target)
        for source, sink, down in ((client, upstream, False), (upstream, client, True)):
            threading.Thread(target=_pump, args=(source, sink, server, down), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, server: ObjectServer, down: bool) -> None:
    """Copy from one socket to the other; a chunk to cut is sent by half, and both are closed."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(2**16):
            kind = "cut_downloads" if down else "cut_uploads"
            with server.lock:
                cut = len(chunk) >= _LARGE and getattr(server, kind) > 0
                setattr(server, kind, getattr(server, kind) - cut)
                server.bytes_sent += len(chunk) if down else 0
            sink.sendall(chunk[: len(chunk) // 2] if cut else chunk)
            if cut:
                break
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
