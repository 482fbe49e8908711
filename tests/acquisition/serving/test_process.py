"""`POST /process`: what clients of the published server send and get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.acquisition.serving.serving_world import field, mask

IMAGE = field(0).tolist()
LABEL = (mask(0).astype(int) * 2 + np.roll(mask(0), 40, axis=1)).tolist()


def ask(server: TestClient, **request: Any) -> Any:
    return server.post("/process", json=request)


def test_a_request_trains_and_the_next_one_predicts(server: TestClient) -> None:
    assert ask(server, test_connection=True).json() == {"status": "ok"}
    trained = ask(server, image=IMAGE, label=LABEL, train=True, model=None, n_estimators=20, max_depth=5).json()
    prediction = np.array(trained["prediction"])
    assert prediction.shape == field(0).shape and set(np.unique(prediction)) <= {1, 2}
    assert (
        prediction.reshape(8, 8, 10, 8).transpose(0, 2, 1, 3).reshape(80, 64) == prediction[::8, ::8].reshape(80, 1)
    ).all()
    assert trained["image-name"] is None and trained["condition"] == "group0"
    assert trained["model"] == {"meta": "stedfm-hf", "n_estimators": 20, "max_depth": 5}
    assert len(trained["X_train"]) == len(trained["y_train"]) > len(trained["X_test"]) > 0
    tokens = {name: trained[name] for name in ("X_train", "X_test", "y_train", "y_test")}
    again = ask(server, image=IMAGE, train=False, model=trained["model"], **tokens).json()
    assert again == trained
    merged = ask(
        server, image=IMAGE, label=[LABEL], train=True, warm_start=True, model=trained["model"], **tokens
    ).json()
    assert merged["X_train"] == trained["X_train"]  # every token was there already


def test_classes_keep_their_numbers_when_one_is_missing(server: TestClient) -> None:
    found = ask(server, image=IMAGE, label=(mask(0).astype(int) * 3).tolist(), train=True, n_estimators=5).json()
    assert set(np.unique(found["prediction"])) == {3} and set(found["y_train"]) == {2}


def test_a_forest_of_a_request_is_not_rebuilt(server: TestClient) -> None:
    model = {"meta": "rf", "estimators": [{"meta": "decision-tree", "tree_": {"nodes": ["x"]}}], "params": {}}
    found = ask(server, image=IMAGE, label=LABEL, train=True, model=model, n_estimators=3, max_depth=2)
    assert found.json()["model"] == {"meta": "stedfm-hf", "n_estimators": 3, "max_depth": 2}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "image: is not a list of finite numbers with 2 dimensions"),
        ({"image": [[1, 2], [3]]}, "image: is not a list"),
        ({"image": [["a"]]}, "image: is not a list"),
        ({"image": IMAGE}, "X_train: is not a list"),
        ({"image": IMAGE, "train": True}, "label: is not a list"),
        ({"image": IMAGE, "train": True, "label": [[1]]}, "label: has the shape"),
        ({"image": IMAGE, "train": True, "label": (mask(0) * 0).tolist()}, "no class covers more than a quarter"),
        ({"image": IMAGE, "train": True, "label": (mask(0) * -1.5).tolist()}, "label: must hold integers"),
        ({"image": IMAGE, "X_train": [[1, 2]], "y_train": [0]}, "X_train: has the shape"),
        ({"image": IMAGE, "X_train": [[1] * 32], "y_train": [0.5]}, "y_train: must hold integers"),
        ({"image": IMAGE, "train": True, "label": LABEL, "n_estimators": 10**6}, "n_estimators: must be an integer"),
    ],
)
def test_wrong_requests_are_one_sentence(request_: dict[str, Any], message: str, server: TestClient) -> None:
    response = ask(server, **request_)
    assert response.status_code == 422 and message in response.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"[" * 100_000, b'{"image": [[NaN]]}', b"\xff"])
def test_other_bodies_are_refused(body: bytes, server: TestClient) -> None:
    assert server.post("/process", content=body).status_code in (400, 422)
