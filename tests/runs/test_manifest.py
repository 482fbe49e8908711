from __future__ import annotations

import getpass
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.runs import (
    EXIT_DONE,
    EXIT_ITEMS_FAILED,
    ItemStatus,
    Manifest,
    UserError,
    check_same_settings,
    manifest_path,
)
from stedfm_hf.runs.manifest import portable

# A leading slash or tilde marks a path, which a manifest stores without its folders.
words = st.text(min_size=1, max_size=12).filter(lambda text: not text.startswith(("/", "\\", "~")) and ":" not in text)
settings = st.dictionaries(words, st.none() | st.booleans() | st.integers() | words, max_size=4)
statuses = st.one_of(
    st.just(ItemStatus("done")),
    st.builds(ItemStatus, st.just("done"), st.none(), st.integers(0), st.integers()),
    st.builds(ItemStatus, st.sampled_from(["failed", "skipped"]), st.sampled_from(["too small", "no stack"])),
)


@given(
    values=settings,
    options=settings,
    items=st.dictionaries(words, statuses, max_size=5),
    seed=st.none() | st.integers(),
)
def test_a_manifest_comes_back_as_it_was_saved(
    values: dict[str, Any], options: dict[str, Any], items: dict[str, ItemStatus], seed: int | None
) -> None:
    manifest = Manifest("embed", values, options, model="m", weights_sha256="00", seed=seed, items=items)
    manifest.finish()
    with TemporaryDirectory() as folder:
        manifest.save(Path(folder) / "manifest.json")
        assert Manifest.load(Path(folder) / "manifest.json") == manifest


@given(old=settings, new=settings)
def test_resuming_is_refused_exactly_when_a_setting_differs_and_names_it(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    before, now = Manifest("embed", old), Manifest("embed", new)
    different = [key for key in old | new if key not in old or key not in new or old[key] != new[key]]
    if not different:
        check_same_settings(before, now)
        return
    with pytest.raises(UserError) as caught:
        check_same_settings(before, now)
    for key in different:
        assert f"{key}: {repr(old[key]) if key in old else 'not set'} before" in str(caught.value)


def test_of_sums_the_names_are_told_that_differ() -> None:
    before = Manifest("finetune", {"data": {"train": "0" * 64, "test": "1" * 64}})
    now = Manifest("finetune", {"data": {"train": "2" * 64, "test": "1" * 64}})
    with pytest.raises(UserError, match=r"other settings \(data: train changed\)"):
        check_same_settings(before, now)


@pytest.mark.parametrize("field", ["command", "model", "weights_sha256", "seed"])
def test_another_model_verb_or_seed_is_another_run(field: str) -> None:
    common: dict[str, Any] = {"command": "embed", "model": "a", "weights_sha256": "00", "seed": 1}
    with pytest.raises(UserError, match=field):
        check_same_settings(Manifest(**common), Manifest(**{**common, field: "other"}))


def test_the_message_names_overwrite_only_if_the_command_has_it() -> None:
    before, now = Manifest("embed", {"tile": 1}), Manifest("embed", {"tile": 2})
    with pytest.raises(UserError, match=r"use the old settings, another output, or --overwrite$"):
        check_same_settings(before, now, has_overwrite=True)
    with pytest.raises(UserError, match=r"use the old settings or another output$"):
        check_same_settings(before, now)


def test_options_and_versions_may_change_between_resumed_runs() -> None:
    check_same_settings(
        Manifest("embed", options={"batch_size": 8}, versions={"torch": "1"}),
        Manifest("embed", options={"batch_size": 16}, versions={"torch": "2"}),
    )


def test_settings_that_went_through_json_are_still_the_same(tmp_path: Path) -> None:
    given_settings = {"tile": (224, 224), "where": Path("images"), "names": {"b", "a"}}
    Manifest("embed", given_settings).save(tmp_path / "manifest.json")
    check_same_settings(Manifest.load(tmp_path / "manifest.json"), Manifest("embed", given_settings))


def test_resuming_keeps_what_is_done_and_tries_the_rest_again() -> None:
    old = Manifest("embed", started="2026-01-01T00:00:00+00:00", seconds=10.0)
    old.done("a.tif")
    old.failed("b.tif", "truncated")
    old.skipped("c.tif", "no image")
    new = Manifest("embed")
    new.resume_from(old)
    assert new.items == {"a.tif": ItemStatus("done")}
    new.done("b.tif")
    new.finish()
    assert new.started == old.started and new.seconds >= 10.0
    assert new.rate == pytest.approx(2 / new.seconds)


def test_exit_status_and_failures() -> None:
    manifest = Manifest("embed")
    manifest.done("a.tif")
    manifest.skipped("b.txt", "not an image")
    assert manifest.exit_status == EXIT_DONE and manifest.failures() == {}
    manifest.failed("c.msr", ValueError("holds no image;\n  export a stack"))
    assert manifest.exit_status == EXIT_ITEMS_FAILED
    assert manifest.failures() == {"c.msr": "holds no image; export a stack"}


def test_a_manifest_names_no_user_and_no_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "ada lovelace"
    work = home / "project x"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setattr(Path, "home", lambda: home)
    manifest = Manifest(
        "embed",
        settings={"inputs": [work / "images", home / "more"], "cache": "~/cache"},
        options={"log": str(tmp_path / "elsewhere" / "log.txt"), "share": r"C:\Users\ada\images"},
        model=str(home / "models" / "stedfm"),
    )
    manifest.failed("images/a.tif", f"{work / 'images' / 'a.tif'}: truncated; see '{tmp_path}/elsewhere/log.txt'")
    manifest.failed("images/b.tif", f"{home / 'b.tif'} -> https://example.org/help/b.html or docs/help.md")
    manifest.save("manifest.json")
    text = Path("manifest.json").read_text(encoding="utf-8")
    assert "ada" not in text and str(tmp_path) not in text
    saved = json.loads(text)
    assert saved["settings"] == {"inputs": ["images", "more"], "cache": "cache"}
    assert saved["options"] == {"log": "log.txt", "share": "images"} and saved["model"] == "stedfm"
    assert manifest.failures() == {
        "images/a.tif": "images/a.tif: truncated; see 'log.txt'",
        "images/b.tif": "b.tif -> https://example.org/help/b.html or docs/help.md",
    }
    assert getpass.getuser() == "root" or getpass.getuser() not in text


def test_an_absolute_item_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="relative to the input"):
        Manifest("embed").done(str(tmp_path / "a.tif"))


def test_a_url_loses_its_secrets_only() -> None:
    assert portable("https://u:p@example.org:8000/a/b.zip?X-Signature=1#top") == "https://example.org:8000/a/b.zip"
    assert portable("hf://datasets/flclab/x") == "hf://datasets/flclab/x"


@pytest.mark.parametrize(
    "content", ["[]", '{"format": 99}', '{"format": 1}', '{"format": 1, "command": "embed", "items": {"a": 1}}', "{"]
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"manifest\.json"):
        Manifest.load(tmp_path / "manifest.json")


def test_versions_are_recorded() -> None:
    assert {"python", "system", "stedfm-hf", "torch", "transformers", "numpy"} <= set(Manifest("embed").versions)


def test_where_the_manifest_belongs(tmp_path: Path) -> None:
    (tmp_path / "run.v2").mkdir()
    assert manifest_path(tmp_path / "run.v2") == tmp_path / "run.v2" / "manifest.json"
    assert manifest_path(tmp_path / "new") == tmp_path / "new" / "manifest.json"
    assert manifest_path(tmp_path / "a.csv") == tmp_path / "a.csv.manifest.json"
    assert manifest_path(tmp_path / "vit.2", folder=True) == tmp_path / "vit.2" / "manifest.json"
