"""Pipeline that generates images from embeddings, images or classes, and inverts images to their noise."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ImagePipelineOutput
from huggingface_hub import snapshot_download

from .conditioning_stedfm import check_embeddings, check_encoder, class_indices
from .pipeline_folder_stedfm import complete_pipeline_folder, is_in_package, refuse_pickles, use_package_classes
from .sampling_stedfm import (
    PREDICTION_TYPES,
    clean_image,
    clip_prediction,
    previous_signal_and_noise,
    sample_noise,
    signal_and_noise,
    split_generator,
)

try:
    from PIL import Image
except ImportError:  # Pillow is optional here; a checker does not know a module that may be None
    Image = None  # type: ignore[assignment]

_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "token")


@dataclass(frozen=True)
class Inversion:
    """Noise from which `StedFmGenerationPipeline` generates given images.

    Attributes:
        latents: (B, C, H, W) noise; with a `DDIMScheduler`, the same conditions and the same number of steps, the
            pipeline returns the images.
        embeddings: (B, D) embeddings of the images, or None.
        class_labels: (B,) classes of the images, or None.
        images: (B, H, W) float32 in [0, 1], the images as they were inverted, scaled by the image processor.
        reconstruction: (B, H, W) float32 in [0, 1], generated from the noise.
        error: (B,) root mean squared difference of image and reconstruction.
        num_inference_steps: Number of steps of the scheduler.
    """

    latents: torch.Tensor
    embeddings: torch.Tensor | None
    class_labels: torch.Tensor | None
    images: np.ndarray
    reconstruction: np.ndarray
    error: np.ndarray
    num_inference_steps: int


class StedFmGenerationPipeline(DiffusionPipeline):
    """Diffusion model that generates STED images from embeddings of STED-FM, from images or from classes.

    Args:
        unet: Denoising network, a `StedFmUNet`.
        scheduler: `DDPMScheduler`, `DDIMScheduler` or `DPMSolverMultistepScheduler` of diffusers; another one takes
            its place with `pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)`.
        encoder: `StedFmModel` whose embeddings condition the network; None for a network that takes classes.
        image_processor: `StedFmImageProcessor` of the encoder.
        value_range: Values of the network for intensities 0 and 1. The reference trains with (0, 1).
        clip_sample_range: Lowest and highest value of the clean image that is estimated in every step; None for
            `value_range`. The reference has (-1, 1).
        encoder_fingerprint: Fingerprint of the encoder of the training (`fingerprint`); another encoder is refused.
            None computes it.
        condition_dropout: Fraction of the training images whose condition was left out; `guidance_scale` needs some.
        id2label: Names of the classes by their indices.

    Example:
    ```python
    >>> import torch
    >>> from diffusers import DDIMScheduler
    >>> from stedfm_hf import StedFmGenerationPipeline, StedFmUNet
    >>> unet = StedFmUNet(sample_size=32, base_channels=8, condition_dim=16)
    >>> pipeline = StedFmGenerationPipeline(unet, DDIMScheduler())
    >>> pipeline.set_progress_bar_config(disable=True)
    >>> generator = torch.Generator().manual_seed(0)
    >>> images = pipeline(embeddings=torch.randn(2, 16), num_inference_steps=3, generator=generator).images
    >>> images.shape, images.dtype
    ((2, 32, 32), dtype('float32'))

    ```
    """

    model_cpu_offload_seq = "encoder->unet"
    _optional_components = ["encoder", "image_processor"]

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        encoder: Any = None,
        image_processor: Any = None,
        value_range: list[float] | tuple[float, float] = (-1.0, 1.0),
        clip_sample_range: list[float] | tuple[float, float] | None = None,
        encoder_fingerprint: str | None = None,
        condition_dropout: float = 0.0,
        id2label: dict[Any, str] | None = None,
    ) -> None:
        super().__init__()
        if (encoder is None) != (image_processor is None):
            raise ValueError("encoder and image_processor belong together: give both or none")
        if encoder is not None:
            encoder.eval()
            encoder_fingerprint = check_encoder(encoder, encoder_fingerprint, unet.config.condition_dim)
        self.register_modules(unet=unet, scheduler=scheduler, encoder=encoder, image_processor=image_processor)
        self.register_to_config(
            value_range=[float(each) for each in value_range],
            clip_sample_range=None if clip_sample_range is None else [float(each) for each in clip_sample_range],
            encoder_fingerprint=encoder_fingerprint,
            condition_dropout=float(condition_dropout),
            id2label=None
            if id2label is None
            else {str(index): id2label[index] for index in sorted(id2label, key=int)},
        )
        self._checked_encoder = encoder

    @torch.no_grad()
    def __call__(
        self,
        images: Any = None,
        embeddings: Any = None,
        class_labels: Any = None,
        *,
        num_images_per_embedding: int = 1,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        eta: float = 0.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "np",
        height: int | None = None,
        width: int | None = None,
        return_dict: bool = True,
        callback_on_step_end: Callable[..., Mapping[str, Any] | None] | None = None,
    ) -> Any:
        """Generate images.

        The image of one seed does not depend on the batch, up to the rounding of float32, which batches change.

        Args:
            images: Images whose embeddings condition the network: an array (B, H, W), or what the image processor
                takes.
            embeddings: (B, D) embeddings, or (D,) for one; instead of `images`.
            class_labels: Classes, by index or name, one or a list of B.
            num_images_per_embedding: Number of images for every embedding or class; they follow each other.
            num_inference_steps: Number of steps, at most those of the training.
            guidance_scale: Factor of the difference between the predictions with and without a condition; 1 needs no
                prediction without, and others need a network that was trained with `condition_dropout`.
            eta: Amount of noise in each step of a `DDIMScheduler`, from 0 to 1.
            generator: One generator, or a list with one for each image (`split_generator`).
            latents: (B, C, H, W) noise to start from, such as that of `invert`; one for all images, or one for each.
            output_type: `"np"`: (B, H, W) float32 in [0, 1], not quantised; (B, C, H, W) for several channels.
                `"pt"`: tensor (B, C, H, W). `"pil"`: 16-bit images.
            height: Height of the images in pixels; by default that of the training.
            width: Width of the images in pixels; by default that of the training.
            return_dict: Whether to return `images` as the attribute of an object, or in a tuple.
            callback_on_step_end: Function that is called as `callback(pipeline, step, timestep, {"latents": ...})`
                after each step; it can return a dictionary with other latents.

        Returns:
            Object with the attribute `images`.

        Raises:
            ValueError: If conditions are missing, of another network or not finite, a size does not fit, there are
                more steps than in the training, or guidance is impossible.
        """
        if output_type not in ("np", "pt", "pil"):
            raise ValueError(f"output_type must be np, pt or pil, got {output_type!r}")
        if guidance_scale != 1 and not self.config.condition_dropout:
            raise ValueError(
                f"guidance_scale={guidance_scale} needs a network that was trained with condition dropout, which this "
                "one was not; leave it at 1"
            )
        embeddings, class_labels = self._conditions(images, embeddings, class_labels)
        embeddings, class_labels = (
            None if each is None else each.repeat_interleave(num_images_per_embedding, dim=0)
            for each in (embeddings, class_labels)
        )
        known = next((len(each) for each in (embeddings, class_labels, latents) if each is not None), 1)
        generators = split_generator(generator, known)
        sample = self._start(latents, known, height, width, generators)
        sample = self._denoise(
            self.scheduler,
            sample,
            {"condition": embeddings, "class_labels": class_labels},
            num_inference_steps,
            guidance_scale=guidance_scale,
            callback=callback_on_step_end,
            eta=eta,
            generator=generators,
        )
        self.maybe_free_model_hooks()
        result = self._images(sample, output_type)
        return ImagePipelineOutput(images=result) if return_dict else (result,)

    @torch.no_grad()
    def embed(self, images: Any, **settings: Any) -> torch.Tensor:
        """Embed images with the encoder of the pipeline.

        Args:
            images: Array (B, H, W), or what the image processor takes.
            settings: Settings of the image processor, such as `normalization="none"` for images in [0, 1].

        Returns:
            (B, D) float32.

        Raises:
            ValueError: If the pipeline has no encoder, or it is not that of the training.
        """
        return self._embed(self._pixels(images, settings))

    @torch.no_grad()
    def invert(
        self,
        images: Any,
        embeddings: Any = None,
        class_labels: Any = None,
        *,
        num_inference_steps: int = 50,
        max_iterations: int = 10,
        tolerance: float = 1e-3,
        **settings: Any,
    ) -> Inversion:
        """Find the noise from which a `DDIMScheduler` generates given images.

        Each step of DDIM is inverted by a fixed-point iteration: the prediction at the noisy image that is sought is
        replaced by that at the last estimate.

        Args:
            images: Array (B, H, W), or what the image processor takes; their size is that of the result.
            embeddings: (B, D) conditions; by default the embeddings of the images.
            class_labels: Classes, by index or name, for a network that takes them.
            num_inference_steps: Number of steps.
            max_iterations: Largest number of predictions for each step; 1 is the plain DDIM inversion.
            tolerance: Root mean squared change of an image, in values of the network, at which its iteration ends.
            settings: Settings of the image processor, such as `normalization="none"` for images in [0, 1].

        Raises:
            ValueError: As calling the pipeline does.

        Source:
            Song et al., "Denoising Diffusion Implicit Models", 2021; iteration: Pan et al., "Effective Real Image
            Editing with Accelerated Iterative Diffusion Inversion", 2023.
        """
        pixels = self._pixels(images, settings)
        if embeddings is None and self.encoder is not None:
            embeddings = self._embed(pixels)
        embeddings, class_labels = self._conditions(None, embeddings, class_labels)
        conditions = {"condition": embeddings, "class_labels": class_labels}
        scheduler = DDIMScheduler.from_config(self.scheduler.config)
        low, high = self.config.value_range
        start = self._start(low + (high - low) * pixels, len(pixels), None, None, [])
        self._set_timesteps(scheduler, num_inference_steps)
        sample = start
        steps = list(enumerate(scheduler.timesteps))
        for index, timestep in self.progress_bar(reversed(steps)):
            signal, noise = signal_and_noise(scheduler, index, timestep)
            previous_signal, previous_noise = previous_signal_and_noise(scheduler, timestep)
            less_noisy = sample
            active = torch.ones(len(sample), 1, 1, 1, dtype=torch.bool, device=sample.device)
            for _ in range(max_iterations):
                output = self._predict(scheduler, index, timestep, sample, conditions)
                clean = clean_image(output, sample, signal, noise, scheduler.config.prediction_type)
                # The image or the noise of the prediction is kept, and the other follows from the less noisy image:
                # at high noise that hardly tells the image, and at low noise hardly the noise.
                if previous_signal < previous_noise:
                    direction = (less_noisy - previous_signal * clean) / previous_noise
                else:
                    direction = (sample - signal * clean) / noise
                    clean = (less_noisy - previous_noise * direction) / previous_signal
                found = signal * clean + noise * direction
                change = (found - sample).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
                sample = torch.where(active, found, sample)
                active = active & (change > tolerance)  # each image by itself: the batch must not matter
                if not active.any():
                    break
        again = self._denoise(scheduler, sample, conditions, num_inference_steps)
        images, reconstruction = self._images(start, "np"), self._images(again, "np")
        error = np.sqrt(np.square(images - reconstruction).reshape(len(images), -1).mean(axis=1))
        return Inversion(sample, embeddings, class_labels, images, reconstruction, error, num_inference_steps)

    def _pixels(self, images: Any, settings: Mapping[str, Any]) -> torch.Tensor:
        """Return images (B, C, H, W) in [0, 1], on the device of the pipeline."""
        if self.image_processor is None or self.encoder is None:
            raise ValueError("the pipeline has no encoder: give embeddings or class_labels instead of images")
        if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 3 and images.shape[2] > 4:
            images = list(images)  # such as the result of this pipeline; it generates images of one channel
        pixels = self.image_processor(images, return_tensors="pt", **settings)["pixel_values"]
        return pixels.to(self._execution_device)

    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.encoder is not self._checked_encoder:
            check_encoder(self.encoder, self.config.encoder_fingerprint, self.unet.config.condition_dim)
            self._checked_encoder = self.encoder
        return self.encoder(pixel_values=pixels.to(self.encoder.dtype)).pooler_output.float()

    def _conditions(
        self, images: Any, embeddings: Any, class_labels: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return checked embeddings (B, D) and class indices (B,), each None if the network does not take them."""
        config, device = self.unet.config, self._execution_device
        if images is not None:
            if embeddings is not None:
                raise ValueError("give images or embeddings, not both")
            embeddings = self.embed(images)
        if embeddings is not None:
            embeddings = check_embeddings(embeddings, config.condition_dim).to(device)
        if class_labels is not None:
            class_labels = class_indices(class_labels, config.num_classes, self.config.id2label).to(device)
        if embeddings is None and class_labels is None:
            needed = {"images or embeddings": config.condition_dim, "class_labels": config.num_classes}
            names = [name for name, size in needed.items() if size is not None]
            if names:
                raise ValueError(f"the network needs a condition: give {' or '.join(names)}")
        if embeddings is not None and class_labels is not None and len(embeddings) != len(class_labels):
            raise ValueError(f"{len(embeddings)} embeddings, but {len(class_labels)} class_labels")
        return embeddings, class_labels

    def _start(
        self,
        latents: torch.Tensor | None,
        batch_size: int,
        height: int | None,
        width: int | None,
        generators: Sequence[torch.Generator],
    ) -> torch.Tensor:
        """Return the noise (B, C, H, W) to start from: checked `latents`, or new noise."""
        config, multiple = self.unet.config, self.unet.size_multiple
        dtype = torch.float64 if self.unet.dtype == torch.float64 else torch.float32
        size = (config.sample_size, config.sample_size) if latents is None else tuple(latents.shape[2:])
        size = (size[0] if height is None else height, size[1] if width is None else width)
        if any(each % multiple or each < multiple for each in size):
            raise ValueError(f"height and width must be multiples of {multiple} pixels, got {size[0]}x{size[1]}")
        shape = (batch_size, config.in_channels, *size)
        if latents is None:
            return sample_noise(shape, generators, self._execution_device, dtype)
        if tuple(latents.shape) not in {shape, (1, *shape[1:])}:
            raise ValueError(f"latents must be {shape}, or one for all images, got {tuple(latents.shape)}")
        if not latents.isfinite().all():
            raise ValueError("latents must be finite, but some are NaN or infinite")
        return latents.to(self._execution_device, dtype).expand(shape)

    @staticmethod
    def _set_timesteps(scheduler: Any, steps: int) -> None:
        """Prepare a scheduler for a number of steps; a ValueError explains what it cannot do."""
        name = type(scheduler).__name__
        if not hasattr(scheduler, "alphas_cumprod") or scheduler.config.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"{name} is not supported: use DDPMScheduler, DDIMScheduler or DPMSolverMultistepScheduler"
            )
        trained = scheduler.config.num_train_timesteps
        if not 1 <= steps <= trained:
            raise ValueError(
                f"num_inference_steps must be from 1 to {trained}, the steps of the training; got {steps}"
            )
        scheduler.set_timesteps(steps)
        if scheduler.init_noise_sigma != 1:
            raise ValueError(f"{name} is not supported, because it scales the noise: use DPMSolverMultistepScheduler")

    def _denoise(
        self,
        scheduler: Any,
        sample: torch.Tensor,
        conditions: Mapping[str, torch.Tensor | None],
        steps: int,
        guidance_scale: float = 1.0,
        callback: Callable[..., Mapping[str, Any] | None] | None = None,
        **step_arguments: Any,
    ) -> torch.Tensor:
        """Remove the noise from `sample` (B, C, H, W) in a number of steps."""
        self._set_timesteps(scheduler, steps)
        accepted = inspect.signature(scheduler.step).parameters
        step_arguments = {name: value for name, value in step_arguments.items() if name in accepted}
        for index, timestep in enumerate(self.progress_bar(scheduler.timesteps)):
            output = self._predict(scheduler, index, timestep, sample, conditions, guidance_scale)
            sample = scheduler.step(output, timestep, sample, **step_arguments).prev_sample
            if callback is not None:
                changed = callback(self, index, timestep, {"latents": sample}) or {}
                sample = changed.get("latents", sample)
        return sample

    def _predict(
        self,
        scheduler: Any,
        index: int,
        timestep: torch.Tensor,
        sample: torch.Tensor,
        conditions: Mapping[str, torch.Tensor | None],
        guidance_scale: float = 1.0,
    ) -> torch.Tensor:
        """Return the prediction of the network for `sample`, with guidance and with the clean image clipped."""
        inputs, unet = sample.to(self.unet.dtype), self.unet
        output = unet(inputs, timestep, **conditions).sample.to(sample.dtype)
        if guidance_scale != 1:
            without = unet(inputs, timestep).sample.to(sample.dtype)
            output = without + guidance_scale * (output - without)
        signal, noise = signal_and_noise(scheduler, index, timestep)
        limits = self.config.clip_sample_range or self.config.value_range
        return clip_prediction(output, sample, signal, noise, scheduler.config.prediction_type, limits)

    def _images(self, sample: torch.Tensor, output_type: str) -> Any:
        """Return images with intensities in [0, 1] from values of the network (B, C, H, W)."""
        low, high = self.config.value_range
        images = ((sample - low) / (high - low)).clamp(0, 1)
        if output_type == "pt":
            return images
        array = images.float().cpu().numpy()
        array = array[:, 0] if array.shape[1] == 1 else array
        if output_type == "np":
            return array
        if Image is None:
            raise ValueError('output_type="pil" needs Pillow: install it, or use output_type="np"')
        if array.ndim != 3:
            raise ValueError('output_type="pil" needs images of one channel; use output_type="np"')
        return [Image.fromarray(np.rint(each * 65535).astype(np.uint16)) for each in array]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load a pipeline.

        With stedfm-hf, the code in the folder is never run and no pickle is read; `trust_remote_code` changes nothing.
        Without it, use `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            kwargs: Other arguments of `DiffusionPipeline.from_pretrained`, such as `torch_dtype` or components.

        Raises:
            ValueError: If the folder is another pipeline, has components of other classes or holds pickles, or if the
                encoder is not that of the training.
        """
        if not is_in_package():
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            options = {name: kwargs.pop(name) for name in _HUB_ARGUMENTS if name in kwargs}
            name = str(pretrained_model_name_or_path)
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"], **options))
        refuse_pickles(folder)
        kwargs.pop("trust_remote_code", None)
        return super().from_pretrained(folder, **{**kwargs, "use_safetensors": True})

    @classmethod
    def load_config(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load `model_index.json`, with the classes of this package for those in the folder.

        Args:
            pretrained_model_name_or_path: Folder of the pipeline.
            kwargs: Other arguments of `ConfigMixin.load_config`.

        Raises:
            ValueError: If the folder is another pipeline or has components of other classes.
        """
        loaded = super().load_config(pretrained_model_name_or_path, **kwargs)
        index = loaded[0] if isinstance(loaded, tuple) else loaded
        if is_in_package():
            use_package_classes(index, cls.__name__, pretrained_model_name_or_path)
        return loaded

    def save_pretrained(self, save_directory: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save the pipeline as one folder for the Hub: all components, their settings and their code.

        Args:
            save_directory: Folder to write. `encoder` in it is a complete model folder.
            safe_serialization: Must be True; pickles are never written.
            kwargs: Other arguments of `DiffusionPipeline.save_pretrained`.

        Raises:
            ValueError: If `safe_serialization` is False.
        """
        if not safe_serialization:
            raise ValueError("safe_serialization must be True: pickles are never written")
        super().save_pretrained(str(save_directory), **kwargs)

    def save_config(self, save_directory: Any, **kwargs: Any) -> None:
        """Write `model_index.json` and the code; `save_pretrained` calls it before a push to the Hub.

        Args:
            save_directory: Folder of the pipeline.
            kwargs: Other arguments of `ConfigMixin.save_config`.
        """
        super().save_config(save_directory, **kwargs)
        components = [name for name, component in self.components.items() if component is not None]
        complete_pipeline_folder(Path(save_directory), type(self).__name__, components)


__all__ = ["Inversion", "StedFmGenerationPipeline"]
