from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stedfm_hf.runs import ItemStatus, Manifest, UserError, atomic_path, file_stamp, read_json, sha256_file, write_json
from stedfm_hf.runs import copies as copies_module
from stedfm_hf.runs.copies import local_copy, working_copy
from stedfm_hf.runs.files import remove_path
from stedfm_hf.runs.output import check_output, open_output
from stedfm_hf.runs.parts import PartStore
from stedfm_hf.runs.settings import argument, option, settings
from stedfm_hf.runs.storage import as_list, as_path, is_remote
from tests.object_store import ACCESS_KEY, SECRET_KEY, Bucket


class Crash(Exception):
    pass


@settings
class CopySettings:
    """Copy a file."""

    inputs: str | list[str] = argument(storage=True, help="Files.")
    output: str | Path = option("out", storage=True, affects_result=False, help="Folder to write.")
    masks: str | Path | None = option(None, help="Folder of masks.")


def test_a_local_text_becomes_a_path_and_a_url_a_remote_path(tmp_path: Path) -> None:
    assert as_path("images/a.tif") == Path("images/a.tif") and type(as_path("a")) is type(Path())
    assert as_path(f"file://{tmp_path.as_posix()}") == tmp_path
    remote = as_path("memory://images/a.tif")
    assert is_remote(remote) and as_path(remote) is remote
    assert (remote.name, remote.suffix, str(remote.parent / "b.tif")) == ("a.tif", ".tif", "memory://images/b.tif")
    assert as_list(remote) == [remote] and as_list("a") == ["a"] and as_list(["a", "b"]) == ["a", "b"]


def test_paths_travel_to_workers_without_credentials(bucket: Bucket) -> None:
    path = as_path(f"{bucket.url}/a.tif")
    content = pickle.dumps(path)
    assert pickle.loads(content) == path
    assert ACCESS_KEY.encode() not in content and SECRET_KEY.encode() not in content


def test_a_crash_leaves_the_old_object(memory: str) -> None:
    target = as_path(f"{memory}/table.parquet")
    with pytest.raises(Crash), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise Crash
    assert not target.exists()
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".parquet"
        temporary.write_bytes(b"old")
    with pytest.raises(Crash), atomic_path(str(target)) as temporary:
        temporary.write_bytes(b"half")
        raise Crash
    stamp = file_stamp(target)
    assert target.read_bytes() == b"old" and stamp is not None and stamp.size == 3
    write_json(f"{memory}/value.json", {"a": 1})
    assert read_json(f"{memory}/value.json") == {"a": 1} and len(sha256_file(str(target))) == 64
    remove_path(target)
    remove_path(target)
    assert not target.exists() and file_stamp(target) is None


def test_an_output_in_a_store_is_new_then_resumed_then_finished(memory: str) -> None:
    folder = as_path(f"{memory}/out")
    with pytest.raises(Crash), open_output(folder, "count", results=["words.txt"], temporary=["parts"]) as output:
        assert output.state == "new" and str(output.record) == f"{memory}/out/manifest.json"
        output.manifest.done("a.txt")
        (folder / "parts").write_text("")
        raise Crash
    states = []
    for _ in range(2):
        with open_output(folder, "count", results=["words.txt"], temporary=["parts"]) as output:
            states.append(output.state)
            (folder / "words.txt").write_text("3")
    assert states == ["resumed", "finished"]
    with open_output(folder, "count", results=["words.txt"], overwrite=True) as output:
        assert output.state == "new" and not (folder / "words.txt").exists()
    with pytest.raises(UserError, match="was made by `stedfm count`"):
        check_output(folder, "other", is_folder=True)
    (folder.parent / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"memory://store: holds other files, such as notes.txt"):
        check_output(folder.parent, "count", is_folder=True)


def test_parts_are_written_and_read_in_a_store(memory: str) -> None:
    store = PartStore(as_path(f"{memory}/parts"))
    assert store.names() == [] and store.next_name() == "part-000000"
    store.write("part-000000", pa.table({"area": [1.5]}), {"a.tif": ItemStatus("done")}, {"note": 1})
    store.write("deeper/part", pa.table({"area": [2.5, 3.5]}), {"b.tif": ItemStatus("failed", "empty")})
    store = pickle.loads(pickle.dumps(store))
    assert store.names() == ["deeper/part", "part-000000"] and store.next_name() == "part-000001"
    assert [part.table().num_rows for part in store] == [2, 1]
    assert [each.num_rows for each in store.read("deeper/part").row_groups()] == [2]
    assert store.items()["b.tif"].reason == "empty"
    store.remove(["deeper/part"])
    store.remove()
    assert store.names() == [] and not store.folder.exists()


def test_a_copy_is_kept_until_the_object_changes_or_space_is_needed(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_path(f"{memory}/a.txt")
    path.write_text("first")
    with local_copy(path) as first, local_copy(path) as again:
        assert first == again and first.name == "a.txt" and first.read_text() == "first"
    assert first.exists()
    path.write_text("second, longer")
    monkeypatch.setattr(copies_module, "_KEPT_BYTES", 0)
    with local_copy(path) as second:
        assert second.read_text() == "second, longer"
    assert not first.exists() and not second.exists()
    with pytest.raises(UserError, match=r"memory://store/none.txt: no such file or folder; check the path"):
        with local_copy(path.with_name("none.txt")):
            pass


def test_a_working_copy_uploads_what_changed_and_names_the_store_in_messages(memory: str) -> None:
    folder = as_path(f"{memory}/index")
    for name in ("kept.npy", "gone/old.npy", "state.json"):
        (folder / name).write_text(name)
    before = file_stamp(folder / "kept.npy")
    with working_copy(folder, last=["state.json"]) as local:
        assert local.name == "index" and (local / "gone" / "old.npy").read_text() == "gone/old.npy"
        (local / "gone" / "old.npy").unlink()
        (local / "new.npy").write_text("new")
        (local / "state.json").write_text("next")
        (local / ".lock").write_text("")
    assert sorted(each.name for each in folder.rglob("*")) == ["kept.npy", "new.npy", "state.json"]
    assert (folder / "state.json").read_text() == "next" and file_stamp(folder / "kept.npy") == before
    with pytest.raises(UserError, match=r"memory://store/index/a.npy: is damaged"), working_copy(folder) as local:
        raise UserError(f"{local / 'a.npy'}: is damaged")
    with working_copy(folder, writes=False) as local:
        (local / "unwanted.npy").write_text("")
    assert not (folder / "unwanted.npy").exists()
    with working_copy(Path("index")) as local:
        assert local == Path("index")


def test_settings_convert_urls_and_refuse_them_where_a_local_path_is_needed(memory: str) -> None:
    made = CopySettings(inputs=[f"{memory}/a.tif", "b.tif"], output=f"{memory}/out")
    assert is_remote(made.output) and is_remote(made.inputs[0]) and made.inputs[1] == "b.tif"
    assert CopySettings("hf://datasets/lab/crops", masks="https://example.org/masks").masks is not None
    with pytest.raises(UserError, match="masks s3://bucket/masks: must be on this machine"):
        CopySettings("a.tif", masks="s3://bucket/masks")
    with pytest.raises(UserError, match="the protocol nosuch:// is unknown"):
        CopySettings("nosuch://bucket/a.tif")
    manifest = Manifest("copy", options={"inputs": made.inputs, "output": made.output})
    assert manifest.options == {"inputs": [f"{memory}/a.tif", "b.tif"], "output": f"{memory}/out"}


def test_secrets_of_urls_are_in_no_message_and_no_manifest() -> None:
    url = "https://ada:password@example.org/a.tif?X-Amz-Signature=abc123&token=xyz"
    manifest = Manifest("embed", settings={"input": url}, options={"inputs": [as_path(url)]}, model=url)
    manifest.failed("a.tif", f"{url}: cannot be read")
    for text in (str(UserError(f"{url}: no such file")), repr(manifest)):
        assert not any(secret in text for secret in ("password", "ada", "abc123", "xyz")), text


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(UserError, match=r'needs s3fs and universal-pathlib.*pip install "stedfm-hf\[storage\]"'):
        as_path("s3://bucket/a.tif")


def test_a_missing_bucket_object_or_right_gets_one_sentence(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"s3://no-such-bucket/out: the bucket does not exist; check its name"):
        check_output(as_path("s3://no-such-bucket/out"), "count", is_folder=True)
    with pytest.raises(UserError, match="no such file or folder"), local_copy(as_path(f"{bucket.url}/none")):
        pass
    with pytest.raises(UserError, match="a web server cannot be written"):
        check_output(as_path("https://127.0.0.1/out"), "count", is_folder=True)
    bucket.server.check_credentials(True)
    with pytest.raises(
        UserError, match="access was refused.*set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    ) as found:
        check_output(as_path(f"{bucket.url}/out"), "count", is_folder=True)
    assert ACCESS_KEY not in str(found.value) and SECRET_KEY not in str(found.value)


def test_absent_credentials_and_network_get_one_sentence(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=r"out: the connection failed \(EndpointConnectionError\); check the network"):
        check_output(as_path(f"{bucket.url}/out"), "count", is_folder=True)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="no credentials were found"):
        check_output(as_path(f"{bucket.url}/out"), "count", is_folder=True)


@pytest.mark.parametrize("kind", ["cut_downloads", "cut_uploads"])
def test_a_connection_that_is_cut_in_the_middle_is_tried_again(bucket: Bucket, kind: str) -> None:
    content = np.random.default_rng(0).bytes(2**19)
    path = as_path(f"{bucket.url}/a.bin")
    setattr(bucket.server, kind, 2)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    with local_copy(path) as file:
        assert file.read_bytes() == content
    assert getattr(bucket.server, kind) == 0


def test_a_connection_that_is_always_cut_is_an_error_and_leaves_no_half_object(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    path = as_path(f"{bucket.url}/a.bin")
    bucket.server.cut_uploads = 10**6
    with pytest.raises(UserError, match="the connection failed"), atomic_path(path) as temporary:
        temporary.write_bytes(bytes(2**17))
    bucket.server.cut_uploads = 0
    assert not path.exists()
