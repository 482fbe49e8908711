"""A damaged model folder gives one error that names the file, in load_encoder, load_headed and the trainings."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stedfm_hf import StedFmForImageClassification, StedFmImageProcessor
from stedfm_hf.inference.loading import load_classifier, load_encoder
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.runs import UserError
from tests.models import pixels, tiny_config

VALUES: tuple[Any, ...] = (None, "x", -1, 0, 1.5, 10**9, True, [], [1], {}, {"a": 1}, "float33", [None], 1e400)
FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    StedFmForImageClassification(tiny_config(id2label={0: "rings", 1: "fibres"})).save_pretrained(folder)
    return folder


def damage(folder: Path, rng: random.Random) -> str:
    """Damage one file of a folder; return what was done."""
    name = rng.choice(FILES)
    path = folder / name
    if name.endswith(".json") and rng.random() < 0.9:
        fields = json.loads(path.read_text())
        field, value = rng.choice(sorted(fields)), rng.choice(VALUES)
        fields[field] = value
        path.write_text(json.dumps(fields))
        return f"{name}: {field} = {value!r}"
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    else:
        for _ in range(3):
            data[rng.randrange(min(len(data), 3000))] = rng.randrange(256)
    path.write_bytes(bytes(data))
    return f"{name}: other bytes"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", [0, 1, *(pytest.param(part, marks=pytest.mark.slow) for part in range(2, 6))])
def test_only_documented_errors_come_through(sound: Path, tmp_path: Path, part: int) -> None:
    image = np.zeros((40, 40), np.uint16)
    for number in range(50):
        folder = tmp_path / str(number)
        shutil.copytree(sound, folder)
        what = damage(folder, random.Random(1000 * part + number))
        for load in (load_encoder, load_classifier):
            try:
                loaded = load(folder, device="cpu")
                (vector,) = encode_images(loaded.model, [loaded.processor.prepare(image)])
                assert vector.shape == (32,), what
            except UserError as error:
                assert str(folder) in str(error), (what, str(error))
            except Exception as error:
                raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"[1]", "config.json: is not a JSON object"),
        ("config.json", b"{", "config.json"),
        ("preprocessor_config.json", b"null", "preprocessor_config.json: is not a JSON object"),
        ("model.safetensors", b"", "model.safetensors: incomplete or damaged"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "b.safetensors"}}', "b.safetensors: does not exist"),
    ],
)
def test_the_message_names_the_file(sound: Path, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "model"))
    if name.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    for load in (load_encoder, load_classifier):
        with pytest.raises(UserError, match=message):
            load(folder, device="cpu")


def test_incomplete_weights_are_refused(sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    del weights["stedfm.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for load in (load_encoder, load_classifier):
        with pytest.raises(UserError, match="weights are missing or have other shapes"):
            load(folder, device="cpu")


def test_a_sound_folder_is_not_refused(sound: Path) -> None:
    classifier = load_classifier(sound, device="cpu")
    assert classifier.model(pixels()).logits.shape == (2, 2)
    assert isinstance(classifier.processor, StedFmImageProcessor)
