"""Masked autoencoder for pretraining STED-FM."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_stedfm import StedFmConfig
from .layers_stedfm import StedFmLayer, patchify, sincos_position_table, unpatchify
from .modeling_stedfm import StedFmModel, StedFmPreTrainedModel


@dataclass
class StedFmForPreTrainingOutput(ModelOutput):
    """Output of `StedFmForPreTraining`, with N patches, M of them masked, of size p.

    Attributes:
        loss: Scalar, mean squared error over the pixels of the masked patches.
        logits: (B, M, p * p * C), predicted pixels of the masked patches in the order of `ids_masked`, inside a
            patch in the order (row, column, channel).
        mask: (B, N) bool, True where a patch was masked, raster order.
        ids_masked: (B, M) raster indices of the masked patches.
        ids_restore: (B, N) index in [kept patches, masked patches] of each patch in raster order.
        hidden_states: Input of the first encoder layer and output of each, (B, 1 + N - M, D), if requested.
        attentions: Attention weights (B, heads, 1 + N - M, 1 + N - M) of each encoder layer, if requested.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    ids_masked: torch.Tensor | None = None
    ids_restore: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class StedFmDecoder(nn.Module):
    """Small transformer that predicts the pixels of the masked patches from the encoded visible ones."""

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__()
        width = config.decoder_hidden_size
        self.embed = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = nn.ModuleList(
            StedFmLayer(config, width, config.decoder_num_attention_heads, config.decoder_intermediate_size)
            for _ in range(config.decoder_num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.head = nn.Linear(width, config.patch_size * config.patch_size * config.num_channels)

    def forward(self, encoded: torch.Tensor, ids_shuffle: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Predict the masked patches.

        Args:
            encoded: (B, 1 + K, D) class token and kept patches.
            ids_shuffle: (B, N) raster indices, the K kept patches first.
            grid: Rows and columns of patches.

        Returns:
            (B, N - K, p * p * C), in the order of `ids_shuffle[:, K:]`.
        """
        visible = self.embed(encoded)
        batch, kept, width = visible.shape
        kept -= 1
        positions = sincos_position_table(*grid, width, visible.dtype, visible.device)[1:][ids_shuffle]
        # Attention does not mind the order of its tokens: with the visible ones first, nothing has to be scattered
        # into raster order and gathered back.
        masked = self.mask_token + positions[:, kept:]
        hidden_states = torch.cat(
            [visible[:, :1], visible[:, 1:] + positions[:, :kept], masked.to(visible.dtype)], dim=1
        )
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states)
        # Nobody reads what the last layer would make of the visible tokens.
        hidden_states = self.layers[-1](hidden_states, last=masked.shape[1])
        return self.head(self.norm(hidden_states))


class StedFmForPreTraining(StedFmPreTrainedModel):
    """Masked autoencoder: masks most patches, encodes the others and predicts the pixels of the masked ones.

    Example:
    ```python
    >>> import torch
    >>> from stedfm_hf import StedFmConfig, StedFmForPreTraining
    >>> model = StedFmForPreTraining(StedFmConfig(num_hidden_layers=2)).eval()
    >>> images = torch.rand(2, 1, 224, 224)
    >>> output = model(images, generator=torch.Generator().manual_seed(0))
    >>> output.logits.shape, model.reconstruct(images, output).shape
    (torch.Size([2, 147, 256]), torch.Size([2, 1, 224, 224]))

    ```
    """

    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__(config)
        self.stedfm = StedFmModel(config)
        self.decoder = StedFmDecoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, StedFmDecoder):
            init.normal_(module.mask_token, std=self.config.initializer_range)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        *,
        noise: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        interpolate_pos_encoding: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> StedFmForPreTrainingOutput:
        """Run the masked autoencoder and compute its loss.

        At most one of `noise`, `bool_masked_pos` and `generator` sets the mask; without them it is sampled from the
        global generator of torch.

        Args:
            pixel_values: (B, C, H, W) float in [0, 1].
            noise: (B, N) real numbers; the int(N * (1 - mask_ratio)) patches with the smallest values are kept.
            bool_masked_pos: (B, N) bool, True where a patch is to be masked; the same number in every row.
            generator: Random generator of the noise.
            interpolate_pos_encoding: As in `StedFmModel.forward`.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            A `StedFmForPreTrainingOutput`.

        Raises:
            ValueError: If the mask has the wrong shape, is empty, masks all patches, or masks different numbers of
                patches in different rows.
        """
        embeddings = self.stedfm.embeddings
        grid = embeddings.grid(pixel_values, interpolate_pos_encoding)
        ids_shuffle, kept = self._choose(pixel_values, grid[0] * grid[1], noise, bool_masked_pos, generator)
        ids_masked = ids_shuffle[:, kept:]

        kwargs["return_dict"] = True  # of the encoder; that of this model is settled by its decorator
        encoded = self.stedfm.encoder(embeddings(pixel_values, ids_keep=ids_shuffle[:, :kept]), **kwargs)
        logits = self.decoder(self.stedfm.norm(encoded.last_hidden_state), ids_shuffle, grid)

        targets = self.targets(pixel_values, ids_masked)
        mask = torch.ones(ids_shuffle.shape, dtype=torch.bool, device=ids_shuffle.device)
        return StedFmForPreTrainingOutput(
            loss=nn.functional.mse_loss(logits.float(), targets),
            logits=logits,
            mask=mask.scatter(1, ids_shuffle[:, :kept], False),
            ids_masked=ids_masked,
            ids_restore=ids_shuffle.argsort(dim=1),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def targets(self, pixel_values: torch.Tensor, ids_masked: torch.Tensor) -> torch.Tensor:
        """Return the targets of the decoder: the pixels of masked patches, standardised with `norm_pix_loss`.

        Args:
            pixel_values: (B, C, H, W), the input of the forward pass.
            ids_masked: (B, M) raster indices of the masked patches.

        Returns:
            (B, M, p * p * C) float32, in the order of `ids_masked`.
        """
        patches = patchify(pixel_values, self.config.patch_size)
        targets = patches.gather(1, ids_masked[:, :, None].expand(-1, -1, patches.shape[2])).float()
        return (targets - _mean(targets)) / _std(targets) if self.config.norm_pix_loss else targets

    def _choose(
        self,
        pixel_values: torch.Tensor,
        patches: int,
        noise: torch.Tensor | None,
        bool_masked_pos: torch.Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor, int]:
        """Order the patches (B, N) as raster indices with the kept ones first, and return the number of kept ones.

        Patches with the least noise are kept; a given mask serves as noise of 0 and 1 and keeps the raster order
        (stable sort).

        Raises:
            ValueError: If more than one choice is given, a shape is wrong, or the rows mask different numbers of
                patches, none or all.
        """
        if sum(choice is not None for choice in (noise, bool_masked_pos, generator)) > 1:
            raise ValueError("give at most one of noise, bool_masked_pos and generator")
        shape = (pixel_values.shape[0], patches)
        kept = int(patches * (1 - self.config.mask_ratio))
        if bool_masked_pos is not None:
            _check_shape("bool_masked_pos", bool_masked_pos, shape)
            counts = bool_masked_pos.sum(dim=1)
            kept = patches - int(counts[0])
            if not (counts == counts[0]).all():
                raise ValueError(f"bool_masked_pos must mask equally many patches in every row, got {counts.tolist()}")
            noise = bool_masked_pos.to(pixel_values.device, torch.float32)
        elif noise is None:
            device = pixel_values.device if generator is None else generator.device
            noise = torch.rand(shape, generator=generator, device=device).to(pixel_values.device)
        _check_shape("noise", noise, shape)
        if not 0 < kept < patches:
            raise ValueError(f"the mask keeps {kept} of {patches} patches: mask some, but not all")
        return noise.argsort(dim=1, stable=bool_masked_pos is not None), kept

    @torch.no_grad()
    def reconstruct(self, pixel_values: torch.Tensor, output: StedFmForPreTrainingOutput) -> torch.Tensor:
        """Fill the masked patches of images with their predictions.

        Args:
            pixel_values: (B, C, H, W), the input of the forward pass.
            output: Output of the forward pass.

        Returns:
            Images (B, C, H, W) float32 with visible patches of the input and predicted masked patches. With
            `norm_pix_loss` the mean and standard deviation of each masked patch are those of the input, because they
            are not predicted.
        """
        patch_size = self.config.patch_size
        assert output.ids_masked is not None and output.logits is not None
        patches = patchify(pixel_values, patch_size).float()
        index = output.ids_masked[:, :, None].expand(-1, -1, patches.shape[2])
        predictions = output.logits.float()
        if self.config.norm_pix_loss:
            hidden = patches.gather(1, index)
            predictions = predictions * _std(hidden) + _mean(hidden)
        height, width = pixel_values.shape[2:]
        return unpatchify(patches.scatter(1, index, predictions), patch_size, height, width)


def _check_shape(name: str, tensor: torch.Tensor, shape: tuple[int, int]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be (batch, patches) = {shape}, got {tuple(tensor.shape)}")


def _mean(patches: torch.Tensor) -> torch.Tensor:
    return patches.mean(dim=-1, keepdim=True)


def _std(patches: torch.Tensor) -> torch.Tensor:
    return (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()


__all__ = ["StedFmForPreTraining", "StedFmForPreTrainingOutput"]
