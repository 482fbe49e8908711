"""Feature extractors of `evaluate knn` and `evaluate probe`: models and baselines.

A string names each of them: a folder, a Hub id (of STED-FM or of any vision model of transformers), a packaged encoder
(`demo`), or one of `BASELINES`.
"""

from __future__ import annotations

import json
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import httpx2
import numpy as np
import torch
from huggingface_hub import model_info, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from stedfm_hf.evaluation.baselines import intensity_histograms, log_spectra, resized_pixels, texture_features
from stedfm_hf.evaluation.morphology import PIXEL_SIZE_UM, morphology_features
from stedfm_hf.evaluation.settings import BASELINES, RETRIEVAL_BASELINES
from stedfm_hf.images import StedImage
from stedfm_hf.inference.loading import Encoder, choose_device, load_encoder, weights_sha256
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.runs import UserError, print_note
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.weights.models import ModelSource, find_model
from stedfm_hf.weights.packaged import PACKAGED

IMAGENET = ("WinKawaks/vit-small-patch16-224", "facebook/dino-vits16")
"""Hub ids of ViT-S models trained on photographs; the first available one is used."""
_SAMPLE = 256
"""Number of images from which the input statistics of the untrained network are computed."""
_CHUNK = 64
"""Number of images in memory at once."""

Kind = Literal["model", "baseline"]
Scaling = Literal["each", "whole"]
FeatureFunction = Callable[[Sequence[np.ndarray]], np.ndarray]
DEFAULT_PROCESSOR = StedFmImageProcessor()
"""Processor that scales images for baselines and for other models."""


@dataclass(eq=False)
class Extractor(ABC):
    """Model or baseline that extracts features of images.

    Attributes:
        key: Identifier in commands and tables.
        name: Name in reports.
        identity: Weights and settings that determine the features, as JSON data. It is part of the cache key.
        kind: "model" or "baseline".
        scaling: Standardisation for probes: "each" divides every feature by its standard deviation, "whole" divides
            all features by one value, which keeps the ratios of principal components.
        components: Number of principal components, fitted on the training images; None applies no PCA.
        mixed_units: Whether features have different units, so that similarities need standardised features.
    """

    key: str
    name: str
    identity: dict[str, Any]
    kind: Kind = "model"
    scaling: Scaling = "each"
    components: int | None = None
    mixed_units: bool = False

    @abstractmethod
    def extract(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """Yield the features (d,) of each image, in order.

        Args:
            images: Images.
        """


@dataclass(eq=False, kw_only=True)
class EncoderExtractor(Extractor):
    """Embeddings of a STED-FM encoder: the mean over all patches of an image, or of its tiles.

    Attributes:
        encoder: Loaded model with its processor.
        batch_size: Number of images in a forward pass.
    """

    encoder: Encoder = field(repr=False)
    batch_size: int = 32

    def extract(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """Yield the embedding (d,) of each image, scaled by the processor of the model."""
        prepared = (self._prepare(image) for image in images)
        yield from encode_images(self.encoder.model, prepared, batch_size=self.batch_size)

    def extract_patches(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """Yield the patch tokens (rows, cols, D) of each image.

        Args:
            images: Images.
        """
        prepared = (self._prepare(image) for image in images)
        yield from encode_images(self.encoder.model, prepared, pooling="patch", batch_size=self.batch_size)

    def _prepare(self, image: StedImage) -> np.ndarray:
        """Scale an image (C, H, W) by the processor of the model."""
        scaled, channels = self.encoder.processor.prepare(image), self.encoder.model.config.num_channels
        if len(scaled) != channels:
            raise UserError(
                f"{image.source}: has {len(scaled)} channels, but {self.name} needs {channels}. Select one: --channel"
            )
        return scaled


@dataclass(eq=False, kw_only=True)
class VisionExtractor(Extractor):
    """Embeddings of any vision model of transformers; grey images are repeated in three channels and resized.

    Attributes:
        model: Network.
        size_px: Height and width of the input, in pixels.
        mean: Mean of each input channel.
        std: Standard deviation of each input channel.
        location: Folder or Hub id of the model, and its device, as they were given.
        batch_size: Number of images in a forward pass.
    """

    model: torch.nn.Module = field(repr=False)
    size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    location: tuple[str, str]
    batch_size: int = 32

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process loads the model, instead of its weights."""
        return _load_vision_once, (*self.location, self.key, self.name, self.batch_size)

    @torch.inference_mode()
    def extract(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """Yield the embedding (d,) of each image: the mean over patches, or over the map of a CNN."""
        batch: list[torch.Tensor] = []
        for image in images:
            batch.append(self._prepare(image))
            if len(batch) == self.batch_size:
                yield from self._embed(batch)
                batch = []
        if batch:
            yield from self._embed(batch)

    def _prepare(self, image: StedImage) -> torch.Tensor:
        """Scale, resize and normalise an image (3, size, size)."""
        pixels = torch.from_numpy(DEFAULT_PROCESSOR.prepare(image))
        if len(pixels) not in (1, 3):
            raise UserError(
                f"{image.source}: has {len(pixels)} channels, but {self.name} needs 1 or 3. Select one with --channel"
            )
        size = (self.size_px, self.size_px)
        resized = torch.nn.functional.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0]
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (resized.expand(3, -1, -1) - mean) / std

    def _embed(self, batch: Sequence[torch.Tensor]) -> Iterator[np.ndarray]:
        """Yield the embeddings of a batch."""
        first = next(self.model.parameters())
        hidden = self.model(pixel_values=torch.stack(list(batch)).to(first.device, first.dtype)).last_hidden_state
        # Tokens without the class token, or the map of a convolutional network.
        pooled = hidden[:, 1:].mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))
        yield from pooled.float().cpu().numpy()


@dataclass(eq=False, kw_only=True)
class BaselineExtractor(Extractor):
    """Features that need no training; the features of several channels are concatenated.

    Attributes:
        function: Function from scaled images to features (n, d).
    """

    function: FeatureFunction = field(repr=False)

    def extract(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """Yield the features (d,) of each image, scaled by the default processor."""
        source = iter(images)
        with ThreadPoolExecutor(2) as pool:  # scikit-image releases the GIL
            while chunk := list(islice(source, _CHUNK)):
                yield from pool.map(lambda image: self.function(list(DEFAULT_PROCESSOR.prepare(image))).ravel(), chunk)


@dataclass(eq=False, kw_only=True)
class MorphologyExtractor(Extractor):
    """Morphology features of the bright spots in an image, with its pixel size; channels are concatenated."""

    def extract(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """Yield the features (13 for each channel) of each image, scaled by the default processor."""
        for image in images:
            size = PIXEL_SIZE_UM if image.pixel_size_nm is None else float(np.mean(image.pixel_size_nm)) / 1000
            yield morphology_features(list(DEFAULT_PROCESSOR.prepare(image)), pixel_size_um=size).values.ravel()


_BASELINE_FUNCTIONS: dict[str, tuple[str, FeatureFunction, Scaling, int | None]] = {
    "histogram": ("Intensity histogram", intensity_histograms, "each", None),
    "texture": ("Texture (GLCM, LBP)", texture_features, "each", None),
    "pixels": ("Raw-pixel PCA", resized_pixels, "whole", 64),
    "log-spectrum": ("Log-spectrum PCA", log_spectra, "whole", 64),
}


def _settings(processor: StedFmImageProcessor) -> dict[str, Any]:
    """Return the settings of a processor as JSON data."""
    names = ("normalization", "percentiles", "intensity_range", "channel", "target_pixel_size_nm")
    return {name: json.loads(json.dumps(getattr(processor, name))) for name in names}


def load_extractors(
    models: Sequence[str | ModelSource],
    baselines: Sequence[str] = BASELINES,
    *,
    data: LabelledImages | AnnotatedImages,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int = 32,
    seed: int = 0,
) -> list[Extractor]:
    """Load the models, then the baselines except `chance`, which needs no features.

    Args:
        models: Folders, Hub ids or packaged encoders.
        baselines: Names from `BASELINES` or `RETRIEVAL_BASELINES`. `untrained` is the architecture of the first model
            if it is a STED-FM model.
        data: Images whose mean and standard deviation normalise the input of the untrained network.
        device: Device of the models.
        precision: Floating-point type of the models.
        batch_size: Number of images in a forward pass.
        seed: Random seed of the weights of the untrained network.

    Returns:
        The models, then the available baselines.

    Raises:
        UserError: If a model cannot be loaded or is named twice, or a baseline is unknown.
    """
    if unknown := [name for name in baselines if name not in RETRIEVAL_BASELINES]:
        raise UserError(f"baseline {unknown[0]!r} is unknown; choose from {', '.join(RETRIEVAL_BASELINES)}")
    sources = [find_model(model) for model in models]
    if doubled := next((each.given for each in sources if sources.count(each) > 1), None):
        raise UserError(f"model {doubled} is named twice; name every model once")
    extractors: list[Extractor] = [_load(source, device, precision, batch_size) for source in sources]
    for name in baselines:
        if name == "untrained":
            first = extractors[0] if extractors else None
            if isinstance(first, EncoderExtractor):
                extractors.append(_untrained(first, data, seed))
            else:
                first_name = sources[0].given if sources else "no model"
                print_note(f"the baseline untrained is skipped: {first_name} is not a STED-FM model")
        elif name == "imagenet":
            if (imagenet := _imagenet(device, batch_size)) is not None:
                extractors.append(imagenet)
        elif name == "morphology":
            identity = {"baseline": name, "processor": _settings(DEFAULT_PROCESSOR)}
            extractors.append(MorphologyExtractor(name, "Morphology", identity, "baseline", mixed_units=True))
        elif name != "chance":
            title, function, scaling, components = _BASELINE_FUNCTIONS[name]
            identity = {"baseline": name, "processor": _settings(DEFAULT_PROCESSOR)}
            extractors.append(
                BaselineExtractor(
                    name, title, identity, "baseline", scaling, components, name == "texture", function=function
                )
            )
    return _with_unique_names(extractors)


def _with_unique_names(found: list[Extractor]) -> list[Extractor]:
    """Append the first digits of the checksum of the weights to names that occur more than once."""
    for extractor in found:
        if [other.name for other in found].count(extractor.name) > 1:
            for each in [other for other in found if other.name == extractor.name]:
                each.name = f"{each.name} ({each.identity['weights'][:8]})"
    return found


def _load(source: ModelSource, device: str, precision: str, batch_size: int) -> EncoderExtractor | VisionExtractor:
    """Load a STED-FM model with its processor, or another vision model of transformers (`_load_vision`)."""
    if not _is_foreign(source):
        encoder = load_encoder(source, device=device, precision=precision)
        name = f"{source.given} (packaged)" if source.given in PACKAGED else encoder.name
        return encoder_extractor(source.given, name, encoder, batch_size)
    return _load_vision(source.location, source.given, device, batch_size)


def encoder_extractor(key: str, name: str, encoder: Encoder, batch_size: int) -> EncoderExtractor:
    """Return the extractor of a loaded encoder.

    Args:
        key: Identifier in commands and tables.
        name: Name in reports.
        encoder: Encoder.
        batch_size: Number of images in a forward pass.
    """
    identity = {
        "weights": encoder.weights_sha256,
        "processor": _settings(encoder.processor),
        "tile_size": encoder.model.config.image_size,
        "pooling": "avg",
        "precision": str(encoder.model.dtype).removeprefix("torch."),
    }
    return EncoderExtractor(key, name, identity, encoder=encoder, batch_size=batch_size)


def _is_foreign(source: ModelSource) -> bool:
    """Return whether a model is a transformers model other than STED-FM; models without a config are STED-FM."""
    from transformers import AutoConfig

    if source.given in PACKAGED:
        return False
    try:
        return AutoConfig.from_pretrained(source.location).model_type != "stedfm"
    except (OSError, ValueError):
        return False


@quiet_transformers()
def _load_vision(model: str, name: str, device: str, batch_size: int) -> VisionExtractor:
    """Load a vision model of transformers in float32; its mean and standard deviation are those of its processor.

    Without a processor that can be loaded, both are 0.5. Only safetensors weights are loaded.

    Raises:
        UserError: If the model cannot be loaded.
    """
    from transformers import AutoImageProcessor, AutoModel

    try:
        network = AutoModel.from_pretrained(model, dtype=torch.float32, use_safetensors=True)
        digest = weights_sha256(model)
        try:
            processor = AutoImageProcessor.from_pretrained(model)
            mean, std = tuple(processor.image_mean), tuple(processor.image_std)
        except (OSError, ValueError, ImportError, AttributeError, TypeError):
            mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"model {model}: cannot be loaded ({reason}). Check the path or the Hub id") from error
    size = getattr(network.config, "image_size", 224)
    size = size if isinstance(size, int) else size[0]
    identity = {
        "weights": digest,
        "size_px": size,
        "mean": mean,
        "std": std,
        "processor": _settings(DEFAULT_PROCESSOR),
    }
    network = network.to(choose_device(device)).eval()
    title = Path(name).resolve().name if Path(name).exists() else name
    return VisionExtractor(
        model,
        title,
        identity,
        model=network,
        size_px=size,
        mean=mean,
        std=std,
        location=(model, device),
        batch_size=batch_size,
    )


@lru_cache(maxsize=2)
def _load_vision_once(model: str, device: str, key: str, name: str, batch_size: int) -> VisionExtractor:
    """Load a vision model, or return the one that this process has loaded before."""
    extractor = _load_vision(model, name, device, batch_size)
    extractor.key, extractor.name = key, name
    return extractor


def _imagenet(device: str, batch_size: int) -> VisionExtractor | None:
    """Load the first of the models `IMAGENET` that is available; print a note and return None if there is none."""
    reason = ""
    for name in IMAGENET:
        try:
            _check_reachable(name)
            extractor = _load_vision(name, name, device, batch_size)
        except UserError as error:
            reason = str(error)
            continue
        extractor.key, extractor.name, extractor.kind = "imagenet", f"ImageNet ViT-S ({name})", "baseline"
        return extractor
    short = textwrap.shorten(reason, 160, placeholder=" ...")
    print_note(
        f"the baseline imagenet is skipped: no ViT-S trained on photographs is available ({short}); see --baselines"
    )
    return None


def _check_reachable(name: str) -> None:
    """Query the Hub once, because transformers would retry for most of a minute.

    Raises:
        UserError: If the model is neither in the cache nor available from the Hub.
    """
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        model_info(name, timeout=10)
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise UserError(f"the Hub is not reachable, or has no model {name}") from error


def _untrained(first: EncoderExtractor, data: LabelledImages | AnnotatedImages, seed: int) -> EncoderExtractor:
    """Return an untrained network with the architecture of the first model."""
    encoder, mean, std = untrained_encoder(first.encoder, data, seed)
    network = encoder.model
    identity = {key: value for key, value in first.identity.items() if key != "weights"}
    config = {k: v for k, v in network.config.to_dict().items() if isinstance(v, int | float | str | bool | None)}
    identity |= {"untrained": seed, "mean": mean, "std": std, "config": {**config, "_name_or_path": ""}}
    return EncoderExtractor(
        "untrained", "Untrained network", identity, "baseline", encoder=encoder, batch_size=first.batch_size
    )


def untrained_encoder(
    first: Encoder, data: LabelledImages | AnnotatedImages, seed: int
) -> tuple[Encoder, float, float]:
    """Return an untrained encoder with the architecture of another one.

    Its input is normalised by the mean and standard deviation of a sample of the images. This is folded into the
    weights of the first layer: W (x - mean) / std + b = (W / std) x + (b - mean sum(W / std)).

    Args:
        first: Encoder of a STED-FM model.
        data: Images.
        seed: Random seed of the weights and of the sample.

    Returns:
        Encoder, mean and standard deviation.
    """
    processor = first.processor
    numbers = np.random.default_rng(seed).permutation(len(data))[:_SAMPLE]
    pixels = np.concatenate([processor.prepare(data.stored(int(n))).ravel()[::7] for n in numbers])
    mean, std = round(float(pixels.mean()), 4), max(round(float(pixels.std()), 4), 1e-3)
    return _make_untrained(first, mean, std, seed), mean, std


@dataclass(frozen=True)
class _UntrainedEncoder(Encoder):
    """Untrained encoder, which another process makes itself from `made_from`, the arguments of `_make_untrained`."""

    made_from: tuple[Any, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process makes the model, instead of its weights."""
        return _make_untrained, self.made_from


def _make_untrained(first: Encoder, mean: float, std: float, seed: int) -> Encoder:
    """Return an untrained encoder for images of a mean and a standard deviation; see `untrained_encoder`."""
    # fork_rng keeps the global generator unchanged.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StedFmModel(first.model.config)
    embedding = network.embeddings.patch_embeddings
    with torch.no_grad():
        embedding.weight.div_(std)
        embedding.bias.sub_(mean * embedding.weight.sum(dim=1))
    network = network.to(first.model.device, first.model.dtype).eval()
    return _UntrainedEncoder(network, first.processor, "untrained", "", made_from=(first, mean, std, seed))
