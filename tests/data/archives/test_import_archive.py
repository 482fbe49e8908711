"""Import of archives with the layout of the official ones: crops, hostile content, interrupted runs."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from datasets import load_dataset

from stedfm_hf.cli import main
from stedfm_hf.data.archives import import_archive as archives
from stedfm_hf.data.archives.crops import read_crop
from stedfm_hf.data.archives.import_archive import import_archive
from stedfm_hf.data.archives.members import iterate_members
from stedfm_hf.data.assembly import assemble as assembly
from stedfm_hf.data.assembly.staging import Staging
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.data.splits import split_of
from stedfm_hf.runs import Manifest, UserError
from tests.data.archives.fabricated import (
    crop_pixels,
    curated,
    npz,
    pixels_of,
    rows_of,
    scraped,
    source_id,
    write_tar,
    write_zip,
)
from tests.data.assembled import write_plain_card
from tests.server import Site, serve

Members = list[tuple[str, bytes]]


class Call:
    """Object whose pickle calls `function(*arguments)` when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.recipe = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.recipe


@pytest.fixture(autouse=True)
def _without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip writing the card, which takes longer than everything else."""
    if "card" not in request.fixturenames:
        monkeypatch.setattr(assembly, "write_card", write_plain_card)


@pytest.fixture
def card() -> None:
    """Write the card and its figures in this test."""


# ------------------------------------------------------------------------------------- what is read


def test_an_archive_without_labels(tmp_path: Path, card: None) -> None:
    members = [scraped(number, y=448, x=448) for number in range(12)]
    summary = import_archive(write_tar(tmp_path / "crops.tar", members), tmp_path / "repo")
    rows = rows_of(tmp_path / "repo")
    assert sum(summary.crops.values()) == len(rows) == 12 and summary.labels == ()
    assert (
        summary.sources == Counter(split_of(source_id(number)) for number in range(3)) and "train" in summary.sources
    )
    assert all(row["split"] == split_of(row["source"]) for row in rows)
    assert pixels_of(tmp_path / "repo") == {crop_pixels(number).tobytes() for number in range(12)}
    row = rows[0]
    assert row["label"] is None and row["series"] == "STED_594 {6}" and row["source"] in map(source_id, range(3))
    assert row["pixel_size_nm"] == [25.0, 20.0]
    # Shifted inward at the border of a source of 500 x 600 pixels, although its name has the grid position.
    assert {(row["y"], row["x"]) for row in rows} == {(276, 376)}
    assert row["scaling"] == {"applied": True, "low": None, "high": None, "quantiles": [0.001, 0.999]}
    assert (row["intensity_low"], row["intensity_high"]) == (0, 255)
    assert row["metadata"]["msr-metadata"]["AcquisitionDate"] == "2020-01-31"
    assert summary.manifest.exit_status == 0
    assert summary.manifest.items["crops.tar#0-11"].state == "done"
    assert not (tmp_path / "repo" / ".staging").exists()
    loaded = load_dataset(str(tmp_path / "repo"), split="train", streaming=True)
    assert {row["source"] for row in loaded} == {row["source"] for row in rows if row["split"] == "train"}


def test_an_archive_with_labels_and_unknown_proteins(tmp_path: Path) -> None:
    proteins = ["f-actin", "beta2-spectrin", "psd95", "unknown"]
    members = [curated(number, proteins[number % 4]) for number in range(24)]
    summary = import_archive(write_zip(tmp_path / "subset.zip", members), tmp_path / "repo")
    assert summary.labels == ("beta2-spectrin", "f-actin", "psd95")
    by_source = {source_id(number): proteins[number % 4] for number in range(24)}
    for row in rows_of(tmp_path / "repo"):
        label = summary.labels[row["label"]] if row["label"] is not None else "unknown"
        assert label == by_source[row["source"]]
        assert (row["y"], row["x"]) == (448, 0) and row["channel"] == "1" and row["pixel_size_nm"] is None
    none = import_archive(tmp_path / "subset.zip", tmp_path / "none", label_key=None)
    assert none.labels == ()
    by_type = import_archive(tmp_path / "subset.zip", tmp_path / "type", label_key="image-type")
    assert by_type.labels == ("msr",)


def test_raw_crops_keep_their_counts_and_have_a_scaling(tmp_path: Path) -> None:
    members = [curated(number, "psd95", "uint16") for number in range(4)]
    import_archive(write_tar(tmp_path / "raw.tar", members), tmp_path / "repo")
    rows = rows_of(tmp_path / "repo")
    assert {row["dtype"] for row in rows} == {"uint16"}
    assert pixels_of(tmp_path / "repo") == {crop_pixels(number, "uint16").tobytes() for number in range(4)}
    low, high = np.quantile(rows[0]["pixels"], [0.001, 0.999])
    assert rows[0]["intensity_low"] == pytest.approx(low) and rows[0]["intensity_high"] == pytest.approx(high)
    assert rows[0]["scaling"]["applied"] is False and rows[0]["scaling"]["fitted_on"] == "crop"


def test_tiff_members(tmp_path: Path) -> None:
    members: Members = []
    for number in range(6):
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer, crop_pixels(number, "uint16"), imagej=True, resolution=(50, 50), metadata={"unit": "um"}
        )
        members.append((f"tubulin-{source_id(number)}-0-224.tif", buffer.getvalue()))
    summary = import_archive(write_zip(tmp_path / "tiff-raw.zip", members), tmp_path / "repo")
    assert summary.labels == ("tubulin",) and summary.manifest.exit_status == 0
    rows = rows_of(tmp_path / "repo")
    assert {row["source"] for row in rows} == {source_id(number) for number in range(6)}
    assert pixels_of(tmp_path / "repo") == {crop_pixels(number, "uint16").tobytes() for number in range(6)}
    assert (rows[0]["y"], rows[0]["x"]) == (0, 224) and rows[0]["pixel_size_nm"] == pytest.approx([20.0, 20.0])


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "zip", "tar in zip", "tar.gz in zip", "two tars in zip"])
def test_all_archive_formats_give_the_same_rows(tmp_path: Path, kind: str) -> None:
    members = [scraped(number) for number in range(8)]
    path = tmp_path / f"a.{kind.partition(' ')[0]}"
    if kind.startswith("tar") and "zip" not in kind:
        write_tar(path, members, "w:" + kind.partition(".")[2])
    elif kind == "zip":
        write_zip(path, [("folder/", b""), *((f"folder/{name}", content) for name, content in members)])
    else:
        suffix, mode = (".tar.gz", "w:gz") if ".gz" in kind else (".tar", "w")
        halves = [members[:3], members[3:]] if "two" in kind else [members]
        inner = [write_tar(tmp_path / f"inner{n}{suffix}", half, mode) for n, half in enumerate(halves)]
        write_zip(path, [(each.name, each.read_bytes()) for each in inner])
    summary = import_archive(path, tmp_path / "repo")
    assert pixels_of(tmp_path / "repo") == {crop_pixels(number).tobytes() for number in range(8)}
    assert summary.manifest.exit_status == 0


def test_names_of_people_and_paths_are_removed_by_default(tmp_path: Path, card: None) -> None:
    people: dict[str, Any] = {"folder": "x", "e-mail": "x", "by": "zoe@lab.org", "image-id": "/server/zoe/cell.msr"}
    people["notes"] = ["fine", "see /home/zoe/notes.txt"]
    members = [scraped(0, **people), curated(9, "psd95")]
    path = write_tar(tmp_path / "crops.tar", [(f"/home/zoe/{name}", content) for name, content in members])
    import_archive(path, tmp_path / "repo")
    for row in rows_of(tmp_path / "repo"):
        assert "zoe" not in json.dumps(row["metadata"]) and "/" not in row["source"]
    assert [row["metadata"]["notes"] for row in rows_of(tmp_path / "repo") if "notes" in row["metadata"]] == [["fine"]]
    for text in ("README.md", "manifest.json"):
        assert "zoe" not in (tmp_path / "repo" / text).read_text(encoding="utf-8")
    import_archive(path, tmp_path / "all", keep_metadata=True)
    kept = json.dumps([row["metadata"] for row in rows_of(tmp_path / "all")])
    assert '"user-id": "zoe"' in kept and "zoe@lab.org" in kept


def test_copies_are_removed_and_other_files_are_skipped(tmp_path: Path) -> None:
    members = [curated(number, "psd95") for number in range(6)]
    again = [(name.replace("-448-", "-672-"), content) for name, content in members[:2]]
    junk = [(".DS_Store", b"x"), ("notes.txt", b"hello"), ("__MACOSX/._crop", b"x")]
    summary = import_archive(write_zip(tmp_path / "a.zip", members + again + junk), tmp_path / "repo")
    assert sum(summary.crops.values()) == 6
    assert summary.manifest.counts() == {"done": 1, "failed": 0, "skipped": 3}
    assert "2 of 8 images are exact copies" in (summary.manifest.items["a.zip#0-10"].reason or "")
    assert summary.manifest.items["a.zip#9 notes.txt"].reason == "is not a crop"


def test_crops_of_one_source_are_in_one_split(tmp_path: Path) -> None:
    members = [scraped(number, y=0, x=224 * (number % 4)) for number in range(80)]
    order = np.random.default_rng(0).permutation(80)
    import_archive(write_tar(tmp_path / "a.tar", [members[n] for n in order]), tmp_path / "repo", seed=3)
    splits: dict[str, set[str]] = {}
    for row in rows_of(tmp_path / "repo"):
        splits.setdefault(row["source"], set()).add(row["split"])
    assert len(splits) == 20 and all(len(each) == 1 for each in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}


def test_a_limit_reads_the_first_members(tmp_path: Path) -> None:
    members = [curated(number, "psd95") for number in range(9)]
    import_archive(write_tar(tmp_path / "a.tar", members), tmp_path / "repo", limit=4)
    assert pixels_of(tmp_path / "repo") == {crop_pixels(number).tobytes() for number in range(4)}


# ------------------------------------------------------------------------------------- what is refused


def object_array(sentinel: str) -> Any:
    array = np.empty(2, object)
    array[0] = Call(os.makedirs, sentinel)
    return array


ATTACKS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda s: {"image-id": "a", "run": Call(os.system, f'echo ran > "{s}"')},
    "eval": lambda s: {"image-id": "a", "deep": [{"deeper": Call(eval, f"__import__('os').makedirs({s!r})")}]},
    "as a key": lambda s: {("a", Call(os.makedirs, s)): 1},
    "instead of the dictionary": lambda s: Call(os.makedirs, s),
    "in an array of objects": lambda s: {"array": object_array(s)},
    "an array of objects itself": object_array,
    "a bound method": lambda s: {"run": Call(Path(s).mkdir)},
}


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_metadata_are_refused_and_other_members_are_read(name: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    metadata = np.empty((), object)
    metadata[()] = ATTACKS[name](str(sentinel))
    content = npz(crop_pixels(0), metadata)
    try:
        np.load(io.BytesIO(content), allow_pickle=True)["metadata"]
    except Exception:  # what matters is what happened on the way
        pass
    assert sentinel.exists(), "the attack is harmless even to NumPy: it tests nothing"
    sentinel.rmdir() if sentinel.is_dir() else sentinel.unlink()

    members = [curated(1, "psd95"), ("psd95-evil-0-0", content), curated(2, "psd95")]
    summary = import_archive(write_tar(tmp_path / "a.tar", members), tmp_path / "repo")
    assert not sentinel.exists()
    assert sum(summary.crops.values()) == 2 and summary.manifest.exit_status == 1
    assert list(summary.manifest.failures()) == ["a.tar#1 psd95-evil-0-0"]
    assert "refused" in summary.manifest.failures()["a.tar#1 psd95-evil-0-0"]


def replaced(content: bytes, name: str, data: bytes) -> bytes:
    """Return an `.npz` file in which one member is replaced."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, old in members.items():
            archive.writestr(each, data if each == name else old)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def nested(depth: int) -> Any:
    """Return values whose pickle of a few hundred bytes expands to 10 ** depth values."""
    value: Any = 1
    for _ in range(depth):
        value = [value] * 10
    return value


def many_members(count: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number}.npy", b"")
    return buffer.getvalue()


GOOD = npz(crop_pixels(0), {"image-id": "a"})
HEADER = npy(crop_pixels(0))[:128]
DAMAGED: dict[str, tuple[bytes, str]] = {
    "cut": (GOOD[:30_000], "not a complete .npz"),
    "changed pixels": (GOOD[:5_000] + bytes(8) + GOOD[5_008:], "damaged"),
    "no image": (npz(crop_pixels(0), {}).replace(b"image.npy", b"imago.npy"), "has no array `image`"),
    "no npz at all": (b"nothing", "neither an .npz nor a TIFF"),
    "empty": (b"", "neither an .npz nor a TIFF"),
    "fewer pixels than declared": (replaced(GOOD, "image.npy", npy(crop_pixels(0))[:-224]), "has 49952 bytes"),
    "giant array declared": (
        replaced(GOOD, "image.npy", HEADER.replace(b"(224, 224)", b"(2**9,224)").replace(b"2**9,224", b"99999,99")),
        "refused",
    ),
    "zeros that unpack to much": (replaced(GOOD, "image.npy", npy(np.zeros((8000, 8000), np.uint8))), "unpacks to"),
    "three colours": (npz(np.zeros((224, 224, 3), np.uint8), {}), "shape (224, 224, 3)"),
    "complex pixels": (npz(np.zeros((224, 224), np.complex64), {}), "complex64"),
    "image of objects": (npz(np.full((2, 2), None), {}), "object"),
    "metadata that expand": (npz(crop_pixels(0), {"a": nested(12)}), "expands"),
    "metadata that are not a dictionary": (npz(crop_pixels(0), np.arange(3)), "not a dictionary"),
    "giant metadata": (npz(crop_pixels(0), {"a": "x" * 300_000}), "unpacks to"),
    "a list of members that fills memory": (many_members(200), "more members"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_members_fail_and_other_members_are_read(name: str, tmp_path: Path) -> None:
    content, reason = DAMAGED[name]
    members = [curated(1, "psd95"), ("psd95-odd-0-0", content), curated(2, "psd95")]
    summary = import_archive(write_tar(tmp_path / "a.tar", members), tmp_path / "repo")
    failures = summary.manifest.failures()
    assert list(failures) == ["a.tar#1 psd95-odd-0-0"] and reason in failures["a.tar#1 psd95-odd-0-0"]
    assert pixels_of(tmp_path / "repo") == {crop_pixels(number).tobytes() for number in (1, 2)}


def test_unusual_plain_metadata_are_read(tmp_path: Path) -> None:
    loop: list[Any] = ["half a letter \udc80", float("nan"), 10**30, b"bytes", np.float32(0.5), np.str_("text"), None]
    odd = {"list": loop, 7: np.arange(3), "tuple": (True, {2}), "objects": np.array([1, "a"], object)}
    path = write_tar(tmp_path / "a.tar", [("a-0-0", npz(crop_pixels(0), odd | {"image-id": source_id(0)}))])
    summary = import_archive(path, tmp_path / "repo")
    assert summary.manifest.exit_status == 0
    (row,) = rows_of(tmp_path / "repo")
    assert row["metadata"] == {
        "list": ["half a letter ?", None, None, None, 0.5, "text", None],
        "7": [0, 1, 2],
        "tuple": [True, [2]],
        "objects": [1, "a"],
        "image-id": source_id(0),
    }


def test_member_names_cannot_control_the_terminal_or_leave_the_folder(tmp_path: Path) -> None:
    members = [("../../\x1b[31mevil-0-0", b"nothing"), curated(1, "psd95")]
    summary = import_archive(write_tar(tmp_path / "a.tar", members), tmp_path / "repo")
    assert list(summary.manifest.failures()) == ["a.tar#0 ?[31mevil-0-0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "repo"]


@pytest.mark.parametrize("cut", ["in a member", "between two members", "in a header", "a damaged header", "gzip"])
def test_members_before_the_end_of_a_truncated_archive_are_read(
    cut: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tar(tmp_path / "a.tar", [curated(number, "psd95") for number in range(6)])
    with tarfile.open(path) as archive:
        starts = [info.offset for info in archive.getmembers()]
    whole = path.read_bytes()
    if cut == "in a member":
        path.write_bytes(whole[: starts[4] + 9_000])
    elif cut == "between two members":
        path.write_bytes(whole[: starts[4]])
    elif cut == "in a header":
        path.write_bytes(whole[: starts[4] + 100])
    elif cut == "a damaged header":
        path.write_bytes(whole[: starts[4]] + b"x" * 512 + whole[starts[4] + 512 :])
    else:
        packed = gzip.compress(whole[: starts[4]], 1)
        path.write_bytes(packed[:-8])
    output = tmp_path / "repo"
    assert main(["data", "import-archive", str(path), "--output", str(output)]) == 1
    printed = capsys.readouterr()
    assert "truncated or damaged" in printed.err and "members; download it again" in printed.err
    assert "failed" in printed.out and str(tmp_path) not in printed.err
    assert pixels_of(output) == {crop_pixels(number).tobytes() for number in range(4)}


def test_invalid_inputs_are_reported_in_one_line(tmp_path: Path) -> None:
    def refused(match: str, source: str | Path, **options: Any) -> None:
        with pytest.raises(UserError, match=match) as caught:
            import_archive(source, tmp_path / "repo", **options)
        assert "\n" not in str(caught.value)

    refused("no such file", tmp_path / "missing.tar")
    refused("is a folder", tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("no archive")
    refused("not a tar or zip archive", text)
    text.write_bytes(b"")
    refused("not a tar or zip archive", text)
    assert not (tmp_path / "repo").exists()
    empty = write_tar(tmp_path / "empty.tar", [("notes.txt", b"hello")])
    refused("limit", empty, limit=0)
    refused("no crop is left", empty)
    other = tmp_path / "photos"
    (other / "data").mkdir(parents=True)
    with pytest.raises(UserError, match="other files"):
        import_archive(write_tar(tmp_path / "a.tar", [curated(1, "psd95")]), other, overwrite=True)


# ------------------------------------------------------------------------------------- killed, changed, made again


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_run_resumes_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [scraped(number) for number in range(40)] + [("bad-0-0", b"PK\x03\x04")]
    path = write_tar(tmp_path / "a.tar", members)
    script = (
        "import os, signal, sys\n"
        "from stedfm_hf.data.archives import import_archive as archives\n"
        "archives.PART_MEMBERS = 8\n"
        "write = archives.Staging.write_crops\n"
        "def write_and_die(self, name, *rest):\n"
        "    write(self, name, *rest)\n"
        "    if name == 'part-000002':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "archives.Staging.write_crops = write_and_die\n"
        "archives.import_archive(sys.argv[1], sys.argv[2], seed=5)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path), str(tmp_path / "killed")], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert Staging(tmp_path / "killed").names() == ["part-000000", "part-000001", "part-000002"]

    monkeypatch.setattr(archives, "PART_MEMBERS", 8)
    read: list[str] = []

    def counted(name: str, content: bytes, **options: Any) -> Crop:
        read.append(name)
        return read_crop(name, content, **options)

    monkeypatch.setattr(archives, "read_crop", counted)
    import_archive(path, tmp_path / "killed", seed=5)
    assert len(read) == 17, "members of complete parts were read again"
    import_archive(path, tmp_path / "whole", seed=5)
    killed, whole = rows_of(tmp_path / "killed"), rows_of(tmp_path / "whole")
    assert len(killed) == 40
    for one, other in zip(killed, whole, strict=True):
        assert one.pop("pixels").tobytes() == other.pop("pixels").tobytes() and one == other
    statuses = [Manifest.load(tmp_path / name / "manifest.json").items for name in ("killed", "whole")]
    assert statuses[0] == statuses[1]


def test_another_archive_or_setting_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [curated(number, "psd95") for number in range(4)])
    first = import_archive(path, tmp_path / "repo")
    with pytest.raises(UserError, match="label_key"):
        import_archive(path, tmp_path / "repo", label_key=None)
    with pytest.raises(UserError, match="seed"):
        import_archive(path, tmp_path / "repo", seed=1)
    before = (tmp_path / "repo" / "index.json").stat().st_mtime_ns
    again = import_archive(path, tmp_path / "repo")
    assert (again.crops, again.sources, again.labels) == (first.crops, first.sources, first.labels)
    assert (tmp_path / "repo" / "index.json").stat().st_mtime_ns == before, "made again for nothing"
    write_tar(path, [curated(number, "tubulin") for number in range(5)])
    with pytest.raises(UserError, match="archive"):
        import_archive(path, tmp_path / "repo")
    assert import_archive(path, tmp_path / "repo", overwrite=True).labels == ("tubulin",)


def test_a_full_disk_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar", [curated(number, "psd95") for number in range(12)])
    monkeypatch.setattr(archives, "PART_MEMBERS", 4)
    real = Staging.write_crops

    def full(self: Staging, name: str, *rest: Any) -> None:
        if name == "part-000001":
            raise OSError(28, "No space left on device")
        real(self, name, *rest)

    monkeypatch.setattr(Staging, "write_crops", full)
    with pytest.raises(UserError, match=r"No space left on device.*same command again to resume"):
        import_archive(path, tmp_path / "repo")
    monkeypatch.setattr(Staging, "write_crops", real)
    assert sum(import_archive(path, tmp_path / "repo").crops.values()) == 12


# ------------------------------------------------------------------------------------- web, command, memory


def test_a_url_is_downloaded_and_resumed(loopback: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = write_tar(tmp_path / "crops.tar", [curated(number, "psd95") for number in range(6)])
    content = write_zip(tmp_path / "crops.zip", [("crops.tar", inner.read_bytes())]).read_bytes()
    with serve(Site(content, drops=[100_000]), "STED-FM-subset-dataset-crops.zip") as site:
        words = ["data", "import-archive", site.url + "?token=secret", "--output", str(tmp_path / "repo"), "--json"]
        assert main(words) == 0
        assert len(site.requests) == 2
    assert sum(json.loads(capsys.readouterr().out)["crops"].values()) == 6
    written = (tmp_path / "repo" / "manifest.json").read_text(encoding="utf-8")
    assert "STED-FM-subset-dataset-crops.zip" in written and "secret" not in written


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tar(tmp_path / "a.tar", [curated(number, "psd95") for number in range(4)])
    command = ["data", "import-archive", str(path), "--output", str(tmp_path / "repo"), "--test", "0.25"]
    assert main(command) == 0
    assert "4 crops (" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert sum(result["crops"].values()) == 4 and result["labels"] == ["psd95"] and result["failures"] == {}
    assert main([*command, "--label-key", "none"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_the_headers_of_a_tar_are_not_kept_in_memory(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", ((f"{number}-0-0", b"x") for number in range(3000)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in iterate_members(path)) == 3000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
