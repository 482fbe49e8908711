from __future__ import annotations

import socket
import threading

import pytest


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org", "2001:db8::1"])
def test_another_machine_cannot_be_reached(host: str) -> None:
    with pytest.raises(RuntimeError, match="offline"):
        socket.create_connection((host, 80), timeout=1)
    with socket.socket() as client, pytest.raises(RuntimeError, match="offline"):
        client.connect((host, 80))


def test_this_machine_can() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = threading.Thread(target=lambda: server.accept()[0].sendall(b"here"))
        answer.start()
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            assert client.recv(4) == b"here"
        answer.join()
