from __future__ import annotations

import collections
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stedfm_hf.runs.closed_pickle import Placeholder
from stedfm_hf.runs.errors import UserError
from stedfm_hf.weights.checkpoints import read_checkpoint


def adam_after_one_step(model: torch.nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_classifier_file_with_its_criterion(tmp_path: Path, protocol: int) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = adam_after_one_step(model)
    path = tmp_path / "classifier.pth"
    torch.save(
        {
            "epoch": 12,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer,
            "loss": torch.nn.CrossEntropyLoss(weight=torch.ones(4)),
        },
        path,
        pickle_protocol=protocol,
    )
    content = read_checkpoint(path)
    assert content["epoch"] == 12
    assert isinstance(content["loss"], Placeholder)
    assert content.placeholders == ("torch.nn.modules.loss.CrossEntropyLoss",)
    for key, value in model.state_dict().items():
        assert (
            torch.equal(content["model_state_dict"][key], value)
            and content["model_state_dict"][key].dtype == value.dtype
        )
    moments = content["optimizer_state_dict"]["state"][0]
    assert torch.equal(moments["exp_avg"], optimizer["state"][0]["exp_avg"])
    assert content["optimizer_state_dict"]["param_groups"][0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_segmentation_file_with_its_statistics(tmp_path: Path, protocol: int) -> None:
    stats: collections.defaultdict[str, list[Any]] = collections.defaultdict(list)
    stats["loss"] += [np.float64(0.25), np.float32(0.125)]
    stats["epoch"] += [np.int64(3)]
    stats["curve"] += [np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.eye(3)[:, :2])]
    path = tmp_path / "result.pt"
    torch.save(
        {"model": torch.nn.Linear(3, 4).state_dict(), "optimizer": {}, "stats": stats}, path, pickle_protocol=protocol
    )
    content = read_checkpoint(path)
    assert type(content["stats"]) is dict and list(content["stats"]) == ["loss", "epoch", "curve"]
    assert content["stats"]["loss"] == [0.25, 0.125] and content["stats"]["epoch"] == [3]
    for found, written in zip(content["stats"]["curve"], stats["curve"], strict=True):
        np.testing.assert_array_equal(found, written)
        assert found.dtype == written.dtype
    assert content.placeholders == ()


def test_every_number_type_views_and_parameters(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    tensors = {
        str(dtype): torch.ones(3, dtype=dtype)
        for dtype in (
            torch.float64,
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.int8,
            torch.bool,
            torch.complex64,
        )
    }
    tensors |= {
        "matrix": base.view(4, 6),
        "transposed": base.view(4, 6).T,
        "part": base[5:9],
        "empty": torch.empty(0, 3),
    }
    tensors["parameter"] = torch.nn.Parameter(torch.rand(2, 2))
    path = tmp_path / "tensors.pth"
    torch.save({**tensors, "other": object}, path)  # `object` turns weights_only away
    content = read_checkpoint(path)
    for name, tensor in tensors.items():
        assert torch.equal(content[name], tensor.detach()) and content[name].dtype == tensor.dtype
    assert content.placeholders == ("builtins.object",)


def test_lightning_files_are_mapped_not_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "pl_checkpoint-999.pth"
    torch.save({"epoch": 999, "state_dict": {"weight": torch.ones(3)}, "loops": {}, "callbacks": {}}, path)
    content = read_checkpoint(path)
    assert content.placeholders == () and torch.equal(content["state_dict"]["weight"], torch.ones(3))


def test_files_of_old_torch_are_read_as_far_as_they_are_safe(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"weight": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(path)["weight"], torch.ones(3))
    torch.save({"weight": torch.ones(3), "other": object}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"before 1\.6"):
        read_checkpoint(path)


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def repack(path: Path, change: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> None:
    """Replaces, adds or (None) leaves out members of a checkpoint, named without their folder."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(members)).split("/")[0]
    members |= {f"{folder}/{name}": data for name, data in change.items() if data is not None}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            if name.partition("/")[2] not in change or change[name.partition("/")[2]] is not None:
                archive.writestr(name, data)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_wrong_files_are_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"

    def refused(match: str) -> None:
        with pytest.raises(UserError, match=match) as caught:
            read_checkpoint(path)
        assert "weights.pth" in str(caught.value) and "\n" not in str(caught.value)

    refused("cannot be read")
    path.write_bytes(b"")
    refused("empty")
    path.write_bytes(b"no checkpoint at all")
    refused("not a PyTorch checkpoint")
    whole = saved(path, {"weight": torch.ones(1000)}).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("checkpoint")
    path.write_bytes(whole.replace(torch.ones(8).numpy().tobytes(), bytes(32), 1))
    refused("damaged")
    saved(path, torch.ones(3))
    refused("a Tensor, not a dictionary")
    saved(path, torch.nn.Linear(2, 2))
    refused(r"whole object of torch\.nn\.modules\.linear\.Linear")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    refused("TorchScript")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "nothing")
    refused(r"no data\.pkl")


def test_a_checkpoint_that_grows_when_read_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "bomb.pth", {"weight": torch.zeros(100_000), "other": object})
    repack(path, {}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match="because it is compressed, or its content is larger than the file"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    "shape, stride, offset",
    [((1000,), (1,), 0), ((2,), (1,), 10**9), ((4,), (-1,), 0), ((2**62, 8), (1, 1), 0), ((2**70,), (1,), 0)],
)
def test_tensors_cannot_look_outside_their_numbers(
    tmp_path: Path, shape: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    class Forged:
        def __reduce__(self) -> tuple[Any, ...]:
            storage = torch.ones(4).storage()
            return torch._utils._rebuild_tensor_v2, (storage, offset, shape, stride, False, collections.OrderedDict())

    path = saved(tmp_path / "forged.pth", {"weight": Forged(), "other": object})
    with pytest.raises(UserError, match=r"forged\.pth"):
        read_checkpoint(path)


def test_a_file_of_four_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    path.write_bytes(b"junk")  # torch raises struct.error
    with pytest.raises(UserError, match=r"tiny\.pth: is not a PyTorch checkpoint"):
        read_checkpoint(path)


def test_a_storage_shorter_than_said_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "short.pth", {"weight": torch.ones(100), "other": object})
    repack(path, {"data/0": bytes(8)})
    with pytest.raises(UserError, match=r"short\.pth"):
        read_checkpoint(path)
    repack(path, {"data/0": None})
    with pytest.raises(UserError, match=r"short\.pth"):
        read_checkpoint(path)


def test_the_other_byte_order_is_refused_not_misread(tmp_path: Path) -> None:
    path = saved(tmp_path / "order.pth", {"weight": torch.ones(4), "other": object})
    repack(path, {"byteorder": b"big" if sys.byteorder == "little" else b"little"})
    with pytest.raises(UserError, match="endian"):
        read_checkpoint(path)


@pytest.mark.skipif(os.name == "nt" or getattr(os, "geteuid", lambda: 0)() == 0, reason="needs file permissions")
def test_a_forbidden_file_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "secret.pth", {"weight": torch.ones(4)})
    path.chmod(0)
    with pytest.raises(UserError, match=r"secret\.pth: cannot be read"):
        read_checkpoint(path)
