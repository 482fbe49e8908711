from __future__ import annotations

import io
import random
import socket
import zipfile
from pathlib import Path

import httpx2
import huggingface_hub.constants
import pytest

from stedfm_hf.runs import download
from stedfm_hf.runs.download import cache_folder, fetch, public_url
from stedfm_hf.runs.errors import UserError
from tests.server import Site, serve

CONTENT = random.Random(0).randbytes(3_000_000)


def archive(payload: bytes = CONTENT[:100_000]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("pl_checkpoint-999.pth", payload)
    return buffer.getvalue()


def ranges(site: Site) -> list[str | None]:
    return [request.get("Range") for request in site.requests]


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.name.endswith((".part", ".version")))


def test_the_second_time_nothing_is_downloaded(loopback: Path) -> None:
    with serve(Site(CONTENT), "weights.pth") as site:
        path = fetch(site.url)
        assert path.read_bytes() == CONTENT and path.name == "weights.pth" and loopback in path.parents
        assert fetch(site.url) == path
        assert ranges(site) == [None] and leftovers(loopback) == []


def test_progress_is_told(loopback: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(Site(CONTENT), "weights.pth") as site:
        fetch(site.url)
    assert "download: 3/3 MB" in capsys.readouterr().err


def test_a_broken_transfer_goes_on_where_it_stopped(loopback: Path) -> None:
    with serve(Site(CONTENT, drops=[1_100_000, 700_000]), "weights.pth") as site:
        assert fetch(site.url).read_bytes() == CONTENT
        assert len(site.requests) == 3
        first, second, third = site.requests
        assert "Range" not in first and second["If-Range"] == '"one"'
        assert 0 < int(second["Range"][6:-1]) <= 1_100_000
        assert int(second["Range"][6:-1]) < int(third["Range"][6:-1]) <= 1_800_000


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(loopback: Path) -> None:
    with serve(Site(CONTENT, drops=[1_100_000] + [0] * (download.ATTEMPTS - 1)), "weights.pth") as site:
        with pytest.raises(UserError, match=rf"after {download.ATTEMPTS} attempts"):
            fetch(site.url)
        asked = len(site.requests)
        assert asked == download.ATTEMPTS
        assert fetch(site.url).read_bytes() == CONTENT
        assert len(site.requests) == asked + 1 and "Range" in site.requests[-1]


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("size", [2_500_000, 900_000])
def test_a_file_that_changed_in_between_is_started_anew(loopback: Path, heeds_if_range: bool, size: int) -> None:
    new = CONTENT[::-1][:size]
    site = Site(CONTENT, drops=[1_100_000] + [0] * (download.ATTEMPTS - 1), heeds_if_range=heeds_if_range)
    with serve(site, "weights.pth"):
        with pytest.raises(UserError):
            fetch(site.url)
        site.content, site.etag = new, '"two"'
        assert fetch(site.url).read_bytes() == new


@pytest.mark.parametrize(
    "site", [Site(CONTENT, heeds_range=False), Site(CONTENT, etag=""), Site(CONTENT, etag='W/"x"')]
)
def test_servers_that_cannot_resume_send_everything_again(loopback: Path, site: Site) -> None:
    site.drops = [1_100_000]
    with serve(site, "weights.pth"):
        assert fetch(site.url).read_bytes() == CONTENT


def test_busy_servers_are_asked_again_and_missing_files_are_not(loopback: Path) -> None:
    with serve(Site(CONTENT, statuses=[503, 429]), "weights.pth") as site:
        assert fetch(site.url).read_bytes() == CONTENT
    with serve(Site(CONTENT, statuses=[404]), "weights.pth") as site:
        with pytest.raises(UserError, match="404") as error:
            fetch(site.url)
        assert len(site.requests) == 1 and "\n" not in str(error.value)


def test_a_refused_connection_is_a_bounded_one_line_error(loopback: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UserError, match=rf"after {download.CONNECT_ATTEMPTS} attempts") as error:
        fetch(f"http://127.0.0.1:{port}/weights.pth")
    assert "\n" not in str(error.value)


def test_a_silent_server_is_a_bounded_one_line_error(loopback: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", httpx2.Timeout(0.05))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(UserError, match="did not answer in time"):
            fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/weights.pth")


def test_offline_mode_is_named(loopback: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        fetch("http://127.0.0.1:9/weights.pth")


@pytest.mark.parametrize("url", ["ftp://example.org/a.zip", "weights.pth", "file:///etc/passwd"])
def test_only_the_web_is_fetched(loopback: Path, url: str) -> None:
    with pytest.raises(UserError, match="http"):
        fetch(url)


def test_damaged_archives_and_error_pages_are_not_kept(loopback: Path) -> None:
    whole = archive()
    damaged = whole.replace(CONTENT[50_000:50_010], bytes(10))
    assert damaged != whole
    with serve(Site(damaged), "mae-small-sted.zip") as site:
        with pytest.raises(UserError, match="damaged"):
            fetch(site.url)
        site.content = b"<html>please log in</html>"
        with pytest.raises(UserError, match="did not send a zip archive"):
            fetch(site.url)
        assert leftovers(loopback) == []
        site.content = whole
        assert fetch(site.url).read_bytes() == whole


def test_a_file_that_is_not_what_it_was_is_refused(loopback: Path) -> None:
    original = archive()  # once: a zip archive holds the time it was written
    with serve(Site(original), "mae-small-sted.zip") as site:
        path = fetch(site.url)
        path.write_bytes(archive(b"changed on disk"))
        with pytest.raises(UserError, match="delete it to download it again"):
            fetch(site.url)
        path.unlink()
        site.content = archive(b"changed on the server")
        with pytest.raises(UserError, match="has changed"):
            fetch(site.url)
        assert not path.exists() and leftovers(loopback) == []
        site.content = original
        assert fetch(site.url) == path


def test_a_known_checksum_is_compared_at_the_first_download(loopback: Path) -> None:
    with serve(Site(CONTENT), "weights.pth") as site, pytest.raises(UserError, match="do not use it"):
        fetch(site.url, expected_sha256="0" * 64)


def test_names_and_secrets_of_addresses(loopback: Path) -> None:
    assert public_url("https://ada:secret@example.org/a/b.zip?token=1#x") == "https://example.org/a/b.zip"
    with serve(Site(CONTENT), "..%2F..%2Fevil%00 name.pth?token=secret") as site:
        path = fetch(site.url)
    assert path.parent.parent == loopback / "downloads" and path.name == "evil__name.pth"
    assert not any("secret" in file.read_text(errors="ignore") for file in path.parent.glob("*.json"))


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STEDFM_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("STEDFM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "stedfm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "stedfm"
