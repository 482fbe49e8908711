"""STED-FM for semantic segmentation: encoder, one of three decoders, and losses for all types of masks."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import resolve_hidden_states_indices, selected_hidden_states

from .configuration_stedfm import StedFmConfig
from .decoders_stedfm import DECODERS
from .modeling_stedfm import StedFmModel, StedFmPreTrainedModel, weighted_loss


@dataclass
class StedFmSegmenterOutput(ModelOutput):
    """Output of `StedFmForSemanticSegmentation`.

    Attributes:
        loss: Scalar, if labels were given.
        logits: (B, num_labels, H, W), of the size of the input; see `probabilities` of the model.
        hidden_states: Input of the first layer and output of each layer, (B, 1 + N, D), if requested.
        attentions: Attention weights (B, heads, 1 + N, 1 + N) of each layer, if requested.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class StedFmForSemanticSegmentation(StedFmPreTrainedModel):
    """STED-FM segmenter with the decoder of `config.decoder`: logits of every class at every pixel.

    Example:
    ```python
    >>> import torch
    >>> from stedfm_hf import StedFmConfig, StedFmForSemanticSegmentation
    >>> config = StedFmConfig(num_hidden_layers=4, num_labels=2, target_type="multi_label")
    >>> model = StedFmForSemanticSegmentation(config).eval()
    >>> model(torch.rand(1, 1, 96, 64), labels=torch.zeros(1, 2, 96, 64)).logits.shape
    torch.Size([1, 2, 96, 64])

    ```
    """

    _keys_to_ignore_on_load_unexpected = [r"^decoder\.", r"^classifier\."]
    accepts_loss_kwargs = True

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__(config)
        self.stedfm = StedFmModel(config)
        self.decode_head = DECODERS[config.decoder](config)
        self.post_init()
        self.requires_grad_unused()

    def requires_grad_unused(self) -> None:
        """Freeze the final norm of the encoder if the decoder does not use it ("unetr")."""
        if self.config.decoder == "unetr":
            self.stedfm.norm.requires_grad_(False)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        region: torch.Tensor | None = None,
        *,
        interpolate_pos_encoding: bool = True,
        output_hidden_states: bool | int | list[int] | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> StedFmSegmenterOutput:
        """Segment images.

        Args:
            pixel_values: (B, C, H, W) float in [0, 1]; H and W are any multiples of the patch size.
            labels: (B, H, W) class indices for `target_type="single_label"`, else (B, num_labels, H, W): 0/1 for
                `"multi_label"`, fractions of votes in [0, 1] for `"soft"`, real values for `"regression"`. Pixels of
                value `config.semantic_loss_ignore_index` are ignored, and class index -100.
            region: (B, H, W), True for pixels that count; None counts all.
            interpolate_pos_encoding: As in `StedFmModel.forward`.
            output_hidden_states: Whether hidden states are returned, or the indices of those that are.
            num_items_in_batch: Number of labels of the optimiser step, see `weighted_loss`.
            kwargs: `output_attentions`, `return_dict`.

        Returns:
            A `StedFmSegmenterOutput`.
        """
        kwargs["return_dict"] = True  # of the encoder; that of this model is settled by its decorator
        output = self.stedfm(
            pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, output_hidden_states=True, **kwargs
        )
        rows, cols = self.stedfm.embeddings.grid(pixel_values)
        maps = [self._map(output, layer, rows, cols) for layer in self.decode_head.layers]
        logits, auxiliary = self.decode_head(maps, pixel_values)
        loss = None
        if labels is not None:
            loss = self.target_loss(logits, labels, region)
            if auxiliary is not None:
                loss = loss + self.config.auxiliary_loss_weight * self.target_loss(auxiliary, labels, region)
            loss = weighted_loss(loss, labels, num_items_in_batch)
        shown = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return StedFmSegmenterOutput(
            loss=loss,
            logits=logits,
            hidden_states=self._selected(output.hidden_states, shown),
            attentions=output.attentions,
        )

    def _selected(self, hidden_states: tuple[torch.Tensor, ...], shown: Any) -> tuple[Any, ...] | None:
        """Return the hidden states that were requested: all, those of some indices (None for others), or None."""
        if (selected := selected_hidden_states(shown)) is not None:
            numbers = resolve_hidden_states_indices(self, selected, num_hidden_states=len(hidden_states))
            return tuple(each if number in numbers else None for number, each in enumerate(hidden_states))
        return hidden_states if shown else None

    def _map(self, output: ModelOutput, layer: int, rows: int, cols: int) -> torch.Tensor:
        """Return the patch tokens of a layer as a map (B, D, rows, cols)."""
        tokens = output.hidden_states[layer] if layer else output.last_hidden_state
        if layer and self.config.decoder == "upernet":
            tokens = self.stedfm.norm(tokens)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, cols)).contiguous()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Convert logits (B, L, H, W) to probabilities, or to the values of a regression, of the same shape.

        Softmax for `target_type="single_label"`, else a sigmoid for each class. The linear head of the reference,
        trained with the squared error, has no sigmoid: its values are clipped to [0, 1].
        """
        if self.config.target_type == "regression":
            return self._values(logits)
        if self._loss != "mse" and self.config.target_type == "single_label":
            return logits.softmax(dim=1)
        return self._values(logits).clamp(0, 1)

    def logits_of(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Convert probabilities to logits, the inverse of `probabilities` (except for values close to 0 or 1)."""
        if self._loss == "cross_entropy":
            return probabilities.clamp(min=1e-7).log()
        return probabilities if self._is_plain else probabilities.logit(eps=1e-6)

    def _values(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the values for the squared error, and the probabilities of overlapping classes."""
        return logits if self._is_plain else logits.sigmoid()

    @property
    def _is_plain(self) -> bool:
        return self.config.target_type == "regression" or (self._loss == "mse" and self.config.decoder == "linear")

    @property
    def _loss(self) -> str:
        if self.config.segmentation_loss != "auto":
            return self.config.segmentation_loss
        return {"single_label": "cross_entropy", "regression": "mse"}.get(self.config.target_type, "bce_dice")

    def target_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, region: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the mean of the losses of the images, in float32.

        The loss of an image is that of the pixels that count, and 0 if there are none. No image depends on the others,
        so that accumulated batches and parallel processes have the loss of one large batch.

        Args:
            logits: (B, L, H, W).
            labels: As in `forward`.
            region: (B, H, W), True for pixels that count.

        Raises:
            ValueError: If the shape of the labels does not fit `target_type`, or that of the region the logits.
        """
        logits, single = logits.float(), self.config.target_type == "single_label"
        expected = (logits.shape[0], *logits.shape[2:]) if single else tuple(logits.shape)
        if tuple(labels.shape) != expected:
            raise ValueError(
                f"{self.config.target_type} labels must have the shape {expected}, got {tuple(labels.shape)}"
            )
        if single and (logits.shape[1] == 1 or labels.is_floating_point()):
            problem = "there is one class" if logits.shape[1] == 1 else f"the labels are {labels.dtype}"
            raise ValueError(
                f"target_type 'single_label' needs class indices of two or more classes, but {problem}; set "
                "target_type (or problem_type) of the configuration to the type of the labels"
            )
        counts = labels != self.config.semantic_loss_ignore_index
        if single:
            counts = counts & (labels != -100)
        if region is not None:
            if tuple(region.shape) != (logits.shape[0], *logits.shape[2:]):
                # It would be broadcast, and images would count where others' regions are.
                raise ValueError(
                    f"a region is (B, H, W), here for logits {tuple(logits.shape)}: {tuple(region.shape)}"
                )
            counts = counts & (region.bool() if single else region.bool()[:, None])
        if self._loss == "cross_entropy":
            each = nn.functional.cross_entropy(logits, labels.long().where(counts, 0), reduction="none")
            return _mean_of_images(each, counts)
        if single:  # trained as the reference trains all masks: one plane of 0 and 1 for each class
            planes = nn.functional.one_hot(labels.long().where(counts, 0), logits.shape[1])
            labels, counts = planes.movedim(-1, 1), counts[:, None].expand_as(logits)
        targets = labels.to(logits.dtype).where(counts, 0.0)
        if self._loss == "mse":
            return _mean_of_images((self._values(logits) - targets) ** 2, counts)
        each = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return _mean_of_images(each, counts) + _dice_loss(logits.sigmoid() * counts, targets)


def _mean_of_images(each: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the mean over the images of the mean over their values that count, both (B, ...)."""
    return (each.where(counts, 0.0).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=1)).mean()


def _dice_loss(predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute one minus the Dice coefficient of each class in each image, averaged over classes and images.

    Both arguments are (B, L, H, W). The squares in the denominator let soft targets reach 0. A class without pixels
    has the weight of one pixel.
    """
    over = (2, 3)
    shared = (predicted * targets).sum(over)
    both = (predicted**2).sum(over) + (targets**2).sum(over)
    return (1 - (2 * shared + 1) / (both + 1)).mean()


__all__ = ["StedFmForSemanticSegmentation", "StedFmSegmenterOutput"]
