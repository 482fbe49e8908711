"""Pipelines that read images in their bit depth; the stock pipelines convert them to 8-bit colour images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from .blending_stedfm import segment_image
from .io_stedfm import read_image
from .tiling_stedfm import encode_images


class StedFmPipeline(Pipeline):
    """Base class of the pipelines: reads and scales images.

    An image is a path, a `StedImage`, an array (H, W) or (C, H, W), a tensor or a PIL image. The arguments `series`,
    `channel`, `pixel_size_nm`, `normalization` and `intensity_range` of a call are those of `read_image` and
    `StedFmImageProcessor`; `tile_size` is that of `encode_images`. `batch_size` images go through the model at a time.
    """

    _load_processor = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False
    # Left open, transformers looks for one, and asks on the terminal whether it may run the folder's code for that.
    _load_video_processor = False

    preprocess_arguments = ("series", "channel", "pixel_size_nm", "normalization", "intensity_range")
    forward_arguments: tuple[str, ...] = ("tile_size",)
    postprocess_arguments: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.model.config.model_type != "stedfm":
            raise ValueError(f"this pipeline is for STED-FM models, got {type(self.model).__name__}")

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Divide the arguments among the three stages; raise a TypeError for an unknown one."""
        stages = (self.preprocess_arguments, self.forward_arguments, self.postprocess_arguments)
        known = [name for stage in stages for name in stage]
        unknown = sorted(set(kwargs) - set(known))
        if unknown:
            raise TypeError(f"unknown argument {', '.join(unknown)}; this pipeline takes {', '.join(known)}")
        first, second, third = ({name: kwargs[name] for name in stage if name in kwargs} for stage in stages)
        return first, second, third

    def preprocess(self, image: Any, series: str | int | None = None, **settings: Any) -> dict[str, Any]:
        """Read and scale one image to (C, H, W) float32."""
        if isinstance(image, (str, Path)):
            image = read_image(image, series=series, channel=settings.pop("channel", None))
        return {"image": self.image_processor.prepare(image, **settings)}

    def encode(self, model_inputs: dict[str, Any], **settings: Any) -> list[np.ndarray]:
        """Embed the image, or the list of images if the pipeline was called with a batch size."""
        images = model_inputs["image"]
        images = images if isinstance(images, list) else [images]
        return list(encode_images(self.model, images, **settings))


class StedFmFeatureExtractionPipeline(StedFmPipeline):
    """Embed images: `stedfm-feature-extraction`.

    Returns a float32 array: (D,) for `pooling="avg"` (mean of the patch tokens, default) and `"token"` (class token),
    (rows, cols, D) for `"patch"`. By default, `pooling` is that of the configuration.

    Example:
    ```python
    >>> import numpy as np
    >>> from stedfm_hf import StedFmConfig, StedFmImageProcessor, StedFmModel
    >>> from stedfm_hf.modeling.pipeline_stedfm import StedFmFeatureExtractionPipeline
    >>> model = StedFmModel(StedFmConfig(num_hidden_layers=1)).eval()
    >>> extract = StedFmFeatureExtractionPipeline(model=model, image_processor=StedFmImageProcessor())
    >>> extract(np.arange(300 * 200, dtype=np.uint16).reshape(300, 200)).shape
    (384,)

    ```
    """

    forward_arguments = ("tile_size", "pooling")

    def _forward(self, model_inputs: dict[str, Any], pooling: str | None = None, **settings: Any) -> dict[str, Any]:
        return {"embedding": self.encode(model_inputs, pooling=pooling or self.model.config.pooling, **settings)}

    def postprocess(self, model_outputs: dict[str, Any]) -> np.ndarray:
        """Return the embedding or map of the image."""
        return model_outputs["embedding"][0]


class StedFmImageClassificationPipeline(StedFmPipeline):
    """Classify images: `stedfm-image-classification`.

    Returns a list of `{"label": str, "score": float}`, sorted by score, at most `top_k` (default 5). Scores are
    softmax probabilities, sigmoid probabilities for `target_type="multi_label"`, and for `"regression"` the predicted
    values in the order of the labels.
    """

    postprocess_arguments = ("top_k",)

    def _forward(self, model_inputs: dict[str, Any], **settings: Any) -> dict[str, Any]:
        features = np.stack(self.encode(model_inputs, pooling=self.model.config.pooling, **settings))
        logits = self.model.classify(torch.from_numpy(features).to(self.model.device, self.model.dtype))
        return {"logits": list(logits.float().cpu().numpy())}

    def postprocess(self, model_outputs: dict[str, Any], top_k: int = 5) -> list[dict[str, Any]]:
        """Return the labels and scores of the image."""
        config = self.model.config
        logits = torch.from_numpy(model_outputs["logits"][0])
        if config.target_type == "regression":
            return [{"label": config.id2label[i], "score": float(value)} for i, value in enumerate(logits)]
        scores = logits.sigmoid() if config.target_type == "multi_label" else logits.softmax(dim=0)
        best = scores.argsort(descending=True)[:top_k].tolist()
        return [{"label": config.id2label[i], "score": float(scores[i])} for i in best]


class StedFmImageSegmentationPipeline(StedFmPipeline):
    """Segment images: `stedfm-segmentation`.

    Returns a list of `{"label": str, "score": float, "mask": (H, W) bool, "probability": (H, W) float32}`, in the
    order of the labels, with the size of the image. A pixel of `target_type="single_label"` is in the mask of its
    most probable class; otherwise in the masks of all classes with a probability above `threshold` (default 0.5),
    which may overlap. The score is the mean probability inside the mask, 0 if it is empty. `tile_size` and
    `tile_overlap` of a call are those of `segment_rows`.
    """

    forward_arguments = ("tile_size", "tile_overlap")
    postprocess_arguments = ("threshold",)

    def _forward(self, model_inputs: dict[str, Any], **settings: Any) -> dict[str, Any]:
        images = model_inputs["image"]
        images = images if isinstance(images, list) else [images]
        return {"probabilities": [segment_image(self.model, image, **settings) for image in images]}

    def postprocess(self, model_outputs: dict[str, Any], threshold: float = 0.5) -> list[dict[str, Any]]:
        """Return the masks of the image."""
        probabilities = model_outputs["probabilities"][0]
        if self.model.config.target_type == "single_label":
            masks = probabilities.argmax(axis=0) == np.arange(len(probabilities))[:, None, None]
        else:
            masks = probabilities > threshold
        return [
            {
                "label": self.model.config.id2label[number],
                "score": float(map[mask].mean()) if mask.any() else 0.0,
                "mask": mask,
                "probability": map,
            }
            for number, (map, mask) in enumerate(zip(probabilities, masks, strict=True))
        ]


__all__ = [
    "StedFmFeatureExtractionPipeline",
    "StedFmImageClassificationPipeline",
    "StedFmImageSegmentationPipeline",
]
