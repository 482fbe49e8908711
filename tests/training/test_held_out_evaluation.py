"""Held-out evaluation: correct metrics, reproducible, and without effect on the model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stedfm_hf.data.repository.decoding import to_unit_range
from stedfm_hf.data.repository.files import SplitFiles, find_split
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.data.streaming.local import LocalCrops
from stedfm_hf.evaluation import knn_accuracy
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.layers_stedfm import patchify
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs import UserError
from stedfm_hf.training import held_out_evaluation as module
from stedfm_hf.training.held_out_evaluation import HeldOutEvaluator, HeldOutMetrics, find_held_out_crops, read_crops
from stedfm_hf.training.preparation import Preparation
from tests.data.assembled import labelled_crops, noisy_crop, write_repo
from tests.data.repos import write_repo as write_train_only

PREPARATION = Preparation(seed=5, image_size=16, patches=4)
LABELS = ("puncta", "rings")
SIZES = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "decoder_hidden_size": 32,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
}


def bigger(crop: Crop, side: int = 20) -> Crop:
    """The crop with an edge around it, and pixels that tell its label."""
    rng = np.random.default_rng(crop.pixels.astype(np.uint32).sum())
    pixels = rng.integers(0, 256 if crop.label == "rings" else 60, (side, side), dtype=np.uint8)
    return dataclasses.replace(crop, pixels=pixels)


def tiny_model(**changes: Any) -> StedFmForPreTraining:
    torch.manual_seed(0)
    model = StedFmForPreTraining(StedFmConfig(**{**SIZES, **changes}))
    for parameter in model.parameters():  # away from the small weights it begins with, which predict next to nothing
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 labelled crops of 20 images; some of the validation split have no label."""
    output = tmp_path_factory.mktemp("labelled") / "cells"
    write_repo(output, [bigger(crop) for crop in labelled_crops(40)], labels=LABELS)
    return output


@pytest.fixture(scope="module")
def splits(repo: Path) -> tuple[SplitFiles, SplitFiles]:
    return find_split(repo, "validation"), find_split(repo, "train")


def check(held_out: HeldOutEvaluator, model: StedFmForPreTraining) -> HeldOutMetrics:
    return held_out.evaluate(model)


def prepared(repo: Path, split: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """All crops of a split, read another way, with the masks they are to have."""
    crops = LocalCrops(repo, split)
    rows = crops[list(range(len(crops)))] | {"index": torch.arange(len(crops))}
    ready = Preparation(seed=0, image_size=16, patches=4, augment=False)(rows, epoch=0)
    return ready, [LABELS[label] for label in rows["label"].tolist()]


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_the_metrics_match_a_plain_loop(
    repo: Path, splits: tuple[SplitFiles, SplitFiles], norm_pix_loss: bool
) -> None:
    model = tiny_model(norm_pix_loss=norm_pix_loss)
    found = check(HeldOutEvaluator(splits[:1], PREPARATION, train=splits[1:], batch_size=3), model)

    model.eval()
    batch, labels = prepared(repo, "validation")
    losses, errors, targets, vectors = [], [], [], []
    with torch.no_grad():
        for image, noise in zip(batch["pixel_values"], batch["noise"], strict=True):
            output = model(image[None], noise=noise[None])
            hidden = patchify(image[None], 8)[output.mask]
            filled = patchify(model.reconstruct(image[None], output), 8)[output.mask]
            losses.append(output.loss.item())
            errors.append((hidden - filled).square().mean().item())
            spread = (hidden.var(1, keepdim=True) + 1e-6).sqrt()
            targets.append((hidden - hidden.mean(1, keepdim=True)) / spread if norm_pix_loss else hidden)
            vectors.append(model.stedfm(image[None]).pooler_output[0].numpy())
        gallery, gallery_labels = prepared(repo, "train")
        gallery_vectors = model.stedfm(gallery["pixel_values"]).pooler_output.numpy()
    votes = knn_accuracy(gallery_vectors, gallery_labels, np.stack(vectors), labels, k=10)

    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.psnr == pytest.approx(10 * math.log10(1 / np.mean(errors)), rel=1e-5)
    assert found.constant_loss == pytest.approx(float(torch.cat(targets).double().var(correction=0)), rel=1e-4)
    assert found.knn == pytest.approx(votes.accuracy)
    assert found.metrics() == {
        "eval_loss": found.loss,
        "eval_constant_loss": found.constant_loss,
        "eval_psnr": found.psnr,
        "eval_knn": found.knn,
    }


def test_the_constant_loss_is_that_of_the_best_constant(splits: tuple[SplitFiles, SplitFiles]) -> None:
    model = tiny_model()
    torch.nn.init.zeros_(model.decoder.head.weight)
    held_out = HeldOutEvaluator(splits[:1], PREPARATION)
    losses = {}
    for constant in np.linspace(0.0, 1.0, 51):
        torch.nn.init.constant_(model.decoder.head.bias, float(constant))
        losses[constant] = check(held_out, model).loss
    found = check(held_out, model)
    best = min(losses.values())
    assert found.constant_loss <= best + 1e-6 and best < found.constant_loss + 0.01**2 + 1e-6
    assert found.loss > 1.5 * found.constant_loss


def test_the_same_crops_and_masks_in_every_evaluation_of_every_run(splits: tuple[SplitFiles, SplitFiles]) -> None:
    model = tiny_model()
    held_out = HeldOutEvaluator(splits[:1], PREPARATION, train=splits[1:])
    first = check(held_out, model)
    assert check(held_out, model) == first
    other_run = Preparation(seed=77, image_size=16, patches=4, augment=True)
    for batch_size in (1, 4, 100):
        found = check(HeldOutEvaluator(splits[:1], other_run, train=splits[1:], batch_size=batch_size), model)
        assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(first), rel=1e-5)


def test_a_better_model_has_better_metrics(splits: tuple[SplitFiles, SplitFiles]) -> None:
    model = tiny_model()
    held_out = HeldOutEvaluator(splits[:1], PREPARATION)
    before = check(held_out, model)
    torch.nn.init.zeros_(model.decoder.head.weight)
    torch.nn.init.constant_(model.decoder.head.bias, 0.3)
    after = check(held_out, model)
    assert after.loss < before.loss and after.psnr > before.psnr and after.constant_loss == before.constant_loss


def test_the_model_and_the_random_generators_are_unchanged(splits: tuple[SplitFiles, SplitFiles]) -> None:
    model = tiny_model().train()
    for name, parameter in model.named_parameters():
        parameter.grad = torch.full_like(parameter, 0.5) if "norm" in name else None
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    np.random.seed(3)
    state = torch.get_rng_state()
    held_out = HeldOutEvaluator(splits[:1], PREPARATION, train=splits[1:])
    check(held_out, model)
    held_out.reconstructions(model)
    assert model.training and model.decoder.training
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.random() == np.random.RandomState(3).random()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert grads and all("norm" in name and (grad == 0.5).all() for name, grad in grads.items())
    check(held_out, model.eval())
    assert not model.training


def test_a_model_with_weights_that_are_not_finite_gets_metrics(splits: tuple[SplitFiles, SplitFiles]) -> None:
    model = tiny_model()
    torch.nn.init.constant_(model.stedfm.norm.weight, math.nan)
    found = check(HeldOutEvaluator(splits[:1], PREPARATION, train=splits[1:]), model)
    assert math.isnan(found.loss) and math.isnan(found.psnr) and found.knn is None
    assert math.isfinite(found.constant_loss)


def test_autocast_changes_the_metrics_a_little_and_keeps_the_sums_in_float32(
    splits: tuple[SplitFiles, SplitFiles],
) -> None:
    model, held_out = tiny_model(), HeldOutEvaluator(splits[:1], PREPARATION)
    exact = check(held_out, model)
    rough = held_out.evaluate(model, dtype=torch.bfloat16)
    assert rough.loss != exact.loss and rough.loss == pytest.approx(exact.loss, rel=0.05)
    assert rough.constant_loss == exact.constant_loss


def test_larger_crops_are_cropped_centrally(repo: Path, splits: tuple[SplitFiles, SplitFiles]) -> None:
    crops = read_crops(splits[0], 16, max_crops=3)
    whole = LocalCrops(repo, "validation")[crops.index.tolist()]  # read another way
    assert torch.equal(crops.pixels, whole["pixels"][:, :, 2:18, 2:18]) and len(crops) == 3
    shown = to_unit_range(crops.pixels, crops.intensity_range)
    assert torch.equal(shown, to_unit_range(whole["pixels"], whole["intensity_range"])[:, :, 2:18, 2:18])


def test_every_crop_is_read_once(splits: tuple[SplitFiles, SplitFiles], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_crops(splits[1], 16, max_crops=100)
    assert sorted(whole.index.tolist()) == list(range(splits[1].rows))
    monkeypatch.setattr(module, "READ_BATCH_SIZE", 3)
    pieces = read_crops(splits[1], 16, max_crops=100, labelled=True)
    assert pieces.index.tolist() == whole.index.tolist() and torch.equal(pieces.pixels, whole.pixels)


def test_queries_are_never_in_the_gallery(
    splits: tuple[SplitFiles, SplitFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def spy(
        gallery: np.ndarray, gallery_labels: list[str], query: np.ndarray, *rest: object, **options: object
    ) -> object:
        asked.append((gallery, query))
        return knn_accuracy(gallery, gallery_labels, query, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "knn_accuracy", spy)
    assert check(HeldOutEvaluator(splits[:1], PREPARATION, train=splits[1:]), tiny_model()).knn is not None
    ((gallery, query),) = asked
    assert len(gallery) == splits[1].rows and len(query) == splits[0].rows
    assert np.abs(gallery[:, None] - query[None]).max(axis=2).min() > 1e-4
    with pytest.raises(UserError, match="is the training split; give another --validation-split"):
        HeldOutEvaluator(splits[1:], PREPARATION, train=splits[1:])


def test_several_data_sets_are_weighted_by_their_crops(splits: tuple[SplitFiles, SplitFiles], tmp_path: Path) -> None:
    write_repo(tmp_path / "other", [bigger(noisy_crop(number)) for number in range(100, 120)])
    other = find_split(tmp_path / "other", "validation")
    model = tiny_model()
    both = HeldOutEvaluator([splits[0], other], PREPARATION, train=splits[1:])
    first, second = (
        check(HeldOutEvaluator([files], PREPARATION, train=splits[1:]), model) for files in (splits[0], other)
    )
    assert len(both) == splits[0].rows + other.rows
    found = check(both, model)
    assert found.knn == first.knn and second.knn is None
    assert min(first.loss, second.loss) * 0.8 < found.loss < max(first.loss, second.loss) * 1.2


def test_crops_without_a_label_are_not_classified(tmp_path: Path) -> None:
    crops = [bigger(crop) for crop in labelled_crops(48)]
    some = [crop if number // 2 % 3 else dataclasses.replace(crop, label=None) for number, crop in enumerate(crops)]
    write_repo(tmp_path / "cells", some, labels=LABELS)
    validation, train = (find_split(tmp_path / "cells", split) for split in ("validation", "train"))
    gallery = read_crops(train, 16, max_crops=100, labelled=True)
    assert 0 < len(gallery) < train.rows and (gallery.label >= 0).all()
    assert len(read_crops(train, 16, max_crops=4, labelled=True)) == 4
    assert check(HeldOutEvaluator([validation], PREPARATION, train=[train]), tiny_model()).knn is not None


def test_data_sets_without_labels_or_held_out_crops_are_reported(tmp_path: Path, repo: Path) -> None:
    write_repo(tmp_path / "bare", [bigger(noisy_crop(number)) for number in range(20)])
    bare, labelled = find_split(tmp_path / "bare", "train"), find_split(repo, "train")
    alone = find_split(write_train_only(tmp_path / "alone", (4, 4)), "train")
    notes: list[str] = []
    without_labels = find_held_out_crops([bare], PREPARATION, report=notes.append)
    assert without_labels is not None and not notes
    found = check(without_labels, tiny_model())
    assert found.knn is None and "eval_knn" not in found.metrics()

    assert find_held_out_crops([alone], PREPARATION, report=notes.append) is None
    assert len(notes) == 1 and "alone" in notes[0] and "'validation'" in notes[0]
    some = find_held_out_crops([alone, labelled], PREPARATION, report=notes.append)
    assert some is not None and len(some) == find_split(repo, "validation").rows and len(notes) == 2


def test_crops_smaller_than_the_model_are_refused(splits: tuple[SplitFiles, SplitFiles]) -> None:
    with pytest.raises(UserError, match="20 x 20, smaller than the 32 x 32 of the model"):
        HeldOutEvaluator(splits[:1], Preparation(seed=0, image_size=32, patches=16))


def test_reconstructions_show_every_label_and_keep_visible_pixels(splits: tuple[SplitFiles, SplitFiles]) -> None:
    shown = HeldOutEvaluator(splits[:1], PREPARATION).reconstructions(tiny_model(), max_crops=4)
    assert [each.label for each in shown] == ["puncta", "puncta", "rings", "rings"]
    for each in shown:
        hidden = np.ma.getmaskarray(each.seen)
        assert each.original.shape == (16, 16) and hidden.mean() == 0.75 and each.pixel_size_nm == 20.0
        np.testing.assert_array_equal(each.predicted[~hidden], each.original[~hidden])
        assert not np.allclose(each.predicted[hidden], each.original[hidden])
