"""Configuration of the STED-FM model family."""

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

ARCHITECTURES: dict[str, dict[str, int]] = {
    "stedfm-vit-tiny": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    "stedfm-vit-small": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    "stedfm-vit-base": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "stedfm-vit-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "stedfm-vit-64-p8": {
        "image_size": 64,
        "patch_size": 8,
        "hidden_size": 128,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "intermediate_size": 512,
    },
}
"""Fields in which each architecture differs from `StedFmConfig()`, by its Hub name."""

PROBLEM_TYPES = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
"""Target type of each `problem_type` of transformers."""
TARGET_TYPES = ("single_label", "multi_label", "soft", "regression")
POOLINGS = ("avg", "token")
DECODERS = ("upernet", "unetr", "linear")
SEGMENTATION_LOSSES = {
    "auto": TARGET_TYPES,
    "cross_entropy": ("single_label",),
    "bce_dice": ("multi_label", "soft"),
    "mse": TARGET_TYPES,
}
"""Target types that each loss supports."""
_POSITIVE = (
    *("image_size", "patch_size", "num_channels"),
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads", "decoder_intermediate_size"),
)
_CHOICES: dict[str, Collection[str]] = {
    "pooling": POOLINGS,
    "target_type": TARGET_TYPES,
    "decoder": DECODERS,
    "segmentation_loss": SEGMENTATION_LOSSES,
}


@strict
class StedFmConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""Configuration of a STED-FM vision transformer and its masked-autoencoder decoder.

    `StedFmConfig()` is `stedfm-vit-small`, the architecture of the published weights (paper: ViT-S/16, 224 px crops,
    one channel). The other members of the family are in `ARCHITECTURES`.

    Attributes:
        image_size: Size of the training crops, in pixels. Other sizes are possible, because positions are computed for
            the grid of the input. Larger images are embedded in tiles of this size.
        patch_size: Size of a square patch, in pixels.
        num_channels: Number of input channels. STED-FM is a single-channel model.
        hidden_size: Width D of the encoder.
        num_hidden_layers: Number of encoder layers.
        num_attention_heads: Number of attention heads of an encoder layer; divides `hidden_size`.
        intermediate_size: Width of the MLP of an encoder layer.
        hidden_act: Activation of the MLPs; `"gelu"` is the exact GELU.
        layer_norm_eps: Epsilon of every LayerNorm.
        qkv_bias: Whether the query, key and value projection has a bias.
        initializer_range: Standard deviation of the class and mask tokens at initialisation.
        pooling: `"avg"` makes `pooler_output` the mean of the patch tokens, `"token"` the class token.
        apply_layernorm: Whether the backbone applies the final LayerNorm to the feature maps of the inner layers too.
            The map of the last layer is always normalised.
        decoder_hidden_size: Width of the masked-autoencoder decoder.
        decoder_num_hidden_layers: Number of decoder layers (1 in STED-FM, 8 in the original MAE).
        decoder_num_attention_heads: Number of attention heads of a decoder layer.
        decoder_intermediate_size: Width of the MLP of a decoder layer.
        mask_ratio: Fraction of the patches hidden from the encoder in pretraining, in [0, 1).
        norm_pix_loss: Whether the targets of pretraining are standardised per patch (reference protocol: False).
        target_type: Type of the labels of a head: `"single_label"` (class index), `"multi_label"` (0/1 per class),
            `"soft"` (class probabilities; for masks the fraction of votes of each class) or `"regression"` (real
            values). The `problem_type` of transformers sets it, too.
        decoder: Decoder of `StedFmForSemanticSegmentation`: `"upernet"` (a pyramid of four layers and transformers'
            UperNet head), `"unetr"` (the reference's full decoder) or `"linear"` (the reference's default: pixels of a
            patch from its token).
        decode_head_hidden_size: Number of channels of the UperNet head; by default a quarter of `hidden_size`, rounded
            to a multiple of 16.
        use_auxiliary_head: Whether the UperNet decoder has a second head on the third layer in training.
        auxiliary_loss_weight: Weight of the loss of that head.
        segmentation_loss: `"auto"` (cross-entropy for single labels, mean squared error for regressions, BCE + Dice
            for others), `"cross_entropy"`, `"bce_dice"` or `"mse"` (reference protocol).
        semantic_loss_ignore_index: Label of pixels that are ignored.

    Example:
    ```python
    >>> from stedfm_hf import StedFmConfig
    >>> from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
    >>> StedFmConfig().hidden_size
    384
    >>> StedFmConfig(**ARCHITECTURES["stedfm-vit-64-p8"]).patch_size
    8

    ```
    """

    model_type = "stedfm"

    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 1
    hidden_size: int = 384
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    intermediate_size: int = 1536
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    initializer_range: float = 0.02
    pooling: str = "avg"
    apply_layernorm: bool = True
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 1
    decoder_num_attention_heads: int = 8
    decoder_intermediate_size: int = 2048
    mask_ratio: float | int = 0.75
    norm_pix_loss: bool = False
    target_type: str = "single_label"
    decoder: str = "upernet"
    decode_head_hidden_size: int | None = None
    use_auxiliary_head: bool = False
    auxiliary_loss_weight: float = 0.4
    segmentation_loss: str = "auto"
    semantic_loss_ignore_index: int = 255
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.problem_type is not None:
            meant = PROBLEM_TYPES[self.problem_type]
            if self.target_type not in (meant, TARGET_TYPES[0]):
                raise ValueError(
                    f"problem_type {self.problem_type!r} and target_type {self.target_type!r} differ; give one of them"
                )
            self.target_type = meant
        self._check()
        # Computed, never loaded: the stages of another number of layers would stay in it.
        kwargs.pop("stage_names", None)
        self.stage_names = ["stem"] + [f"stage{i}" for i in range(1, self.num_hidden_layers + 1)]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None), out_indices=kwargs.pop("out_indices", None)
        )
        self._name_labels(kwargs.get("num_labels"))
        super().__post_init__(**kwargs)

    def _name_labels(self, number: int | None) -> None:
        """Complete `id2label` and `label2id` from each other; raise a ValueError if they or the number differ."""
        fields_of_base: Mapping[str, Any] = vars(self)
        names, indices = fields_of_base["id2label"], fields_of_base["label2id"]
        if names is None and indices:
            names = {int(index): name for name, index in indices.items()}
        if names is None:
            return
        inverse = {name: int(index) for index, name in names.items()}
        if indices and {name: int(index) for name, index in indices.items()} != inverse:
            raise ValueError(f"label2id {indices} is not the inverse of id2label {names}")
        if number is not None and number != len(names):
            raise ValueError(f"num_labels is {number}, but id2label names {len(names)}; give one of them")
        self.id2label, self.label2id = names, inverse

    def __setattr__(self, key: str, value: Any) -> None:
        """Set an attribute; `problem_type` and `target_type` change each other, as the last one decides."""
        super().__setattr__(key, value)
        if not getattr(self, "_post_init_done", False):
            return
        if key == "problem_type" and value is not None:
            super().__setattr__("target_type", PROBLEM_TYPES[value])
        elif key == "target_type" and PROBLEM_TYPES.get(self.problem_type or "") != value:
            super().__setattr__("problem_type", None)
        if key in _CHOICES:
            self._check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Create a configuration from a dictionary and changes, which are checked together.

        Args:
            config_dict: Fields of the configuration.
            kwargs: Changed fields, and other arguments of `PreTrainedConfig.from_dict`.
        """
        names = {each.name for each in fields(cls)} | {"out_features", "out_indices"}
        changed = {name: value for name, value in kwargs.items() if name in names}
        # What a change decides is not taken from the saved configuration.
        decided = {*changed, "label2id"} if config_dict.get("id2label") else set(changed)  # id2label decides label2id
        if changed.get("problem_type") or "target_type" in changed:
            decided |= {"problem_type", "target_type"}
        if changed.keys() & {"id2label", "label2id"} or kwargs.get("num_labels") not in (None, _count(config_dict)):
            decided |= {"id2label", "label2id", "num_labels"}
        last = [f"stage{config_dict.get('num_hidden_layers')}"]  # the default, of another number of layers
        if changed.keys() & {"out_features", "out_indices"} or (
            "num_hidden_layers" in changed and config_dict.get("out_features") == last
        ):
            decided |= {"out_features", "out_indices"}
        kept = {name: value for name, value in config_dict.items() if name not in decided}
        if kwargs.get("return_unused_kwargs"):
            kwargs = {name: value for name, value in kwargs.items() if name not in changed or name == "dtype"}
        return super().from_dict(kept | changed, **kwargs)

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> Any:
        """Return this configuration: there is none of a text model, for which transformers would take `decoder`."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, without the one that a classifier sets for the Trainer."""
        found: dict[str, Any] = super().to_dict()
        found.pop("keys_to_ignore_at_inference", None)
        return found

    def _check(self) -> None:
        """Raise a ValueError for a setting that is unknown, out of range, or does not fit another setting."""
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        targets = SEGMENTATION_LOSSES[self.segmentation_loss]
        if self.target_type not in targets:
            raise ValueError(
                f"segmentation_loss {self.segmentation_loss!r} is one of {' and '.join(targets)} targets, "
                f"not of {self.target_type} ones"
            )
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.layer_norm_eps < 1 or not 0 <= self.initializer_range < math.inf:
            raise ValueError(
                f"layer_norm_eps and initializer_range must be small positive numbers, got {self.layer_norm_eps} and "
                f"{self.initializer_range}"
            )
        if self.chunk_size_feed_forward < 0:
            raise ValueError(f"chunk_size_feed_forward must be at least 0, got {self.chunk_size_feed_forward}")
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in [0, 1), got {self.mask_ratio}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        for prefix in ("", "decoder_"):
            width = getattr(self, f"{prefix}hidden_size")
            heads = getattr(self, f"{prefix}num_attention_heads")
            if width % heads:
                raise ValueError(
                    f"{prefix}hidden_size {width} is not a multiple of {prefix}num_attention_heads {heads}"
                )
            # The 2-D sin-cos table gives a quarter of the channels to each of sin x, cos x, sin y and cos y.
            if width % 4:
                raise ValueError(f"{prefix}hidden_size {width} is not a multiple of 4")


def _count(config_dict: dict[str, Any]) -> int:
    """Return the number of labels of a saved configuration."""
    return len(config_dict.get("id2label") or range(2))


__all__ = ["ARCHITECTURES", "StedFmConfig"]
