"""The sets of synaptic nanodomains: votes of annotators as soft masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.data.official.import_set import import_set
from stedfm_hf.data.official.synaptic import density
from stedfm_hf.data.official.synaptic_file import CLASSES, Annotation, vote_fractions
from stedfm_hf.labels.annotated import AnnotatedImages, read_annotated
from stedfm_hf.runs import UserError
from tests.data.official.fabricated import PROTOCOLS, minmax, random_image, rows_of, unit

h5py = pytest.importorskip("h5py")
BOXES = [(110, 130), (150, 130), (300, 380)]  # structures of the first two overlap; the last reaches beyond
CLICKS: list[list[list[int]]] = [[[40, 40], [41, 40], [40, 41], [70, 9]], [], [[5, 5]] * 3]
FILES = ("train", "valid", "test")


def write(folder: Path, *, group: bool = False) -> dict[str, np.ndarray]:
    """Write files with one image of 360 x 400 pixels with three annotated crops, and one image without any."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for number, split in enumerate(FILES):
        images[split] = random_image(number, 360, 400)
        records = [
            {"image": "1" if group else 1, "bbox": [y, x, y + 80, x + 80], "clicks": clicks}
            for (y, x), clicks in zip(BOXES, CLICKS, strict=True)
        ]
        masks = np.zeros((3, 80, 80), bool)
        masks[:, 20:70, 30:50] = True
        masks[2] = False
        masks[2, :10, :10] = True
        votes = np.array([[0, 2 / 3, 1 / 3, 0], [0, 0.5, 0, 0.25], [1 / 3, 0, 2 / 3, 0]])
        with h5py.File(folder / f"{split}_2024-05-16.hdf5", "w") as file:
            stack = np.stack([random_image(50 + number, 360, 400), images[split]])
            crops = np.zeros((3, 80, 80))
            if group:
                for name, pixels in zip("01", stack, strict=True):
                    file[f"original_images/{name}"] = pixels
                for row, record in enumerate(records):
                    file[f"crops/{row}"] = crops[row]
                    file[f"crops/{row}"].attrs["metadata"] = json.dumps(record)
            else:
                file["original_images"], file["crops"] = stack, crops
                file["crops"].attrs["metadata"] = [json.dumps(record) for record in records]
            file["labels"], file["masks"] = votes, masks
    return images


def whole(repo: Path, data: AnnotatedImages) -> np.ndarray:
    """Assemble the targets of all crops of an image."""
    target = np.zeros((len(data.classes), 448, 448), np.float32)
    corners = {row["pixels"].tobytes(): (row["y"], row["x"]) for row in rows_of(repo)}
    for number in range(len(data)):
        y, x = corners[data.stored(number).array.tobytes()]
        target[:, y : y + 224, x : x + 224] = data.target(number)
    return target[:, :360, :400]


@pytest.mark.parametrize("group", [False, True])
def test_votes_become_soft_masks(tmp_path: Path, group: bool) -> None:
    images = write(tmp_path / "synprot", group=group)
    summary = import_set("synaptic-semantic-segmentation", tmp_path / "synprot", tmp_path / "repo")
    assert summary.crops == {"train": 2, "validation": 2, "test": 2} and summary.sources["test"] == 1
    data = read_annotated(summary.output)["test"]
    assert (data.target_type, data.classes) == ("soft", CLASSES)
    target = whole(summary.output, data)
    third = np.float32(1 / 3)
    assert set(np.unique(target)) == {np.float32(v) for v in (0, 0.25, third, 0.5, 2 / 3, 1)}
    assert target[2, 130, 160] == third and target[1, 200, 170] == np.float32(0.5)
    assert target[1, 169, 170] == np.float32(2 / 3) and target[1, 170, 170] == 1.0  # both, 7 of 6 votes, are 1
    assert target[0, 300, 380] == third and target[3, 200, 170] == 0.25
    by_corner = {(row["y"], row["x"]): row for row in rows_of(summary.output) if row["split"] == "test"}
    assert sorted(by_corner) == [(0, 0), (224, 224)]
    np.testing.assert_allclose(unit(by_corner[0, 0]), minmax(images["test"][:224, :224]), atol=1e-6)
    edge = by_corner[224, 224]
    region = np.frombuffer(edge["region"], np.uint8).reshape(224, 224)
    assert region.sum() == 136 * 176 and region[:136, :176].all() and not unit(edge)[136:].any()
    assert by_corner[0, 0]["region"] is None


def test_the_reference_protocol_rescales_the_votes_of_each_crop(tmp_path: Path) -> None:
    write(tmp_path / "synprot")
    summary = import_set(
        "synaptic-semantic-segmentation", tmp_path / "synprot", tmp_path / "repo", protocol="reference"
    )
    data = read_annotated(summary.output)["test"]
    target = whole(summary.output, data)
    # 2/3 + 1/2 is the greatest of the first crop, 2/3 that of the second.
    assert target[1, 175, 170] == 1.0 and target[1, 130, 160] == pytest.approx(4 / 7)
    assert target[2, 300, 380] == 1.0 and target[0, 300, 380] == 0.5
    assert all(data.region(number) is None for number in range(len(data)))


@pytest.mark.parametrize("legacy", [False, True])
def test_perforated_has_one_class_and_one_crop_per_annotation(tmp_path: Path, legacy: bool) -> None:
    write(tmp_path / "synprot")
    summary = import_set(
        "perforated-segmentation", tmp_path / "synprot", tmp_path / "repo", protocol=PROTOCOLS[legacy]
    )
    assert summary.crops == {"train": 2, "validation": 2, "test": 2}  # nobody marked it in the second annotation
    data = read_annotated(summary.output)["train"]
    assert (data.target_type, data.classes) == ("soft", ("perforated",))
    assert all(data.target(number).shape == (1, 224, 224) for number in range(2))
    again = import_set("perforated-segmentation", tmp_path / "synprot", tmp_path / "again", protocol=PROTOCOLS[legacy])
    corners = [[(row["y"], row["x"]) for row in rows_of(each.output)] for each in (summary, again)]
    assert corners[0] == corners[1] and len(set(corners[0])) > 2
    tops = [data.target(number).max() for number in range(2)]
    assert sorted(map(float, tops)) == pytest.approx([1, 1] if legacy else [1 / 3, 2 / 3])


@pytest.mark.parametrize("legacy", [False, True])
def test_multidomain_is_a_density_map_of_clustered_clicks(tmp_path: Path, legacy: bool) -> None:
    write(tmp_path / "synprot")
    summary = import_set("multidomain-detection", tmp_path / "synprot", tmp_path / "repo", protocol=PROTOCOLS[legacy])
    data = read_annotated(summary.output)["test"]
    assert (data.target_type, data.classes) == ("soft", ("multidomains",))
    target = whole(summary.output, data)[0]
    peak = np.unravel_index(target[:224, :224].argmax(), (224, 224))
    assert peak == (150, 170) and not target[170:190, 129:149].any()  # a single click is not a domain
    assert target[305, 385] == 1.0 and bool(target[150, 170] == 1.0) is legacy


def test_files_without_clicks_or_with_another_layout_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "set")
    for split, change in zip(FILES, ("clicks", "image", "votes"), strict=True):
        with h5py.File(tmp_path / "set" / f"{split}_2024-05-16.hdf5", "a") as file:
            records = [json.loads(text) for text in file["crops"].attrs["metadata"]]
            if change == "votes":
                del file["labels"]
                file["labels"] = np.zeros((3, 7))
            else:
                file["crops"].attrs["metadata"] = [
                    json.dumps({key: value for key, value in record.items() if key != change}) for record in records
                ]
    with pytest.raises(UserError, match="have no clicks"):
        import_set("multidomain-detection", tmp_path / "set" / "train_2024-05-16.hdf5", tmp_path / "none")
    summary = import_set("synaptic-semantic-segmentation", tmp_path / "set", tmp_path / "repo")
    failures = summary.manifest.failures()
    assert "without image and bbox" in failures["valid_2024-05-16.hdf5"]
    assert "has labels (7,) and masks (80, 80)" in failures["test_2024-05-16.hdf5#1"]
    assert summary.crops == {"train": 2}


def test_votes_with_one_mask_per_annotator() -> None:
    labels = np.array([[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    masks = np.array([[[1, 1]], [[0, 1]], [[1, 0]]])
    found = vote_fractions(labels, masks)
    np.testing.assert_allclose(found[:, 0], np.array([[0, 0], [1, 2], [1, 0], [0, 0]]) / 3)
    by_class = np.arange(8).reshape(4, 1, 2) / 8
    np.testing.assert_array_equal(vote_fractions(np.ones(4), by_class), by_class)
    for bad in (np.full(4, 3.0), np.full(4, np.nan)):
        with pytest.raises(ValueError, match="not fractions"):
            vote_fractions(bad, masks[0])


def test_density_ignores_isolated_clicks() -> None:
    clicks = np.array([[5.0, 5.0], [5, 6], [6, 5], [20, 20], [90, 90], [90, 90], [90, 90]])
    found = density([Annotation(0, "0", 0, 0, clicks), Annotation(1, "0", 0, 0, None)], (40, 40), False)[0]
    assert 0.9 < found.max() < 1 and found[20, 20] == 0 and found.shape == (40, 40)
    assert density([Annotation(0, "0", 0, 0, clicks)], (40, 40), True).max() == pytest.approx(
        3 * found.max(), rel=1e-5
    )
