"""Features of models and baselines, and their cache."""

from __future__ import annotations

import pickle
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from stedfm_hf import StedFmModel
from stedfm_hf.evaluation import extractors as module
from stedfm_hf.evaluation.extractors import EncoderExtractor, Extractor, load_extractors
from stedfm_hf.evaluation.features import compute_features, features_folder, prepare_for_probe
from stedfm_hf.evaluation.settings import BASELINES
from stedfm_hf.inference import embed
from stedfm_hf.labels.labelled import LabelledImages, read_labelled
from stedfm_hf.runs import UserError
from tests.labels.labelled_data import arrays, class_folder
from tests.models import tiny_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    StedFmModel(tiny_config()).save_pretrained(folder)
    return str(folder)


def extractors(model: str, data: LabelledImages, *baselines: str) -> list[Extractor]:
    return load_extractors([model], baselines, data=data, device="cpu")


def test_features_equal_the_embeddings_of_embed(model: str, tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "set", {"a": 2, "b": 1}, size=72)
    data = read_labelled(folder)["all"]
    (extractor,) = extractors(model, data)
    found = compute_features(data, extractor)
    rows = embed(folder, model=model, device="cpu").table["embedding"].to_pylist()
    np.testing.assert_allclose(found.values, rows, atol=1e-6)


def test_cached_features_are_not_computed_again(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = arrays(2)
    (extractor,) = extractors(model, data)
    first = compute_features(data, extractor, cache=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]

    def refuse(self: EncoderExtractor, images: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(EncoderExtractor, "extract", refuse)
    np.testing.assert_array_equal(compute_features(data, extractor, cache=tmp_path).values, first.values)
    with pytest.raises(AssertionError, match="computed again"):
        compute_features(data, extractor)  # without a cache
    with pytest.raises(AssertionError, match="computed again"):
        compute_features(data.take([0, 1]), extractor, cache=tmp_path)  # other images


def test_other_weights_or_settings_have_other_cached_features(model: str, tmp_path: Path) -> None:
    data = arrays(2)
    torch.manual_seed(1)
    StedFmModel(tiny_config()).save_pretrained(tmp_path / "other")
    for name in (model, str(tmp_path / "other")):
        compute_features(data, extractors(name, data)[0], cache=tmp_path / "cache")
    (extractor,) = extractors(model, data)
    assert isinstance(extractor, EncoderExtractor)
    extractor.encoder.processor.normalization = "minmax"
    changed = load_extractors([model], (), data=data, device="cpu")[0]
    changed.identity = {**changed.identity, "processor": {**changed.identity["processor"], "normalization": "minmax"}}
    compute_features(data, changed, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_damaged_cache_file_is_computed_again(model: str, tmp_path: Path) -> None:
    data = arrays(2)
    (extractor,) = extractors(model, data)
    first = compute_features(data, extractor, cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:40])
    np.testing.assert_array_equal(compute_features(data, extractor, cache=tmp_path).values, first.values)
    assert kept.stat().st_size > 40


def test_an_image_that_cannot_be_read_is_a_row_of_nan(model: str, tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "set", {"a": 2, "b": 2})
    data = read_labelled(folder)["all"]
    (folder / "a" / "001.tif").write_bytes(b"gone bad since")
    for extractor in extractors(model, data, "histogram"):
        found = compute_features(data, extractor, cache=tmp_path / "cache")
        assert list(found.failed) == [1] and "001.tif" in found.failed[1]
        assert np.isnan(found.values[1]).all() and np.isfinite(found.values[[0, 2, 3]]).all()
        assert compute_features(data, extractor, cache=tmp_path / "cache").failed == found.failed


def test_the_untrained_network_has_the_first_architecture_and_normalised_input(model: str) -> None:
    data = arrays(3)
    first, untrained = extractors(model, data, "untrained")
    assert isinstance(first, EncoderExtractor) and isinstance(untrained, EncoderExtractor)
    trained, fresh = first.encoder.model, untrained.encoder.model
    assert fresh.config.to_dict() == trained.config.to_dict()
    pixels = torch.from_numpy(np.stack([data.image(number) for number in range(9)]))
    patches = fresh.embeddings.patch_embeddings
    mean, std = untrained.identity["mean"], untrained.identity["std"]
    assert (mean, std) == pytest.approx((pixels.mean().item(), pixels.std().item()), abs=0.01)
    # The network receives 0 for the mean, and 1 for the mean plus one standard deviation.
    torch.manual_seed(0)
    plain = StedFmModel(trained.config).embeddings.patch_embeddings
    for value, seen in ((mean, 0.0), (mean + std, 1.0)):
        torch.testing.assert_close(
            *(
                torch.nn.functional.linear(torch.full((1, plain.weight.shape[1]), level), each.weight, each.bias)
                for level, each in ((value, patches), (seen, plain))
            ),
            atol=1e-4,
            rtol=1e-4,
        )
    again = extractors(model, data, "untrained")[1]
    np.testing.assert_array_equal(compute_features(data, untrained).values, compute_features(data, again).values)


def test_any_vision_model_of_transformers_can_be_compared(model: str, tmp_path: Path) -> None:
    ViTModel(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    ).save_pretrained(tmp_path / "vit")
    data = arrays(2, size=48)
    found = load_extractors([model, str(tmp_path / "vit")], (), data=data, device="cpu")
    assert compute_features(data, found[1]).values.shape == (6, 16) and found[1].name == "vit"


def test_another_process_computes_the_same_features(model: str, tmp_path: Path) -> None:
    ViTModel(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    ).save_pretrained(tmp_path / "vit")
    data = read_labelled(class_folder(tmp_path / "set", {"a": 2, "b": 1}, size=72))["all"]
    names = ("untrained", "histogram", "morphology")
    for extractor in load_extractors([model, str(tmp_path / "vit")], names, data=data, device="cpu"):
        content = pickle.dumps((data.reader, extractor))
        reader, other = pickle.loads(content)
        assert len(content) < 10_000, "only names travel"
        found = list(other.extract(reader(int(row)) for row in data.rows))
        np.testing.assert_array_equal(np.stack(found).astype(np.float32), compute_features(data, extractor).values)


def test_available_and_unavailable_baselines(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = arrays(3)
    found = load_extractors([model], BASELINES, data=data, device="cpu")
    assert [each.key for each in found[1:]] == ["untrained", "histogram", "texture", "pixels", "log-spectrum"]
    notes = capsys.readouterr().err
    assert notes.startswith("stedfm: the baseline imagenet is skipped"), "tests are offline"
    for extractor in found:
        assert np.isfinite(compute_features(data, extractor).values).all()


def test_the_hub_is_queried_once_and_not_for_cached_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, transformers would retry for each model."""
    queried: list[str] = []

    def unreachable(name: str, *, timeout: float) -> None:
        queried.append(name)
        raise httpx2.ConnectError("no route to host")

    monkeypatch.setattr(module, "model_info", unreachable)
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda name, file: None)
    with pytest.raises(UserError, match="not reachable, or has no model some/model"):
        module._check_reachable("some/model")
    assert queried == ["some/model"]
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda name, file: str(tmp_path / file))
    module._check_reachable("some/model")
    assert queried == ["some/model"]


def test_invalid_names_raise_errors(model: str) -> None:
    data = arrays(2)
    with pytest.raises(UserError, match="baseline 'histogramm' is unknown"):
        extractors(model, data, "histogramm")
    with pytest.raises(UserError, match="is named twice"):
        load_extractors([model, model], (), data=data)
    with pytest.raises(UserError, match="no such folder"):
        load_extractors(["./nowhere"], (), data=data)


def test_scaling_is_fitted_on_the_training_images(model: str) -> None:
    rng = np.random.default_rng(0)
    train, query = rng.normal(3, 5, (40, 6)) * np.arange(1, 7), rng.normal(size=(4, 6))
    each, pixels = extractors(model, arrays(2), "pixels")
    scaled, other = prepare_for_probe(train, each, query)
    np.testing.assert_allclose(scaled.std(axis=0), 1)
    np.testing.assert_allclose(other, (query - train.mean(axis=0)) / train.std(axis=0))
    components, _ = prepare_for_probe(train, pixels, query)
    std = components.std(axis=0)
    assert (np.diff(std) < 0).all() and np.sqrt(np.mean(std**2)) == pytest.approx(1)


def test_features_are_cached_in_the_user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDFM_CACHE", str(tmp_path))
    assert features_folder() == tmp_path / "features"
