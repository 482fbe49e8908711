from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from transformers import AutoImageProcessor

from stedfm_hf import StedFmImageProcessor, StedImage
from stedfm_hf.modeling import image_processing_stedfm as module
from stedfm_hf.modeling.image_processing_stedfm import apply_intensity_range, fit_intensity_range

REAL = st.sampled_from(
    ["uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "float32", "float64", ">u2", "bool"]
)


def counts(shape: tuple[int, ...] = (40, 56), high: int = 60000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint16)


@given(REAL.flatmap(lambda dtype: arrays(dtype, st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(5, 20)))))
def test_every_image_becomes_finite_numbers_from_0_to_1(image: np.ndarray) -> None:
    for normalization in ("percentile", "minmax"):
        values = StedFmImageProcessor(normalization=normalization, do_pad=False)(image)["pixel_values"][0]
        grey = len(image) == 3 and (image == image[0]).all()
        assert values.dtype == np.float32 and values.shape == (image[:1] if grey else image).shape
        assert np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1


def test_the_default_is_the_scaling_of_the_pretraining_crops() -> None:
    image = counts()
    low, high = np.quantile(image, [0.001, 0.999])
    expected = np.clip((image - low) / (high - low), 0, 1)
    values = StedFmImageProcessor().prepare(image)[0]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_differences_below_the_8_bit_step_survive() -> None:
    image = counts()
    other = image.copy()
    other[10, 10] ^= 1
    processor = StedFmImageProcessor(normalization="none")
    assert (processor.prepare(image) != processor.prepare(other)).sum() == 1


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[0, 255]], dtype=np.uint8), [0, 1]),
        (np.array([[0, 65535]], dtype=np.uint16), [0, 1]),
        (np.array([[-5, 32767]], dtype=np.int16), [0, 1]),
        (np.array([[-0.5, 1.5]], dtype=np.float32), [-0.5, 1.5]),
    ],
)
def test_none_divides_integers_by_their_largest_value_and_leaves_floats(
    image: np.ndarray, expected: list[float]
) -> None:
    assert StedFmImageProcessor(normalization="none").prepare(image).ravel().tolist() == expected


def test_fixed_keeps_brightness_comparable() -> None:
    processor = StedFmImageProcessor(normalization="fixed", intensity_range=(100, 300))
    assert processor.prepare(np.array([[0, 150, 200, 400]], dtype=np.uint16)).ravel().tolist() == [0, 0.25, 0.5, 1]
    channels = StedFmImageProcessor(normalization="fixed", intensity_range=[[0, 10], [0, 20]])
    assert channels.prepare(np.full((2, 1, 1), 5)).ravel().tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.full((4, 4), 7, dtype=np.uint16), 0.0),
        (np.full((4, 4), np.nan), 0.0),
        (np.full((4, 4), np.inf), 0.0),
        (np.full((4, 4), 65535, dtype=np.uint16), 0.0),
    ],
)
def test_an_image_without_contrast_is_zero(image: np.ndarray, expected: float) -> None:
    assert (StedFmImageProcessor().prepare(image) == expected).all()


def test_what_is_not_finite_is_left_out_of_the_fit() -> None:
    image = np.array([[0.0, 1.0, 2.0, np.nan, np.inf, -np.inf]])
    assert StedFmImageProcessor(normalization="minmax").prepare(image).ravel().tolist() == [0, 0.5, 1, 0, 1, 0]


@given(
    REAL.flatmap(lambda dtype: arrays(dtype, st.tuples(st.just(1), st.integers(1, 20), st.integers(1, 20)))),
    st.tuples(*[st.floats(0, 100)] * 2).map(sorted),
    st.integers(1, 50),
)
def test_a_large_image_is_scaled_in_parts_by_the_same_percentiles(
    image: np.ndarray, percentiles: list[float], at_once: int
) -> None:
    image = image.astype(np.uint8) if image.dtype == bool else image
    with np.errstate(all="ignore"):
        whole = fit_intensity_range(image, percentiles=percentiles)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_AT_ONCE", at_once)
            parts = fit_intensity_range(image, percentiles=percentiles)
    np.testing.assert_array_equal(parts, whole)


def test_a_sparse_image_keeps_its_contrast() -> None:
    image = np.zeros((200, 200), dtype=np.uint16)
    image[50, 50] = 9
    assert StedFmImageProcessor().prepare(image)[0, 50, 50] == 1


@pytest.mark.parametrize(
    "image",
    [
        counts(),
        counts()[None],
        counts()[:, :, None],
        torch.from_numpy(counts().astype(np.int32)),
        Image.fromarray(counts()),
        Image.fromarray(counts().astype(np.int32)),
        Image.fromarray(counts().astype(np.float32)),
        StedImage(array=counts()[None], pixel_size_nm=None, channel_names=("0",), metadata={}, source="x", series="0"),
    ],
    ids=["2-D", "3-D", "channels last", "tensor", "I;16", "I", "F", "StedImage"],
)
def test_all_kinds_of_16_bit_input_agree(image: Any) -> None:
    expected = StedFmImageProcessor()(counts(), return_tensors="pt")["pixel_values"]
    values = StedFmImageProcessor()(image, return_tensors="pt")["pixel_values"]
    assert values.shape == (1, 1, 48, 64) and torch.equal(values, expected)


def test_8_bit_and_colour_pictures() -> None:
    grey = (counts() // 257).astype(np.uint8)
    expected = StedFmImageProcessor().prepare(grey)
    assert np.array_equal(StedFmImageProcessor().prepare(Image.fromarray(grey)), expected)
    assert np.array_equal(StedFmImageProcessor().prepare(Image.fromarray(grey).convert("RGB")), expected)
    colour = np.stack([grey, grey // 2, grey // 3], axis=-1)
    assert StedFmImageProcessor().prepare(Image.fromarray(colour)).shape == (3, 40, 56)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, lambda planes: np.stack([planes] * 2)])
@pytest.mark.parametrize("axis", [0, -1])
def test_three_equal_planes_are_one_channel_in_every_axis_order(convert: Any, axis: int) -> None:
    grey = counts().astype(np.int32)
    values = StedFmImageProcessor()(convert(np.stack([grey] * 3, axis=axis)), return_tensors="pt")["pixel_values"]
    assert torch.equal(values[:1], StedFmImageProcessor()(grey, return_tensors="pt")["pixel_values"])
    with_channel = StedFmImageProcessor(channel=2).prepare(np.stack([grey] * 3, axis=axis))
    assert np.array_equal(with_channel, StedFmImageProcessor().prepare(grey))


def test_channels_of_an_acquisition_are_kept_where_they_are_equal() -> None:
    planes = np.zeros((3, 32, 32), np.uint16)
    image = StedImage(planes, pixel_size_nm=None, channel_names=("a", "b", "c"), metadata={}, source="x", series="0")
    assert StedFmImageProcessor().prepare(image).shape == (3, 32, 32)


def test_batches_and_lists() -> None:
    batch = counts((3, 2, 32, 32))
    expected = StedFmImageProcessor()(batch, return_tensors="pt")["pixel_values"]
    assert expected.shape == (3, 2, 32, 32)
    assert torch.equal(StedFmImageProcessor()(list(batch), return_tensors="pt")["pixel_values"], expected)
    mixed = StedFmImageProcessor()([counts((16, 16)), counts((20, 16))])["pixel_values"]
    assert [image.shape for image in mixed] == [(1, 16, 16), (1, 32, 16)]
    with pytest.raises(ValueError, match="different sizes"):
        StedFmImageProcessor()([counts((16, 16)), counts((20, 16))], return_tensors="pt")


def test_channels_are_scaled_for_themselves_and_chosen() -> None:
    image = np.stack([counts(high=50), counts(seed=1)])
    both, second = StedFmImageProcessor().prepare(image), StedFmImageProcessor(channel=1).prepare(image)
    assert both[0].max() == 1 and np.array_equal(both[1:], second)
    with pytest.raises(ValueError, match="no channel 2: the image has 2"):
        StedFmImageProcessor().prepare(image, channel=2)


def test_padding_mirrors_and_keeps_the_image() -> None:
    values = StedFmImageProcessor()(counts(), return_tensors="np")["pixel_values"][0]
    assert np.array_equal(values[:, :40, :56], StedFmImageProcessor().prepare(counts()))
    assert np.array_equal(values[:, 40:], values[:, 32:40][:, ::-1])
    assert StedFmImageProcessor()(counts((1, 1)), return_tensors="np")["pixel_values"].shape == (1, 1, 16, 16)
    assert StedFmImageProcessor(do_pad=False)(counts())["pixel_values"][0].shape == (1, 40, 56)


def test_resampling_to_a_pixel_size() -> None:
    processor = StedFmImageProcessor(target_pixel_size_nm=20, normalization="none")
    ramp = np.linspace(0, 1, 40, dtype=np.float32)[None].repeat(30, axis=0)
    values = processor.prepare(ramp, pixel_size_nm=(40, 10))
    assert values.shape == (1, 60, 20)
    assert len(np.unique(values[0, 5])) == 20 and abs(values.mean() - 0.5) < 1e-6
    with pytest.raises(ValueError, match="needs the pixel size"):
        processor.prepare(ramp)
    sized = StedImage(ramp[None], (20.0, 20.0), ("0",), {}, "x", "0")
    assert processor.prepare(sized).shape == (1, 30, 40)


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", counts())
    values = StedFmImageProcessor()(str(tmp_path / "image.npy"), return_tensors="pt")["pixel_values"]
    assert torch.equal(values, StedFmImageProcessor()(counts(), return_tensors="pt")["pixel_values"])


def test_settings_are_saved_and_can_be_changed_per_call(tmp_path: Path) -> None:
    settings = {
        "normalization": "fixed",
        "intensity_range": [0.0, 500.0],
        "percentiles": [1, 99],
        "channel": 0,
        "target_pixel_size_nm": 25,
        "patch_size": 8,
    }
    StedFmImageProcessor(**settings).save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in settings} == settings
    changed = loaded.prepare(counts(), normalization="none", pixel_size_nm=25)
    assert np.array_equal(changed, StedFmImageProcessor(normalization="none").prepare(counts()))


@pytest.mark.parametrize(
    ("image", "settings", "message"),
    [
        (np.zeros((0, 4)), {}, "no pixels"),
        (np.zeros((2, 2, 2, 2, 2)), {}, "shape"),
        (np.zeros((4, 4), dtype=complex), {}, "real numbers"),
        (np.array([["a"]]), {}, "real numbers"),
        (counts(), {"normalization": "best"}, "percentile, minmax, fixed, none"),
        (counts(), {"normalization": "fixed"}, "intensity_range"),
        (counts(), {"normalization": "fixed", "intensity_range": (3, 3)}, "low < high"),
        (counts(), {"size": 3}, "unknown setting size"),
        (counts(), {"patch_size": "big"}, "patch_size"),
    ],
)
def test_mistakes_are_named(image: np.ndarray, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        StedFmImageProcessor()(image, **settings)


@pytest.mark.parametrize(("images", "message"), [([], "there is no image"), ([None], "an image is None")])
def test_missing_images_are_refused(images: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StedFmImageProcessor()(images, return_tensors="pt")


def test_an_unknown_normalization_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="normalization must be one of"):
        StedFmImageProcessor(normalization="best")


def test_members_that_scripts_of_transformers_read(tmp_path: Path) -> None:
    StedFmImageProcessor(size=64, do_reduce_labels=True).save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert processor.size == {"height": 64, "width": 64} and processor.do_reduce_labels
    assert processor.image_mean == (0.0,) and processor.image_std == (1.0,)
    with pytest.raises(ValueError, match="size must be"):
        StedFmImageProcessor(size={"shortest_edge": 64})


@pytest.mark.parametrize("settings", [{"do_resize": True}, {"image_mean": [0.5]}, {"normalisation": "minmax"}])
def test_settings_of_other_processors_are_refused_by_name(settings: dict[str, Any], tmp_path: Path) -> None:
    (name,) = settings
    StedFmImageProcessor().save_pretrained(tmp_path)
    for refused in (
        lambda: StedFmImageProcessor(**settings),
        lambda: AutoImageProcessor.from_pretrained(tmp_path, **settings),
        lambda: StedFmImageProcessor()(counts(), **settings),
    ):
        with pytest.raises(TypeError, match=f"unknown setting {name}"):
            refused()
    with pytest.raises(TypeError, match="unknown setting size"):
        StedFmImageProcessor()(counts(), size=32)
    StedFmImageProcessor(do_resize=False, data_format="channels_first")(counts(), do_normalize=None)
    with pytest.raises(ValueError, match="input_data_format must be one of"):
        StedFmImageProcessor()(counts(), input_data_format="last")


def test_segmentation_maps_become_labels() -> None:
    classes = np.random.default_rng(0).integers(0, 4, (40, 56))
    found = StedFmImageProcessor()([counts(), counts()], [classes, Image.fromarray(classes.astype(np.uint8))])
    for labels in found["labels"]:
        assert np.array_equal(labels[:40, :56], classes) and (labels[40:] == 255).all() and labels.shape == (48, 64)
    reduced = StedFmImageProcessor(do_reduce_labels=True)(counts(), classes, return_tensors="pt")["labels"]
    assert reduced.shape == (1, 48, 64) and reduced.dtype == torch.int64
    assert np.array_equal(reduced[0, :40, :56], np.where(classes == 0, 255, classes - 1))
    resampled = StedFmImageProcessor(target_pixel_size_nm=20, pixel_size_nm=40, do_pad=False)(counts(), classes)
    assert np.array_equal(resampled["labels"][0], classes.repeat(2, 0).repeat(2, 1))
    for wrong, message in ((classes[:30], "for an image of"), (classes[None, None], "holds class indices")):
        with pytest.raises(ValueError, match=message):
            StedFmImageProcessor()(counts(), wrong)
    with pytest.raises(ValueError, match="1 segmentation maps for 2 images"):
        StedFmImageProcessor()([counts(), counts()], classes)


@pytest.mark.parametrize(("factor", "size"), [(1, (48, 64)), (0.5, (32, 32))])
def test_class_maps_have_the_size_of_the_images(factor: float, size: tuple[int, int]) -> None:
    logits = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    processor = StedFmImageProcessor(**({} if factor == 1 else {"target_pixel_size_nm": 40}))
    (found,) = processor.post_process_semantic_segmentation(
        SimpleNamespace(logits=logits), torch.tensor([[40, 56]]), pixel_size_nm=40 * factor
    )
    assert found.shape == (40, 56) and found.dtype == torch.int64
    if factor == 1:
        assert torch.equal(found, logits[0, :, :40, :56].argmax(0))
    else:  # resampled to 20 x 28 pixels, then padded
        inner = torch.nn.functional.interpolate(logits[:, :, :20, :28], size=(40, 56), mode="bilinear")
        assert torch.equal(found, inner[0].argmax(0))
    assert processor.post_process_semantic_segmentation(SimpleNamespace(logits=logits))[0].shape == size


def test_class_maps_of_other_images_are_resized() -> None:
    output = SimpleNamespace(logits=torch.rand(2, 3, 32, 32))
    maps = StedFmImageProcessor().post_process_semantic_segmentation(output, [(100, 50), (16, 16)])
    assert [map.shape for map in maps] == [(100, 50), (16, 16)]
    with pytest.raises(ValueError, match="1 target_sizes for 2 images"):
        StedFmImageProcessor().post_process_semantic_segmentation(output, [(100, 50)])
    with pytest.raises(ValueError, match="pixel_size_nm"):
        StedFmImageProcessor(target_pixel_size_nm=40).post_process_semantic_segmentation(output, [(9, 9), (9, 9)])


@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_scaling_of_a_large_image_copies_blocks_of_rows_only(dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 60000, (1, 4096, 4100)).astype(dtype)
    limits = np.array([[100.0, 50000.0]])
    tracemalloc.start()
    scaled = apply_intensity_range(array, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - scaled.nbytes < array.size * 3
    np.testing.assert_allclose(scaled, np.clip((array - 100.0) / 49900.0, 0, 1), rtol=0, atol=1e-6)
