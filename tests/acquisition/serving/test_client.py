"""The client and the server together: finders, score maps and regions, as `finder fit` and `find` compute them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from stedfm_hf.acquisition import Client, Stage, find, fit_finder, load_finder
from stedfm_hf.acquisition.settings import METHODS
from stedfm_hf.runs import UserError
from tests.acquisition.serving.serving_world import SHAPE, SPOTS, field, mask, npy, parts, serving, tiff

BACKGROUND = [(4, 4, "background"), (4, 70, "background")]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_square_of_another_field(method: str, client: Client) -> None:
    finder = client.create_finder(field(0), mask=mask(0), classes=["spot"], method=method)
    assert finder.method == method and finder.classes == ("spot",) and finder.images == 1
    assert finder.patches["spot"] > 0 and client.finders() == [finder]
    maps = client.score(field(1), finder)
    assert maps.values.shape == (1, 8, 10) and maps.values.dtype == np.float32
    assert maps.classes == ("spot",) and maps.cell_px == (8.0, 8.0)
    best, *_ = client.regions(field(1), finder.id, count=3, region_size_px=16)
    y, x = SPOTS[1]
    assert abs(best.centre_y_px - y) <= 8 and abs(best.centre_x_px - x) <= 8
    assert best.rank == 1 and best.score == maps.values.max() and best.y_um is None and best.stage_x_um is None
    client.delete_finder(finder)
    assert client.finders() == []
    with pytest.raises(UserError, match="this client has no such finder"):
        client.score(field(1), finder)


def test_the_server_computes_what_the_commands_compute(model: Path, client: Client, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    lines = ["path,y_px,x_px,class"]
    for number, (y, x) in enumerate(SPOTS):
        (tmp_path / "images" / f"{number}.tif").write_bytes(
            tiff(field(number), imagej=True, resolution=(20, 20), metadata={"unit": "um"})
        )
        lines += [f"{number}.tif,{y},{x},spot", *(f"{number}.tif,{y},{x},{name}" for y, x, name in BACKGROUND)]
    (tmp_path / "clicks.csv").write_text("\n".join(lines))
    fit_finder(
        tmp_path / "images",
        tmp_path / "finder",
        clicks=tmp_path / "clicks.csv",
        method="logistic",
        model=model,
        device="cpu",
    )
    finder = client.create_finder(field(0), clicks=[(*SPOTS[0], "spot"), *BACKGROUND], method="logistic")
    finder = client.add_annotations(finder, field(1), clicks=[(*SPOTS[1], "spot"), *BACKGROUND])
    assert finder.images == 2 and finder.patches == load_finder(tmp_path / "finder").record["patches"]
    stage = np.array([[0.05, 0, 100], [0, 0.05, 200]])
    (tmp_path / "stage.json").write_text(str(stage.tolist()))
    options: dict[str, Any] = {"region_size_um": 0.8, "count": 2, "min_score": 0.0}
    table = find(
        tmp_path / "images" / "1.tif",
        tmp_path / "finder",
        tmp_path / "found",
        stage=tmp_path / "stage.json",
        device="cpu",
        **options,
    ).table
    found = client.regions(tmp_path / "images" / "1.tif", finder, stage=stage, **options)
    rows = table.select(list(vars(found[0]))).to_pylist()
    assert [vars(each) for each in found] == rows
    sent = client.regions(field(1), finder, stage=stage, pixel_size_nm=50, **options)
    assert sent == found
    where = Stage({}, stage).position_um("", y=found[0].centre_y_px, x=found[0].centre_x_px)
    assert (found[0].stage_x_um, found[0].stage_y_um) == where


def test_a_warning_says_why_no_region_was_found(client: Client) -> None:
    finder = client.create_finder(field(0), mask=mask(0), classes=["Körner"])
    highest = client.score(field(1), finder).values.max()
    why = f"no score reaches the smallest score of a region, which is 7.5 for Körner; the highest is {highest:.4g}"
    with pytest.warns(UserWarning, match=f"^{re.escape(why)}$"):
        assert client.regions(field(1), finder, min_score=7.5) == []


@pytest.mark.parametrize("corner", [(40, 40), (44, 44), (39, 43)])
def test_a_click_of_the_background_counts_wherever_it_is(corner: tuple[int, int], client: Client) -> None:
    finder = client.create_finder(field(0), clicks=[(*SPOTS[0], "spot"), (*corner, "background")])
    assert finder.patches["background"] > 0 and finder.min_scores[0] > -1 and finder.warning is None


def test_a_finder_without_background_is_refused_or_warns(client: Client) -> None:
    with pytest.raises(UserError, match="click the background further away"):
        client.create_finder(field(0), clicks=[(*SPOTS[0], "spot"), (20, 29, "background")])
    with pytest.warns(UserWarning, match="accepts every patch"):
        finder = client.create_finder(field(0), mask=np.ones(SHAPE, np.uint8))
    assert finder.min_scores == (-1.0,) and client.finders() == [finder]


def test_files_of_the_shared_folder_are_not_sent(server: TestClient) -> None:
    share = Path(str(parts(server).settings.share))
    (share / "day").mkdir(exist_ok=True)
    (share / "day" / "field.npy").write_bytes(npy(field(0)))
    client = Client(http=server, share=share)
    finder = client.create_finder(share / "day" / "field.npy", mask=mask(0))
    sent = Client(http=server, token=client.token).score(field(0), finder)
    assert np.array_equal(client.score(share / "day" / "field.npy", finder).values, sent.values)
    headers = {"Authorization": f"Bearer {client.token}"}
    found = server.post("/score", params={"finder": finder.id, "path": "day/field.npy"}, headers=headers)
    assert found.json()["scores"] == sent.values.tolist()


def test_several_classes_in_planes_and_numbers_agree(client: Client) -> None:
    planes = np.stack([mask(0), np.roll(mask(0), 30, axis=1)])
    numbers = planes[0] + 2 * planes[1]
    both = [
        client.create_finder(field(0), mask=each, classes=["a", "b"], rotations=False) for each in (planes, numbers)
    ]
    assert both[0].patches == both[1].patches and both[0].min_scores == both[1].min_scores


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "must have a mask or clicks"),
        ({"mask": mask(0), "clicks": [(1, 2)]}, "must have a mask or clicks"),
        ({"mask": mask(0)[:3]}, "the mask has 3 x 80 pixels, and the image 64 x 80"),
        ({"mask": mask(0) * 2}, r"the mask holds the numbers 0 to 2, but there is one class; name them with classes="),
        ({"mask": mask(0) * 3, "classes": ["a", "b"]}, "holds the numbers 0 to 3, but there are 2 classes"),
        ({"mask": np.stack([mask(0)] * 2)}, "the mask has 2 planes, but there is one class"),
        ({"mask": mask(0) * 0.5}, "holds numbers that are not classes"),
        ({"clicks": (1, 2)}, r"clicks: is not a list of \(y, x\)"),
        ({"mask": [[0, 1]]}, "a list is not an image; give a NumPy array or a path"),
        ({"clicks": [(1, 999)]}, "the click at y = 1, x = 999 is outside of the image"),
        ({"clicks": [(1, 2, "a")], "classes": ["b"]}, "the class 'a' of a click is not a class"),
        ({"clicks": [(1, 2)], "classes": ["structure", "b"]}, "class b: covers no patch"),
        ({"clicks": [(1, 2, "background")], "method": "logistic"}, "class structure: covers no patch"),
        ({"clicks": [(1, 2)], "method": "forests"}, "method: Input should be 'templates'"),
        ({"clicks": [(1, 2)], "classes": ["a", "a"]}, "empty, repeated or background"),
        ({"clicks": [(1, 2)], "click_radius_px": -1.0}, "click_radius_px: Input should be greater than 0"),
    ],
)
def test_wrong_annotations_are_refused(arguments: dict[str, Any], message: str, client: Client) -> None:
    with pytest.raises(UserError, match=message):
        client.create_finder(field(0), **arguments)
    assert client.finders() == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full(SHAPE, np.nan), "the image has 5,120 pixels of NaN or infinity; replace them"),
        (np.where(mask(0) > 0, np.inf, 1).astype(np.float32), "the image has 64 pixels of NaN or infinity"),
        (np.zeros((3, *SHAPE)), r"has 3 channels, and the model takes 1; send an array of shape \(height, width\)"),
        (np.random.default_rng(0).random((*SHAPE, 3)), "has 3 channels, and the model takes 1"),
    ],
)
def test_images_that_the_model_cannot_score_are_refused(image: np.ndarray, message: str, client: Client) -> None:
    finder = client.create_finder(field(0), mask=mask(0), rotations=False)
    for act in (
        lambda: client.regions(image, finder),
        lambda: client.score(image, finder),
        lambda: client.create_finder(image, mask=mask(0)),
    ):
        with pytest.raises(UserError, match=message):
            act()


def test_a_client_has_a_token_at_once(server: TestClient) -> None:
    client = Client(http=server)
    assert len(client.token) >= 16 and Client(http=server, token=client.token).finders() == []


@pytest.mark.parametrize("url", ["127.0.0.1:8321", "localhost", "", "ftp://microscope"])
def test_an_address_needs_http(url: str) -> None:
    with pytest.raises(UserError, match="is not an address of a server; write http:// before it"):
        Client(url)


@pytest.mark.parametrize("stage", [np.eye(3), np.zeros(6), np.eye(2)])
def test_a_stage_is_a_matrix_of_2_by_3(stage: np.ndarray, client: Client) -> None:
    with pytest.raises(UserError, match="give a matrix of 2 x 3"):
        client.regions(field(0), "finder", stage=stage)


def test_masks_may_be_files(client: Client, tmp_path: Path) -> None:
    (tmp_path / "mask.tif").write_bytes(tiff(mask(0)))
    from_file = client.create_finder(field(0), mask=tmp_path / "mask.tif")
    assert from_file.patches == client.create_finder(field(0), mask=mask(0)).patches


def test_files_outside_of_the_shared_folder_are_not_sent(server: TestClient, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "secret.npy").write_bytes(npy(field(0)))
    (tmp_path / "share" / "link.npy").symlink_to(tmp_path / "secret.npy")
    client = Client(http=server, share=tmp_path / "share")
    for file in (tmp_path / "secret.npy", tmp_path / "share" / "link.npy"):
        with pytest.raises(UserError, match="is not below the shared folder"):
            client.create_finder(file, mask=mask(0))


def test_unreachable_servers_and_wrong_answers_are_one_sentence(tmp_path: Path) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(502, text="<html>")

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    with pytest.raises(UserError, match="answers with status 502; check url"):
        Client("http://127.0.0.1:1", token="x" * 20, http=http).health()
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(UserError, match="cannot be reached"):
            client.health()
        with pytest.raises(UserError, match="no.tif: cannot be read"):
            client.score(tmp_path / "no.tif", "finder")


def test_a_server_lists_its_model_routes_and_metrics(server: TestClient, client: Client) -> None:
    assert client.health()["status"] == "ready"
    (about,) = client.models()
    assert about["patch_size"] == 8 and about["backend"] == "torch" and about["device"] == "cpu"
    page = server.get("/docs").text
    assert server.get("/").text == page  # the address that the command prints
    assert "POST /regions" in page and "http://" not in page and "https://" not in page
    metrics = server.get("/metrics", headers={"Authorization": f"Bearer {client.token}"}).json()
    assert metrics["working"] == 0 and metrics["requests"]["GET /health"]["status"]["200"] >= 1


@pytest.mark.parametrize("backend", [pytest.param("onnx", marks=pytest.mark.slow)])
def test_another_backend_finds_the_same_regions(backend: str, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    found = []
    for name in ("torch", backend):
        with serving(model, tmp_path / name, backend=name) as http:
            client = Client(http=http)
            finder = client.create_finder(field(0), mask=mask(0))
            found.append(client.score(field(1), finder).values)
    assert found[0] == pytest.approx(found[1], abs=1e-3)
    assert found[0].shape == (1, SHAPE[0] // 8, SHAPE[1] // 8)
