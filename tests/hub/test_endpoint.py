"""Handler of an Inference Endpoint and its server: results, messages, limits and memory."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import torch
from packaging.requirements import Requirement
from PIL import Image
from transformers import pipeline

from stedfm_hf import (
    StedFmForImageClassification,
    StedFmForPreTraining,
    StedFmForSemanticSegmentation,
    StedFmImageProcessor,
)
from stedfm_hf.hub.endpoint import ENDPOINT_FILES
from stedfm_hf.hub.endpoint import handler as module
from stedfm_hf.hub.endpoint.handler import EndpointHandler, RequestError
from stedfm_hf.hub.endpoint.server import MAX_BODY_BYTES, make_server
from stedfm_hf.modeling.pipeline_stedfm import StedFmFeatureExtractionPipeline
from tests.models import tiny_config

CLASSES = {
    "encoder": StedFmForPreTraining,
    "classifier": StedFmForImageClassification,
    "segmenter": StedFmForSemanticSegmentation,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny models, by kind."""
    top = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, kind in CLASSES.items():
        kind(tiny_config(num_labels=3)).save_pretrained(top / name)
    return {name: top / name for name in CLASSES}


@pytest.fixture(scope="module")
def handlers(folders: dict[str, Path]) -> dict[str, EndpointHandler]:
    return {name: EndpointHandler(str(folder)) for name, folder in folders.items()}


def counts(height: int = 40, width: int = 50, seed: int = 0) -> np.ndarray:
    """Photon counts of 16 bit."""
    return np.random.default_rng(seed).poisson(300, (height, width)).astype(np.uint16)


def tiff(array: np.ndarray, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **settings)
    return buffer.getvalue()


def request(content: bytes, name: str = "cell.tif", **parameters: Any) -> dict[str, Any]:
    return {"inputs": {"file": base64.b64encode(content).decode(), "name": name}, "parameters": parameters}


def test_an_embedding_is_that_of_the_pipeline_with_all_16_bits(
    handlers: dict[str, EndpointHandler], folders: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "cell.tif"
    path.write_bytes(tiff(counts()))
    extract = pipeline(
        "image-feature-extraction", str(folders["encoder"]), pipeline_class=StedFmFeatureExtractionPipeline
    )
    found = handlers["encoder"](request(path.read_bytes()))
    assert found == extract(str(path)).tolist() and len(found) == 32
    eight_bit = tiff((counts() >> 4).astype(np.uint8))
    assert handlers["encoder"](request(eight_bit)) != found
    patches = handlers["encoder"](request(path.read_bytes(), pooling="patch"))
    assert np.array_equal(patches, extract(str(path), pooling="patch")) and np.shape(patches) == (5, 7, 32)


def test_classes_and_masks(handlers: dict[str, EndpointHandler]) -> None:
    classes = handlers["classifier"](request(tiff(counts()), top_k=2))
    assert len(classes) == 2 and set(classes[0]) == {"label", "score"} and classes[0]["score"] >= classes[1]["score"]
    masks = handlers["segmenter"](request(tiff(counts())))
    assert [each["label"] for each in masks] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    planes = [np.array(Image.open(io.BytesIO(base64.b64decode(each["mask"])))) for each in masks]
    assert np.array_equal(sum(plane.astype(int) for plane in planes), np.full((40, 50), 255))


def test_series_and_channels_are_chosen_by_parameters(handlers: dict[str, EndpointHandler]) -> None:
    stack = tiff(np.stack([counts(seed=1), counts(seed=2)]), imagej=True, metadata={"axes": "CYX"})
    second = handlers["encoder"](request(stack, channel=1))
    assert second == handlers["encoder"](request(tiff(counts(seed=2))))
    with pytest.raises(RequestError, match="cell.tif: .*channel"):
        handlers["encoder"](request(stack, channel="five"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "has no file"),
        ([], "has no file"),
        ({"inputs": "abc"}, "has no file"),
        ({"inputs": {"file": 3, "name": "a.tif"}}, "has no file"),
        ({"inputs": {"file": "abcd"}}, "no file name"),
        ({"inputs": {"file": "abcd", "name": "cell"}}, "no file name"),
        ({"inputs": {"file": "abcd", "name": "cell.t/../x"}}, "no file name"),
        ({"inputs": {"file": "###", "name": "a.tif"}}, "not base64"),
        ({"inputs": {"file": "", "name": "a.tif"}}, "is empty"),
        ({"inputs": {"file": "abcd", "name": "a.tif"}, "parameters": 3}, "parameters"),
        (request(b"no image at all"), "cell.tif"),
        (request(tiff(counts())[:-500]), "cell.tif"),
        (request(b"MZ\x90", "../../x.exe"), "x.exe: not a supported format"),
        (request(tiff(counts()), size=3), "unknown argument size"),
        (request(tiff(counts()), pooling="mean"), "pooling"),
        (request(tiff(np.zeros((3, 40, 50, 2), np.uint16), metadata={"axes": "TYXC"})), "cell.tif"),
    ],
)
def test_a_bad_request_gets_one_line_without_a_path_of_the_server(
    handlers: dict[str, EndpointHandler], data: Any, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as error:
        handlers["encoder"](data)
    text = str(error.value)
    assert "\n" not in text and "/tmp" not in text and "tmp" not in text.lower() and error.value.status == 400


def test_large_files_and_images_are_refused_before_they_are_decoded(
    handlers: dict[str, EndpointHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 1999)
    with pytest.raises(RequestError, match="cell.tif: 1 x 40 x 50 pixels .* are too many") as error:
        handlers["encoder"](request(tiff(counts())))
    assert error.value.status == 413
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_VALUES", 1000)
    with pytest.raises(RequestError, match="values are too many"):
        handlers["encoder"](request(tiff(counts()), pooling="patch"))
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(module, "base64", None)
    with pytest.raises(RequestError, match="larger than"):
        handlers["encoder"]({"inputs": {"file": "A" * 4000, "name": "cell.tif"}})


def test_an_unexpected_error_shows_only_its_type(
    handlers: dict[str, EndpointHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("/srv/secret/model.safetensors")

    monkeypatch.setattr(handlers["encoder"], "pipeline", fail)
    with pytest.raises(RequestError, match=r"^cell.tif: cannot be processed \(RuntimeError\)$") as error:
        handlers["encoder"](request(tiff(counts())))
    assert error.value.status == 500


def test_200_requests_leave_nothing_behind(
    handlers: dict[str, EndpointHandler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    requests = [request(tiff(counts(seed=number))) for number in range(5)]
    requests += [request(b"broken"), {"inputs": {"file": "A" * 10**6, "name": "a.tif"}}, {}]
    sizes = []
    for number in range(200):
        try:
            handlers["segmenter"](requests[number % len(requests)])
        except RequestError:
            pass
        sizes.append(psutil.Process().memory_info().rss)
    assert list(tmp_path.iterdir()) == []
    assert sizes[-1] - sizes[60] < 20 * 2**20


WITHOUT_PACKAGE = """
import importlib.util, json, sys
assert importlib.util.find_spec("stedfm_hf") is None, "the package must not be importable here"
sys.path.insert(0, sys.argv[1])
from handler import EndpointHandler
handler = EndpointHandler(sys.argv[1])
print("RESULT", json.dumps(handler(json.load(open(sys.argv[2])))))
"""


def test_the_handler_works_where_the_package_cannot_be_imported(
    folders: dict[str, Path], handlers: dict[str, EndpointHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = Path(module.__file__).read_text(encoding="utf-8")
    without = ModuleType("handler_without_package")
    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] == "stedfm_hf"]:
            patch.setitem(sys.modules, name, None)
        exec(compile(code, "handler.py", "exec"), without.__dict__)
    assert module.installed is not None and without.installed is None
    data = request(tiff(counts()))
    assert without.EndpointHandler(str(folders["classifier"]))(data) == handlers["classifier"](data)


@pytest.mark.slow
def test_the_handler_needs_no_package(
    folders: dict[str, Path], handlers: dict[str, EndpointHandler], tmp_path: Path
) -> None:
    for file in ENDPOINT_FILES:
        (folders["classifier"] / file.name).write_bytes(file.read_bytes())
    data = request(tiff(counts()))
    (tmp_path / "request.json").write_text(json.dumps(data))
    # An editable install is a path hook in site-packages; -S leaves both out, and the paths are given by hand.
    sites = [path for path in sys.path if path.endswith("site-packages")]
    start = f"import sys; sys.path[1:1] = {sites!r}\n{WITHOUT_PACKAGE}"
    result = subprocess.run(
        [sys.executable, "-S", "-c", start, str(folders["classifier"]), str(tmp_path / "request.json")],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.partition("RESULT")[2])
    assert found == handlers["classifier"](data)


def test_the_versions_are_those_of_the_package() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["codecs"]]
    floors = {each.name: each.specifier for each in map(Requirement, declared)}
    texts = {path.name: path.read_text(encoding="utf-8") for path in ENDPOINT_FILES}
    lines = [line for line in texts["requirements.txt"].splitlines() if not line.startswith("#")]
    wanted = {each.name: each.specifier for each in map(Requirement, lines)}
    assert {name: floors[name] for name in wanted if name != "torchvision"} == {
        name: specifier for name, specifier in wanted.items() if name != "torchvision"
    }
    constraints = (root / "constraints.txt").read_text(encoding="utf-8")
    pinned = next(word for word in texts["Dockerfile"].split() if word.startswith("torch=="))
    assert f"\n{pinned}\n" in constraints


@pytest.fixture
def url(folders: dict[str, Path]) -> Iterator[str]:
    with make_server(str(folders["classifier"]), "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def send(url: str, body: bytes | None, kind: str = "application/json", **headers: str) -> tuple[int, Any]:
    message = urllib.request.Request(url, data=body, headers={"Content-Type": kind, **headers})
    try:
        with urllib.request.urlopen(message, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_server_sends_results_and_the_right_status(url: str, handlers: dict[str, EndpointHandler]) -> None:
    data = request(tiff(counts()))
    assert send(f"{url}/health", None) == (200, {"status": "ready"})
    assert send(url, json.dumps(data).encode()) == (200, handlers["classifier"](data))
    assert send(url, b"{")[0] == 400
    assert send(url, b"[" * 100_000)[0] == 400
    assert send(url, tiff(counts()), "image/tiff")[0] == 415
    assert send(url, json.dumps(request(b"broken")).encode())[0] == 400
    assert send(f"{url}/secret", None)[0] == 404
    # The body is not sent: the server must answer from the declared length.
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_the_processor_of_the_model_is_used(folders: dict[str, Path], tmp_path: Path) -> None:
    """A handler that scaled images in another way than the model would give wrong results without an error."""
    processor = StedFmImageProcessor.from_pretrained(folders["encoder"])
    handler = EndpointHandler(str(folders["encoder"]))
    assert handler.pipeline.image_processor.to_dict() == processor.to_dict()
