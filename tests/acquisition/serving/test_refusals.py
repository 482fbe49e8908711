"""What a server refuses: other hosts, tokens, sizes, queues, files, and everything that is not an image."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from starlette.testclient import TestClient

from stedfm_hf.acquisition import Client, ServerBusyError
from stedfm_hf.acquisition.serving.command import serve
from stedfm_hf.acquisition.serving.settings import ServeSettings
from stedfm_hf.acquisition.serving.tokens import Tokens
from stedfm_hf.runs import UserError
from tests.acquisition.serving.serving_world import field, mask, npy, parts, serving, tiff

ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdefgh"


def bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def sentence(response: Any) -> str:
    """The only key of an error, which is one sentence."""
    (text,) = response.json().values()
    assert response.status_code >= 400 and "\n" not in text and "Traceback" not in text and "/tmp" not in text
    return str(text)


@pytest.fixture(scope="module")
def finder(server: TestClient) -> tuple[Client, str]:
    """A client with a finder."""
    client = Client(http=server)
    return client, client.create_finder(field(0), mask=mask(0), rotations=False).id


def deflate_bomb(megabytes: int) -> bytes:
    """A TIFF of 16 x 16 pixels whose only strip unpacks to far more."""
    content = bytearray(tiff(np.zeros((16, 16), np.uint8), compression="zlib"))
    packer = zlib.compressobj(9)
    packed = b"".join([packer.compress(bytes(2**20)) for _ in range(megabytes)]) + packer.flush()
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = {number: file.pages.first.tags[number].offset for number in (279, 273)}
    for number, value in ((279, len(packed)), (273, len(content))):  # size and position of the strip
        struct.pack_into("<HHII", content, tags[number], number, 4, 1, value)
    return bytes(content) + packed


def header(shape: tuple[int, ...]) -> bytes:
    """A .npy file that declares a shape and ends there."""
    return npy(np.zeros((1, 1), np.uint16)).replace(b"(1, 1)", str(shape).encode())[:128] + bytes(64)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "the request has no image"),
        (pickle.dumps({"a": 1}), 415, "neither a .npy nor a TIFF file"),
        (npy(np.array([{"a": 1}], object), allow_pickle=True), 400, "pickled Python objects, which are never loaded"),
        (b"--boundary\r\nContent-Disposition: form-data", 415, "send the bytes of the file, not a form"),
        (b"PK\x03\x04" + bytes(100), 415, "neither a .npy nor a TIFF file"),
        (b"\x93NUMPY" + bytes(100), 400, "damaged or truncated"),
        (npy(np.zeros((2, 3, 4, 5))), 400, "is an array of shape"),
        (npy(np.zeros((0, 5))), 400, "the image is empty"),
        (npy(np.zeros((8, 8), complex)), 400, "pixels of type complex128 are not supported"),
        (npy(np.array([["a"]])), 400, "are not supported"),
        (header((60000, 60000)), 400, "declares 7200000000 bytes"),
        (npy(np.zeros((2, 64, 80), np.uint16)), 400, "has 2 channels"),
        (npy(np.zeros((1200, 1200), np.uint8)), 413, "has 1.44 million pixels, more than 1 million"),
        (b"II*\0" + bytes(60), 400, "damaged or truncated"),
        (tiff(np.zeros((3, 64, 80), np.uint16), photometric="minisblack"), 400, "holds 3 planes"),
        (tiff(np.zeros((1200, 1200), np.uint8), compression="zlib"), 413, "pixels, more than 1 million"),
        (tiff(np.zeros((16, 16), np.uint8), tile=(4096, 4096), compression="zlib"), 413, "has 16.78 million pixels"),
        (tiff(np.zeros((70, 4, 4), np.uint8), photometric="minisblack"), 413, "has 70 pages, more than 64"),
    ],
)
def test_what_is_not_an_image_is_refused(
    body: bytes, status: int, message: str, model: Path, small: TestClient, finder_of_small: tuple[Client, str]
) -> None:
    client, name = finder_of_small
    for route in ("/score", "/regions"):
        response = small.post(route, params={"finder": name}, content=body, headers=bearer(client.token))
        assert message in sentence(response) and response.status_code == status
    files = {"image": ("image", body)} if body else {"mask": ("mask", npy(mask(0)))}
    response = small.post("/finders", files=files, data={"clicks": "[[4, 4]]"}, headers=bearer(client.token))
    assert message in sentence(response) or response.status_code == 422


@pytest.fixture(scope="module")
def small(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with low limits."""
    with serving(
        model, tmp_path_factory.mktemp("small"), max_megapixels=1, max_mb=2, max_finders=2, max_images=2
    ) as http:
        yield http


@pytest.fixture(scope="module")
def finder_of_small(small: TestClient) -> tuple[Client, str]:
    """A client with a finder on the server with low limits."""
    client = Client(http=small)
    return client, client.create_finder(field(0), mask=mask(0), rotations=False).id


def test_a_bomb_is_not_unpacked(small: TestClient, finder_of_small: tuple[Client, str]) -> None:
    client, name = finder_of_small
    resource = pytest.importorskip("resource")
    bomb = deflate_bomb(500)
    assert len(bomb) < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    response = small.post("/score", params={"finder": name}, content=bomb, headers=bearer(client.token))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * 2 ** (20 if sys.platform == "darwin" else 10) and response.status_code in (200, 400)


def test_large_requests_are_refused_before_they_are_read(
    small: TestClient, finder_of_small: tuple[Client, str]
) -> None:
    client, name = finder_of_small
    sent = []

    def parts() -> Any:
        for number in range(100):
            sent.append(number)
            yield bytes(100_000)

    for content in (bytes(2_100_000), parts()):
        response = small.post("/score", params={"finder": name}, content=content, headers=bearer(client.token))
        assert response.status_code == 413 and "the request is larger than 2 MB" in sentence(response)


def test_a_client_has_so_many_finders_and_images(small: TestClient) -> None:
    client = Client(http=small)
    one, _ = (client.create_finder(field(0), mask=mask(0), rotations=False) for _ in range(2))
    with pytest.raises(UserError, match="the client has 2 finders; delete one"):
        client.create_finder(field(0), mask=mask(0))
    client.add_annotations(one, field(1), mask=mask(1))
    with pytest.raises(UserError, match="the finder has 2 annotated images"):
        client.add_annotations(one, field(1), mask=mask(1))


@pytest.mark.parametrize(
    "path", ["../secret.npy", "/etc/passwd", "link.npy", "folder/secret.npy", "\0", "", "a" * 5000]
)
def test_a_path_outside_of_the_shared_folder_is_refused(
    path: str, server: TestClient, finder: tuple[Client, str]
) -> None:
    client, name = finder
    share = Path(str(parts(server).settings.share))
    secret = share.parent / "secret.npy"
    secret.write_bytes(npy(field(0)))
    for link, target in (("link.npy", secret), ("folder", share.parent)):
        if not (share / link).is_symlink():
            (share / link).symlink_to(target)
    response = server.post("/score", params={"finder": name, "path": path}, headers=bearer(client.token))
    assert response.status_code in (403, 404) and "shared" in sentence(response)
    response = server.post("/finders", data={"path": path, "clicks": "[[4, 4]]"}, headers=bearer(client.token))
    assert response.status_code in (400, 403, 404)


def test_paths_need_a_shared_folder(small: TestClient, finder_of_small: tuple[Client, str]) -> None:
    client, name = finder_of_small
    response = small.post("/score", params={"finder": name, "path": "a.npy"}, headers=bearer(client.token))
    assert response.status_code == 403 and "this server reads no files" in sentence(response)


def test_a_client_never_sees_the_finders_of_another(server: TestClient, finder: tuple[Client, str]) -> None:
    _, name = finder
    other = Client(http=server)
    assert other.finders() == []
    for act in (
        lambda: other.score(field(0), name),
        lambda: other.regions(field(0), name),
        lambda: other.delete_finder(name),
        lambda: other.add_annotations(name, field(0), mask=mask(0)),
    ):
        with pytest.raises(UserError, match="this client has no such finder"):
            act()
    response = server.get(f"/finders/{name}", headers=bearer(other.token))
    assert response.status_code == 404
    assert server.get("/finders/..%2f..", headers=bearer(other.token)).status_code == 404


def test_tokens_are_checked(model: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text(f"{ALICE}\n\n{BOB}\n")
    with serving(model, tmp_path / "state", tokens=tmp_path / "tokens.txt", host="0.0.0.0") as http:
        alice, bob = Client(http=http, token=ALICE), Client(http=http, token=BOB)
        finder = alice.create_finder(field(0), mask=mask(0), rotations=False)
        assert alice.finders() == [finder] and bob.finders() == []
        for headers in ({}, bearer("wrong"), bearer(ALICE[:-1]), {"Authorization": ALICE}, bearer("é")):
            encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
            for method, route in (
                ("GET", "/finders"),
                ("POST", "/process"),
                ("POST", "/clients"),
                ("GET", "/metrics"),
            ):
                response = http.request(method, route, headers=encoded)
                assert response.status_code == 401 and "token" in sentence(response)
        assert http.get("/health").status_code == 200
        assert http.post("/clients", headers=bearer(ALICE)).status_code == 403
    assert not [file for file in (tmp_path / "state").rglob("*") if ALICE in file.name]


def test_addresses_of_other_computers_need_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="other computers reach this address, and there is no token"):
        Tokens.load(ServeSettings(host="0.0.0.0"))
    with pytest.raises(UserError, match="a token is too short"):
        Tokens.load(ServeSettings(), {"STEDFM_TOKENS": "short"})
    with pytest.raises(UserError, match="cannot be read"):
        Tokens.load(ServeSettings(tokens=tmp_path / "no.txt"))
    assert Tokens.load(ServeSettings(host="0.0.0.0"), {"STEDFM_TOKENS": f"{ALICE}, {BOB}"}).values == (ALICE, BOB)
    assert Tokens.load(ServeSettings(host="::1"), {}).values == ()


def test_requests_of_web_pages_are_refused(server: TestClient) -> None:
    assert server.post("/clients", headers={"Origin": "https://evil.example"}).status_code == 403
    assert server.post("/clients", headers={"Host": "evil.example"}).status_code == 400
    assert server.get("/health", headers={"Host": "localhost:8321"}).status_code == 200


def test_a_full_queue_and_a_slow_computation_are_refused(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path, max_waiting=1, max_per_client=1) as http:
        first, second, third = (Client(http=http) for _ in range(3))
        finders = [each.create_finder(field(0), mask=mask(0), rotations=False) for each in (first, second, third)]
        busy, going = threading.Event(), threading.Event()

        def keep_busy() -> None:
            going.set()
            busy.wait(30)

        parts(http).work.thread.submit(keep_busy)
        going.wait(30)
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda each=each, finder=finder: found.append(each.score(field(1), finder)))
            for each, finder in zip((first, second), finders, strict=False)
        ]
        try:
            for number, thread in enumerate(threads, 1):
                thread.start()
                while parts(http).admission.count < number:
                    pass
            with pytest.raises(ServerBusyError, match="this client waits for 1 answer;") as refused:
                first.score(field(1), finders[0])
            assert refused.value.retry_after_s > 0
            with pytest.raises(ServerBusyError, match="2 requests of all clients are computed or wait"):
                third.score(field(1), finders[2])
        finally:
            busy.set()
            for thread in threads:
                thread.join(30)
        assert len(found) == 2 and parts(http).admission.count == 0
        parts(http).work._max_seconds = -1.0
        with pytest.raises(UserError, match="took more than .* or raise --max-seconds") as stopped:
            first.score(field(1), finders[0])
        assert not isinstance(stopped.value, ServerBusyError)  # the same request would be stopped again


def test_score_maps_have_the_type_that_is_accepted(server: TestClient, finder: tuple[Client, str]) -> None:
    client, name = finder
    kinds = {}
    for accept in ("application/json", "application/x-npy", "image/tiff", "text/html"):
        kinds[accept] = server.post(
            "/score",
            params={"finder": name, "pixel_size_nm": 20},
            content=tiff(field(1)),
            headers=bearer(client.token) | {"Accept": accept},
        )
    assert kinds["text/html"].status_code == 406 and "application/x-npy" in sentence(kinds["text/html"])
    assert kinds["application/json"].json()["cell_px"] == [8.0, 8.0]
    assert kinds["image/tiff"].headers["content-type"] == "image/tiff" and kinds["image/tiff"].content[:2] == b"II"
    assert kinds["application/x-npy"].headers["x-classes"] == '["structure"]'


def test_the_server_reports_its_start_once(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: None)
    serve(model="demo", state=tmp_path, port=0, device="cpu")
    notes = capsys.readouterr().err.splitlines()
    assert [note.split(":")[1].split()[0] for note in notes] == ["demo", "loading", "the"]
