"""What makes vectors of images: models, and the baselines every model stands beside.

What is compared is named by a string everywhere: a folder, a Hub id (of STED-FM or of any vision model of
transformers), a packaged encoder (`demo`), or one of `BASELINES`.
"""

from __future__ import annotations

import json
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import httpx2
import numpy as np
import torch
from huggingface_hub import model_info, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from stedfm_hf.evaluation.baselines import intensity_histograms, log_spectra, small_pixels, texture_features
from stedfm_hf.evaluation.settings import BASELINES
from stedfm_hf.images import StedImage
from stedfm_hf.inference.loading import Encoder, choose_device, load_encoder, weights_sha256
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.runs import UserError, print_note
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.weights.models import ModelSource, find_model
from stedfm_hf.weights.packaged import PACKAGED

IMAGENET = ("WinKawaks/vit-small-patch16-224", "facebook/dino-vits16")
"""Where a ViT-S trained on photographs is looked for, in order."""
_SAMPLE = 256
_AT_ONCE = 64

Kind = Literal["model", "baseline"]
Scaling = Literal["each", "whole"]
Measure = Callable[[Sequence[np.ndarray]], np.ndarray]
_PLAIN = StedFmImageProcessor()


@dataclass(eq=False)
class Extractor(ABC):
    """What makes vectors of images.

    Args:
        key: what it is called in commands and tables.
        name: what it is called in reports.
        identity: what decides the vectors, plain data; the cache knows them by it.
        kind: a model that was asked for, or a baseline.
        scaling: how a probe scales the vectors: each feature by its own spread, or all by one, which leaves principal
            components their order.
        components: principal components to take of the vectors, fitted on the training part; None for none.
    """

    key: str
    name: str
    identity: dict[str, Any]
    kind: Kind = "model"
    scaling: Scaling = "each"
    components: int | None = None

    @abstractmethod
    def vectors(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """One vector of every image, in order."""


@dataclass(eq=False, kw_only=True)
class EncoderExtractor(Extractor):
    """Vectors of a STED-FM encoder: the mean over patches, of large images over their tiles."""

    encoder: Encoder = field(repr=False)
    batch_size: int = 32

    def vectors(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """Embeds images that the processor of the model has scaled."""
        prepared = (self._prepare(image) for image in images)
        yield from encode_images(self.encoder.model, prepared, batch_size=self.batch_size)

    def _prepare(self, image: StedImage) -> np.ndarray:
        scaled, channels = self.encoder.processor.prepare(image), self.encoder.model.config.num_channels
        if len(scaled) != channels:
            raise UserError(
                f"{image.source}: has {len(scaled)} channels, and {self.name} takes {channels}; choose one (--channel)"
            )
        return scaled


@dataclass(eq=False, kw_only=True)
class VisionExtractor(Extractor):
    """Vectors of any vision model of transformers: grey images in three channels, resized to what it takes."""

    model: torch.nn.Module = field(repr=False)
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int = 32

    @torch.inference_mode()
    def vectors(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """Embeds images: the mean over patches, or over the map of a convolutional network."""
        waiting: list[torch.Tensor] = []
        for image in images:
            waiting.append(self._prepare(image))
            if len(waiting) == self.batch_size:
                yield from self._embed(waiting)
                waiting = []
        if waiting:
            yield from self._embed(waiting)

    def _prepare(self, image: StedImage) -> torch.Tensor:
        pixels = torch.from_numpy(_PLAIN.prepare(image))
        if len(pixels) not in (1, 3):
            raise UserError(f"{image.source}: has {len(pixels)} channels, and {self.name} takes 1 or 3; choose one")
        size = (self.side, self.side)
        resized = torch.nn.functional.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0]
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (resized.expand(3, -1, -1) - mean) / std

    def _embed(self, waiting: Sequence[torch.Tensor]) -> Iterator[np.ndarray]:
        first = next(self.model.parameters())
        hidden = self.model(pixel_values=torch.stack(list(waiting)).to(first.device, first.dtype)).last_hidden_state
        # Tokens after the class token, or a map of a convolutional network.
        pooled = hidden[:, 1:].mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))
        yield from pooled.float().cpu().numpy()


@dataclass(eq=False, kw_only=True)
class BaselineExtractor(Extractor):
    """Features that need no training; of images with several channels one after the other."""

    measure: Measure = field(repr=False)

    def vectors(self, images: Iterable[StedImage]) -> Iterator[np.ndarray]:
        """Measures images that are scaled as the models' default."""
        source = iter(images)
        with ThreadPoolExecutor(2) as pool:  # scikit-image lets go of the interpreter while it counts
            while chunk := list(islice(source, _AT_ONCE)):
                yield from pool.map(lambda image: self.measure(list(_PLAIN.prepare(image))).ravel(), chunk)


_MEASURED: dict[str, tuple[str, Measure, Scaling, int | None]] = {
    "histogram": ("Intensity histogram", intensity_histograms, "each", None),
    "texture": ("Texture (GLCM, LBP)", texture_features, "each", None),
    "pixels": ("Raw-pixel PCA", small_pixels, "whole", 64),
    "log-spectrum": ("Log-spectrum PCA", log_spectra, "whole", 64),
}


def _settings(processor: StedFmImageProcessor) -> dict[str, Any]:
    names = ("normalization", "percentiles", "intensity_range", "channel", "target_pixel_size_nm")
    return {name: json.loads(json.dumps(getattr(processor, name))) for name in names}


def load_extractors(
    models: Sequence[str | ModelSource],
    baselines: Sequence[str] = BASELINES,
    *,
    data: LabelledImages,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int = 32,
    seed: int = 0,
) -> list[Extractor]:
    """Loads what is compared: the models, then the baselines but `chance`, which needs no vectors.

    Args:
        models: folders, Hub ids or packaged encoders.
        baselines: of `BASELINES`. `untrained` is the architecture of the first model, if that is one of STED-FM.
        data: images whose mean and spread the input of the untrained network is standardised to.
        device: where models run.
        precision: they run in.
        batch_size: images in one forward pass.
        seed: of the untrained network's weights.

    Raises:
        UserError: a model cannot be loaded, or is named twice; a baseline is unknown.
    """
    if unknown := [name for name in baselines if name not in BASELINES]:
        raise UserError(f"baseline {unknown[0]!r} is unknown; choose of {', '.join(BASELINES)}")
    sources = [find_model(model) for model in models]
    if doubled := next((each.given for each in sources if sources.count(each) > 1), None):
        raise UserError(f"model {doubled} is named twice; name every model once")
    found: list[Extractor] = [_load(source, device, precision, batch_size) for source in sources]
    for name in baselines:
        if name == "untrained":
            first = found[0] if found else None
            if isinstance(first, EncoderExtractor):
                found.append(_untrained(first, data, seed))
            else:
                first_name = sources[0].given if sources else "no model"
                print_note(f"untrained: left out, because {first_name} is not a STED-FM network")
        elif name == "imagenet":
            if (imagenet := _imagenet(device, batch_size)) is not None:
                found.append(imagenet)
        elif name != "chance":
            title, measure, scaling, components = _MEASURED[name]
            identity = {"baseline": name, "processor": _settings(_PLAIN)}
            found.append(BaselineExtractor(name, title, identity, "baseline", scaling, components, measure=measure))
    return _told_apart(found)


def _told_apart(found: list[Extractor]) -> list[Extractor]:
    """Two folders of one name are told apart by the first digits of their weights."""
    for extractor in found:
        if [other.name for other in found].count(extractor.name) > 1:
            for each in [other for other in found if other.name == extractor.name]:
                each.name = f"{each.name} ({each.identity['weights'][:8]})"
    return found


def _load(source: ModelSource, device: str, precision: str, batch_size: int) -> EncoderExtractor | VisionExtractor:
    if not _is_foreign(source):
        encoder = load_encoder(source, device=device, precision=precision)
        identity = {
            "weights": encoder.weights_sha256,
            "processor": _settings(encoder.processor),
            "tile_size": encoder.model.config.image_size,
            "pooling": "avg",
            "precision": str(encoder.model.dtype).removeprefix("torch."),
        }
        name = f"{source.given} (packaged)" if source.given in PACKAGED else encoder.name
        return EncoderExtractor(source.given, name, identity, encoder=encoder, batch_size=batch_size)
    return _load_vision(source.location, source.given, device, batch_size)


def _is_foreign(source: ModelSource) -> bool:
    """Whether this is a model of transformers that is not STED-FM; what cannot be told is taken for STED-FM."""
    from transformers import AutoConfig

    if source.given in PACKAGED:
        return False
    try:
        return AutoConfig.from_pretrained(source.location).model_type != "stedfm"
    except (OSError, ValueError):
        return False


@quiet_transformers()
def _load_vision(model: str, name: str, device: str, batch_size: int) -> VisionExtractor:
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
        raise UserError(f"model {model}: cannot be loaded ({reason})") from error
    side = getattr(network.config, "image_size", 224)
    side = side if isinstance(side, int) else side[0]
    identity = {"weights": digest, "side": side, "mean": mean, "std": std, "processor": _settings(_PLAIN)}
    network = network.to(choose_device(device)).eval()
    title = Path(name).resolve().name if Path(name).exists() else name
    return VisionExtractor(model, title, identity, model=network, side=side, mean=mean, std=std, batch_size=batch_size)


def _imagenet(device: str, batch_size: int) -> VisionExtractor | None:
    reason = ""
    for name in IMAGENET:
        try:
            _check_reachable(name)
            found = _load_vision(name, name, device, batch_size)
        except UserError as error:
            reason = str(error)
            continue
        found.key, found.name, found.kind = "imagenet", f"ImageNet ViT-S ({name})", "baseline"
        return found
    why = textwrap.shorten(reason, 160, placeholder=" ...")
    print_note(
        f"imagenet: left out, because no ViT-S trained on photographs is available here ({why}); see --baselines"
    )
    return None


def _check_reachable(name: str) -> None:
    """Asks the Hub once, where transformers would try again for most of a minute.

    Raises:
        UserError: the model is neither in the cache nor to be had from the Hub.
    """
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        model_info(name, timeout=10)
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise UserError(f"the Hub cannot be reached, or lacks {name}") from error


def _untrained(first: EncoderExtractor, data: LabelledImages, seed: int) -> EncoderExtractor:
    """The same network before any training, its input standardised by the images' own mean and spread."""
    processor = first.encoder.processor
    numbers = np.random.default_rng(seed).permutation(len(data))[:_SAMPLE]
    pixels = np.concatenate([processor.prepare(data.stored(int(n))).ravel()[::7] for n in numbers])
    mean, std = round(float(pixels.mean()), 4), max(round(float(pixels.std()), 4), 1e-3)
    # fork_rng: the generator of the caller stays as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StedFmModel(first.encoder.model.config)
    embedding = network.embeddings.patch_embeddings
    with torch.no_grad():
        embedding.weight.div_(std)
        embedding.bias.sub_(mean * embedding.weight.sum(dim=1))
    network = network.to(first.encoder.model.device, first.encoder.model.dtype).eval()
    identity = {key: value for key, value in first.identity.items() if key != "weights"}
    config = {k: v for k, v in network.config.to_dict().items() if isinstance(v, int | float | str | bool | None)}
    identity |= {"untrained": seed, "mean": mean, "std": std, "config": {**config, "_name_or_path": ""}}
    encoder = Encoder(network, processor, "untrained", "")
    return EncoderExtractor(
        "untrained", "Untrained network", identity, "baseline", encoder=encoder, batch_size=first.batch_size
    )
