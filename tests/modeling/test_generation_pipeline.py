from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers.models.unets.unet_2d import UNet2DOutput

from stedfm_hf import StedFmUNet
from stedfm_hf.modeling.conditioning_stedfm import fingerprint
from tests.generation_models import SIZE, reference_scheduler, seeded, tiny_encoder, tiny_pipeline, tiny_unet

SCHEDULERS = [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler]
EMBEDDINGS = torch.linspace(-1, 1, 96).reshape(3, 32)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_image_does_not_depend_on_its_batch(pipeline: Any, scheduler: Any) -> None:
    """Batches change the rounding of convolutions in float32, and nothing else."""
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    together = pipeline(embeddings=EMBEDDINGS, num_inference_steps=6, generator=seeded(5, 6, 7), eta=0.5).images
    for number in range(3):
        alone = pipeline(
            embeddings=EMBEDDINGS[number], num_inference_steps=6, generator=seeded(5 + number), eta=0.5
        ).images
        np.testing.assert_allclose(alone[0], together[number], atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.01
    assert together.dtype == np.float32 and together.min() >= 0 and together.max() <= 1


def test_one_generator_seeds_the_images_in_their_order(pipeline: Any) -> None:
    def images(count: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(1)
        return pipeline(embeddings=EMBEDDINGS[:count], num_inference_steps=2, generator=generator).images

    np.testing.assert_allclose(images(1)[0], images(3)[0], atol=1e-5)
    assert not np.array_equal(images(2), pipeline(embeddings=EMBEDDINGS[:2], num_inference_steps=2).images)


def test_inputs_and_outputs_of_all_kinds(pipeline: Any) -> None:
    image = np.random.default_rng(0).integers(0, 60000, (SIZE, SIZE), dtype=np.uint16)
    call: dict[str, Any] = {"num_inference_steps": 2}
    from_image = pipeline([image], generator=seeded(0, 1), num_images_per_embedding=2, **call).images
    embeddings = pipeline.embed(image)
    assert embeddings.shape == (1, 32) and embeddings.dtype == torch.float32
    twice = embeddings.repeat(2, 1).numpy()
    assert np.array_equal(from_image, pipeline(embeddings=twice, generator=seeded(0, 1), **call).images)
    tensor = pipeline(image, output_type="pt", generator=seeded(0), height=24, width=32, **call).images
    assert tensor.shape == (1, 1, 24, 32)
    (pictures,) = pipeline(image, output_type="pil", generator=seeded(0), return_dict=False, **call)
    np.testing.assert_allclose(np.asarray(pictures[0]) / 65535, from_image[0], atol=1e-4)
    np.testing.assert_array_equal(pipeline.embed(from_image), pipeline.embed(list(from_image)))
    shared = pipeline(embeddings=EMBEDDINGS, latents=torch.zeros(1, 1, SIZE, SIZE), generator=seeded(1, 2, 3), **call)
    assert shared.images.shape == (3, SIZE, SIZE)


def test_a_callback_can_change_the_latents(pipeline: Any) -> None:
    def stop(pipeline: Any, step: int, timestep: torch.Tensor, values: dict[str, Any]) -> dict[str, Any]:
        return {"latents": torch.zeros_like(values["latents"])}

    images = pipeline(embeddings=EMBEDDINGS[:1], num_inference_steps=2, callback_on_step_end=stop).images
    assert np.allclose(images, 0.5)


def test_classes_by_index_and_name() -> None:
    unet = tiny_unet(condition_dim=None, num_classes=3)
    pipeline = tiny_pipeline(False, unet, id2label={0: "f-actin", 1: "psd95", 2: "tubulin"})
    call: dict[str, Any] = {"num_inference_steps": 2, "generator": seeded(0)}
    by_name = pipeline(class_labels="tubulin", **call).images
    assert np.array_equal(by_name, pipeline(class_labels=[2], num_inference_steps=2, generator=seeded(0)).images)
    assert pipeline(class_labels=torch.tensor([0, 1]), num_inference_steps=2).images.shape == (2, SIZE, SIZE)
    for label, message in ((3, "no class 3: classes are numbered from 0 to 2"), ("actin", "no class 'actin': there")):
        with pytest.raises(ValueError, match=message):
            pipeline(class_labels=label)
    with pytest.raises(ValueError, match="give class_labels"):
        pipeline(embeddings=EMBEDDINGS)
    with pytest.raises(ValueError, match="needs a condition: give class_labels"):
        pipeline()
    with pytest.raises(ValueError, match="no encoder"):
        pipeline(np.zeros((SIZE, SIZE)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a condition: give images or embeddings"),
        ({"images": np.zeros((16, 16)), "embeddings": EMBEDDINGS}, "images or embeddings, not both"),
        ({"embeddings": torch.zeros(2, 31)}, r"embeddings must be \(batch, 32\), got \(2, 31\)"),
        ({"embeddings": torch.full((1, 32), torch.nan)}, "embeddings must be finite"),
        ({"embeddings": EMBEDDINGS, "class_labels": 1}, "not conditioned on classes"),
        (
            {"embeddings": EMBEDDINGS, "num_inference_steps": 1001},
            "from 1 to 1000, the steps of the training; got 1001",
        ),
        ({"embeddings": EMBEDDINGS, "num_inference_steps": 0}, "from 1 to 1000"),
        ({"embeddings": EMBEDDINGS, "height": 17}, "multiples of 2 pixels, got 17x16"),
        ({"embeddings": EMBEDDINGS, "width": 0}, "multiples of 2"),
        ({"embeddings": EMBEDDINGS, "latents": torch.zeros(2, 1, 16, 16)}, r"latents must be \(3, 1, 16, 16\)"),
        ({"embeddings": EMBEDDINGS, "latents": torch.full((1, 1, 16, 16), torch.nan)}, "latents must be finite"),
        ({"embeddings": EMBEDDINGS, "guidance_scale": 2.0}, "trained with condition dropout"),
        ({"embeddings": EMBEDDINGS, "generator": seeded(1)}, "1 generators for 3 images"),
        ({"embeddings": EMBEDDINGS, "output_type": "numpy"}, "output_type must be np, pt or pil"),
    ],
)
def test_wrong_arguments_are_explained(pipeline: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(**arguments)


def test_schedulers_that_scale_the_noise_are_refused() -> None:
    pipeline = tiny_pipeline(scheduler=EulerDiscreteScheduler())
    with pytest.raises(ValueError, match="EulerDiscreteScheduler is not supported"):
        pipeline(embeddings=EMBEDDINGS)


class DenoisingUNet(StedFmUNet):
    """A network that denoises as a trained one does: the optimum for white images, and a little of its own."""

    prediction_type = "epsilon"

    def forward(self, sample: torch.Tensor, timestep: Any, *arguments: Any, **named: Any) -> Any:
        alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[int(timestep)]
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        clean = signal * sample / (alpha_bar + (1 - alpha_bar) / 0.3)
        clean = clean + 0.03 * super().forward(sample, timestep, *arguments, **{**named, "return_dict": False})[0]
        epsilon = (sample - signal * clean) / noise
        return UNet2DOutput(epsilon if self.prediction_type == "epsilon" else signal * epsilon - noise * clean)


@pytest.mark.parametrize("prediction_type", ["epsilon", pytest.param("v_prediction", marks=pytest.mark.slow)])
def test_an_inverted_image_comes_back(prediction_type: str) -> None:
    unet = DenoisingUNet(**tiny_unet().config)
    unet.prediction_type = prediction_type
    scheduler = DDPMScheduler.from_config(reference_scheduler().config, prediction_type=prediction_type)
    pipeline = tiny_pipeline(unet=unet, scheduler=scheduler, clip_sample_range=(-20.0, 20.0))
    image = np.random.default_rng(0).random((2, SIZE, SIZE)).astype(np.float32)
    errors = {
        iterations: pipeline.invert(
            image, num_inference_steps=20, max_iterations=iterations, normalization="none"
        ).error.max()
        for iterations in (1, 20)
    }
    assert errors[20] < errors[1] / 10 and errors[20] < 2e-3
    inverted = pipeline.invert(image, num_inference_steps=20, normalization="none")
    np.testing.assert_allclose(inverted.images, image, atol=1e-6)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    again = pipeline(embeddings=inverted.embeddings, latents=inverted.latents, num_inference_steps=20).images
    np.testing.assert_allclose(again, inverted.reconstruction, atol=1e-5)
    np.testing.assert_allclose(again, image, atol=0.01)


def test_an_inversion_does_not_depend_on_its_batch() -> None:
    pipeline = tiny_pipeline(clip_sample_range=(-20.0, 20.0))
    with torch.no_grad():
        pipeline.unet.conv_out.weight *= 0.1
    images = np.random.default_rng(0).random((2, SIZE, SIZE)).astype(np.float32)
    images[1] /= 8  # takes another number of iterations
    together = pipeline.invert(images, num_inference_steps=6, normalization="none").latents
    for number in range(2):
        alone = pipeline.invert(images[number], num_inference_steps=6, normalization="none").latents
        torch.testing.assert_close(alone[0], together[number], rtol=0, atol=1e-4)


def test_another_encoder_is_refused() -> None:
    pipeline = tiny_pipeline()
    saved = pipeline.config.encoder_fingerprint
    assert saved == fingerprint(tiny_encoder())
    tiny_pipeline(encoder_fingerprint=saved)
    with pytest.raises(ValueError, match="not that with which the network was trained"):
        tiny_pipeline(encoder_fingerprint=fingerprint(tiny_encoder(seed=1)))
    pipeline.encoder = tiny_encoder(seed=1)
    with pytest.raises(ValueError, match="not that with which the network was trained"):
        pipeline.embed(np.zeros((SIZE, SIZE)))
    with pytest.raises(ValueError, match="embeddings of length 32, but the network takes 31"):
        tiny_pipeline(unet=tiny_unet(condition_dim=31))


def test_an_encoder_in_half_precision_is_the_same() -> None:
    assert tiny_pipeline().to(torch.bfloat16).embed(np.ones((SIZE, SIZE))).dtype == torch.float32
    half = tiny_pipeline()
    half.encoder = tiny_encoder().to(torch.bfloat16)
    half.embed(np.eye(SIZE))


def test_half_precision_samples_in_float32(pipeline: Any) -> None:
    half = tiny_pipeline().to(torch.bfloat16)
    images = half(embeddings=EMBEDDINGS, num_inference_steps=2, generator=seeded(1, 2, 3)).images
    full = pipeline(embeddings=EMBEDDINGS, num_inference_steps=2, generator=seeded(1, 2, 3)).images
    assert images.dtype == np.float32 and np.abs(images - full).mean() < 0.05
