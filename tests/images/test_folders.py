"""Which files the inputs name."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import pytest

from stedfm_hf.images import find_images
from stedfm_hf.images.folders import FoundImage
from stedfm_hf.images.mask_names import find_masks
from stedfm_hf.runs.errors import UserError


def paths(*inputs: str | Path) -> list[str]:
    return [image.path for image in find_images(inputs).images]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("b.tif", "a.TIFF", "sub/deep/c.msr", "sub/a.npy", "notes.txt", "sub/README", ".hidden.tif"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / ".cache").mkdir()
    (root / ".cache" / "d.tif").write_bytes(b"x")
    return root


def test_a_folder_is_walked_and_others_are_counted(folder: Path) -> None:
    found = find_images(folder)
    assert [image.path for image in found.images] == ["a.TIFF", "b.tif", "sub/a.npy", "sub/deep/c.msr"]
    assert all((folder / image.path).samefile(image.file) for image in found.images)
    assert found.skipped == {"": 1, ".txt": 1}


def test_the_work_is_proportional_to_the_number_of_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        (folder / f"{number}.tif").write_bytes(b"x")
    calls, hash_of = 0, FoundImage.__hash__

    def counted_hash(image: FoundImage) -> int:
        nonlocal calls
        calls += 1
        return hash_of(image)

    monkeypatch.setattr(FoundImage, "__hash__", counted_hash)
    find_images(folder, leave_out=find_masks)
    assert calls < 20 * 300


@pytest.mark.parametrize(
    ("record", "taken"),
    [
        ('{"command": "segment"}', False),
        ('{"command": "finetune segmentation"}', False),
        ('{"command": "data simulate"}', True),
        ('["of another program"]', True),
        ("no JSON", True),
    ],
)
def test_pictures_that_a_run_wrote_are_no_images_unless_they_are_named(folder: Path, record: str, taken: bool) -> None:
    (folder / "sub" / "manifest.json").write_text(record)
    assert ("sub/a.npy" in paths(folder)) == taken
    assert paths(folder / "sub") == ["a.npy", "deep/c.msr"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.tif", ["b.tif"]),
        ("*", ["a.TIFF", "b.tif"]),
        ("**/*.npy", ["sub/a.npy"]),
        ("**", ["a.TIFF", "b.tif", "sub/a.npy", "sub/deep/c.msr"]),
        ("**/*.[mn]*", ["sub/a.npy", "sub/deep/c.msr"]),
        ("*/*/?.msr", ["sub/deep/c.msr"]),
        ("sub/**/c.*", ["deep/c.msr"]),
        ("s*/**/a.npy", ["sub/a.npy"]),
        ("**/deep/*", ["sub/deep/c.msr"]),
    ],
)
def test_globs(folder: Path, pattern: str, expected: list[str]) -> None:
    assert paths(folder / pattern) == expected


def test_an_existing_path_with_the_signs_of_a_glob_has_priority(tmp_path: Path) -> None:
    name = "slide [x=0,y=0,w=80,h=96].tif"
    for folder in ("exp [1]", "exp 1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"x")
    for pattern in ("exp [1]", "exp [1]/*.tif", f"exp [1]/{name}", "exp [1]/**/*.tif"):
        assert [each.file for each in find_images(tmp_path / pattern).images] == [tmp_path / "exp [1]" / name]
    assert paths(tmp_path / "*" / name) == [f"exp 1/{name}", f"exp [1]/{name}"]
    (tmp_path / "exp [1]").rename(tmp_path / "exp 2")
    assert [each.file for each in find_images(tmp_path / "exp [12]" / "*.tif").images] == [
        tmp_path / "exp 1" / name,
        tmp_path / "exp 2" / name,
    ]


def test_unicode_forms_of_a_name_are_equal(tmp_path: Path) -> None:
    stored = unicodedata.normalize("NFD", "Zürich")
    (tmp_path / stored).mkdir()
    (tmp_path / stored / f"{stored}.tif").write_bytes(b"x")
    for name in ("Zürich", "Zürich/*.tif", "Zürich/Zür*", "Zürich/Zürich.tif", "Zü*/*"):
        assert [
            each.file.samefile(tmp_path / stored / f"{stored}.tif") for each in find_images(tmp_path / name).images
        ]


def test_results_in_the_input_are_left_out(folder: Path) -> None:
    for name in (
        "maps/b.tif.map1.tif",
        "maps/b.tif.map1.png",
        "b.tif.labels1.tif",
        "c.labels1.tif",
        "set/figures/x.png",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "set" / "data").mkdir()
    (folder / "set" / "index.json").write_text("{}")
    found = find_images(folder)
    assert [each.path for each in found.images] == ["a.TIFF", "b.tif", "c.labels1.tif", "sub/a.npy", "sub/deep/c.msr"]
    assert found.describe_results() == f"skipped 1 folder and 3 files with results of stedfm, such as {folder / 'set'}"
    assert paths(folder / "maps") == ["b.tif.map1.png", "b.tif.map1.tif"], "results that are the input are read"
    assert paths(folder / "b.tif.labels1.tif") == ["b.tif.labels1.tif"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems store names as Unicode")
def test_names_that_are_not_text_are_escaped(tmp_path: Path) -> None:
    for name in (b"caf\xe9.tif", b"a\nb\t.tif", "日本 1.tif".encode(), b"-x.tif"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    assert paths(tmp_path) == ["-x.tif", r"a\x0ab\x09.tif", r"caf\xe9.tif", "日本 1.tif"]
    assert paths(tmp_path / os.fsdecode(b"caf\xe9.tif")) == [r"caf\xe9.tif"]


def test_globs_count_what_is_no_image(folder: Path) -> None:
    assert find_images(folder / "*").skipped == {".txt": 1}


def test_a_glob_relative_to_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert paths("*.tif") == ["b.tif"]
    assert paths(".") == ["a.TIFF", "b.tif", "sub/a.npy", "sub/deep/c.msr"]


def test_a_file_named_directly_is_taken_whatever_its_suffix(folder: Path) -> None:
    assert paths(folder / "notes.txt", folder / ".hidden.tif") == ["notes.txt", ".hidden.tif"]
    odd = folder / "image[1].tif"
    odd.write_bytes(b"x")
    assert paths(odd) == ["image[1].tif"]


def test_a_file_reached_twice_is_taken_once_under_the_first_input(folder: Path) -> None:
    assert paths(folder / "sub" / "a.npy", folder / "sub", folder) == ["a.npy", "deep/c.msr", "a.TIFF", "b.tif"]
    assert paths(folder / "b.tif", folder / "sub" / ".." / "b.tif") == ["b.tif"]


def test_links_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "e.png").write_bytes(b"x")
    try:
        (folder / "link").symlink_to(other, target_is_directory=True)
        (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)
        (folder / "z.tif").symlink_to(folder / "nowhere.tif")
    except OSError:
        pytest.skip("this system makes no links")
    assert paths(folder) == ["a.TIFF", "b.tif", "link/e.png", "sub/a.npy", "sub/deep/c.msr", "z.tif"]
    assert paths(folder / "**" / "*.png") == ["link/e.png"]


def test_equal_paths_of_different_files_are_made_unique(tmp_path: Path) -> None:
    for name in ("x/1/a.tif", "x/2/a.tif", "x/2/b.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert paths(tmp_path / "x/1", tmp_path / "x/2") == ["1/a.tif", "2/a.tif", "b.tif"]
    assert paths(tmp_path / "x/1/a.tif", tmp_path / "x/2/a.tif") == ["1/a.tif", "2/a.tif"]
    every = paths(tmp_path / "x/1/a.tif", tmp_path / "x/2/a.tif", tmp_path)
    assert len(set(every)) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "no such file or folder"),
        ("nowhere/*.tif", "there is no folder"),
        ("*.png", "*.png: no file matches the pattern"),
        ("texts", "no image files, only 2 .txt"),
    ],
)
def test_nothing_found_names_the_input(folder: Path, name: str, words: str) -> None:
    (folder / "texts").mkdir()
    for k in range(2):
        (folder / "texts" / f"{k}.txt").write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        find_images([folder / "b.tif", folder / name])
    assert str(caught.value).startswith(str(folder / name.split("/")[0]))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_no_input() -> None:
    with pytest.raises(UserError, match="no input"):
        find_images([])


def test_a_folder_that_cannot_be_listed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match="deep: the folder cannot be listed"):
        find_images(folder)
