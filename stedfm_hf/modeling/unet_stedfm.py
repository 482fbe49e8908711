"""Denoising U-Net of the diffusion model, conditioned on embeddings of STED-FM or on classes."""

import math
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn
from torch.nn import functional


class StedFmUNet(ModelMixin, ConfigMixin):
    """U-Net that predicts the noise, the velocity or the clean image from a noisy image.

    The embedding of an image, the class, or both are added to the embedding of the time. Rows without a condition
    depend on the time only.

    Args:
        sample_size: Height and width of the training images, in pixels; others that `size_multiple` divides work.
        in_channels: Number of channels of the images.
        out_channels: Number of channels of the prediction.
        base_channels: Number of channels of the first stage; the embeddings of time and condition have 4 times as
            many.
        channel_multipliers: Channels after each stage, as multiples of `base_channels`. Every stage but the last
            halves height and width.
        patch_size: Size of the squares of pixels that become channels before the first convolution, in pixels; 1, as
            in the reference, keeps every pixel, and 2 needs about a quarter of the computations.
        attention_heads: Number of heads of each attention.
        attention_head_dim: Channels of each head.
        memory_tokens: Number of learned keys and values of each attention.
        condition_dim: Length of the embeddings that condition the network; None for a network without them.
        num_classes: Number of classes that condition the network; None for a network without them.

    Attributes:
        condition_mean: (condition_dim,), subtracted from the embeddings; zeros until set.
        condition_std: (condition_dim,), divides the embeddings; ones until set.

    Source:
        Network of the STED-FM paper: that of Ho et al., "Denoising Diffusion Probabilistic Models", 2020, with linear
        attention (Shen et al., "Efficient Attention", 2021), learned memory and RMS normalisation.

    Example:
    ```python
    >>> import torch
    >>> from stedfm_hf import StedFmUNet
    >>> unet = StedFmUNet(base_channels=8, channel_multipliers=(1, 2), patch_size=2, condition_dim=128)
    >>> unet(torch.randn(3, 1, 64, 64), timestep=10, condition=torch.randn(3, 128)).sample.shape
    torch.Size([3, 1, 64, 64])

    ```
    """

    condition_mean: torch.Tensor
    condition_std: torch.Tensor
    _supports_gradient_checkpointing = True
    _no_split_modules = ["StedFmUNetBlock", "StedFmUNetMidBlock"]

    @register_to_config
    def __init__(
        self,
        sample_size: int = 224,
        in_channels: int = 1,
        out_channels: int = 1,
        base_channels: int = 64,
        channel_multipliers: tuple[int, ...] = (1, 2, 4),
        patch_size: int = 1,
        attention_heads: int = 4,
        attention_head_dim: int = 8,
        memory_tokens: int = 4,
        condition_dim: int | None = 384,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        widths = [base_channels * multiplier for multiplier in (1, *channel_multipliers)]
        stages = list(enumerate(zip(widths, widths[1:], strict=False)))
        last = len(stages) - 1
        embedding_dim = 4 * base_channels

        def attention(channels: int, is_linear: bool) -> StedFmUNetAttention:
            return StedFmUNetAttention(channels, attention_heads, attention_head_dim, memory_tokens, is_linear)

        self.conv_in = nn.Conv2d(in_channels * patch_size**2, base_channels, 7, padding=3)
        self.time_proj = Timesteps(base_channels, flip_sin_to_cos=False, downscale_freq_shift=1)
        self.time_embedding = TimestepEmbedding(base_channels, embedding_dim, act_fn="gelu")
        self.condition_embedding = None
        if condition_dim is not None:
            self.condition_embedding = TimestepEmbedding(condition_dim, embedding_dim, act_fn="gelu")
            self.register_buffer("condition_mean", torch.zeros(condition_dim))
            self.register_buffer("condition_std", torch.ones(condition_dim))
        self.class_embedding = None if num_classes is None else nn.Embedding(num_classes, embedding_dim)

        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for stage, (narrow, wide) in stages:
            down = _halve(narrow, wide) if stage < last else nn.Conv2d(narrow, wide, 3, padding=1)
            block = StedFmUNetBlock(narrow, narrow, embedding_dim, attention(narrow, stage < last), down)
            self.down_blocks.append(block)
        self.mid_block = StedFmUNetMidBlock(widths[-1], embedding_dim, attention(widths[-1], False))
        for stage, (narrow, wide) in reversed(stages):
            up = _double(wide, narrow) if stage > 0 else nn.Conv2d(wide, narrow, 3, padding=1)
            block = StedFmUNetBlock(wide + narrow, wide, embedding_dim, attention(wide, stage < last), up)
            self.up_blocks.append(block)
        self.resnet_out = StedFmResnetBlock(2 * base_channels, base_channels, embedding_dim)
        self.conv_out = nn.Conv2d(base_channels, out_channels * patch_size**2, 1)

    @property
    def size_multiple(self) -> int:
        """Number of pixels that must divide the height and the width of images."""
        return self.config.patch_size * 2 ** (len(self.config.channel_multipliers) - 1)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        condition: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
        condition_mask: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """Predict the target of the training from noisy images.

        Args:
            sample: (B, in_channels, H, W) noisy images; `size_multiple` divides H and W.
            timestep: Step of the noise schedule, one number or (B,).
            condition: (B, condition_dim) embeddings, which are standardised here; None for no condition.
            class_labels: (B,) indices of classes; -1 for a row without a class.
            condition_mask: (B,) bool, False for rows whose condition and class are ignored; None keeps all.
            return_dict: Whether to return a dataclass.

        Returns:
            `sample` (B, out_channels, H, W), as the attribute of a dataclass or in a tuple.

        Raises:
            ValueError: If a shape does not fit the network, or a condition or class is given to a network without it.
        """
        self._check(sample, condition, class_labels)
        embedding = self._embed(sample, timestep, condition, class_labels, condition_mask)
        hidden = functional.pixel_unshuffle(sample, self.config.patch_size)
        stem = hidden = self.conv_in(hidden)
        skips = []
        for block in self.down_blocks:
            first, second, hidden = self._run(block, hidden, embedding)
            skips += [first, second]
        hidden = self._run(self.mid_block, hidden, embedding)
        for block in self.up_blocks:
            _, _, hidden = self._run(block, hidden, embedding, skips.pop(), skips.pop())
        hidden = self.conv_out(self.resnet_out(torch.cat([hidden, stem], dim=1), embedding))
        output = functional.pixel_shuffle(hidden, self.config.patch_size)
        return UNet2DOutput(sample=output) if return_dict else (output,)

    def _run(self, block: nn.Module, *inputs: torch.Tensor) -> Any:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)

    def _embed(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        condition: torch.Tensor | None,
        class_labels: torch.Tensor | None,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the embedding (B, 4 * base_channels) of time and condition."""
        times = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        embedding = self.time_embedding(self.time_proj(times).to(sample.dtype))
        conditions = []
        if condition is not None and self.condition_embedding is not None:
            standardised = (condition.to(sample.dtype) - self.condition_mean) / self.condition_std
            conditions.append(self.condition_embedding(standardised))
        if class_labels is not None and self.class_embedding is not None:
            known = (class_labels >= 0)[:, None]
            conditions.append(self.class_embedding(class_labels.clamp(min=0)) * known)
        for each in conditions:
            # A product and not a choice of rows: every weight takes part in every step, as distributed training needs.
            embedding = embedding + (each if mask is None else each * mask[:, None].to(each.dtype))
        return embedding

    def _check(self, sample: torch.Tensor, condition: torch.Tensor | None, class_labels: torch.Tensor | None) -> None:
        """Raise a ValueError if the inputs do not fit the network."""
        config, multiple = self.config, self.size_multiple
        if sample.ndim != 4 or sample.shape[1] != config.in_channels:
            raise ValueError(f"sample must be (batch, {config.in_channels}, height, width), got {tuple(sample.shape)}")
        if sample.shape[2] % multiple or sample.shape[3] % multiple or not sample[0, 0].numel():
            raise ValueError(
                f"height {sample.shape[2]} and width {sample.shape[3]} must be multiples of {multiple} (the "
                "patch size, times 2 for every stage but the last)"
            )
        if condition is not None and tuple(condition.shape) != (len(sample), config.condition_dim):
            expected = f"({len(sample)}, {config.condition_dim})" if config.condition_dim else "None for this network"
            raise ValueError(f"condition must be {expected}, got {tuple(condition.shape)}")
        if class_labels is None:
            return
        if config.num_classes is None:
            raise ValueError("class_labels must be None: this network is not conditioned on classes")
        if tuple(class_labels.shape) != (len(sample),) or class_labels.is_floating_point():
            raise ValueError(
                f"class_labels must be ({len(sample)},) integers, got {tuple(class_labels.shape)} {class_labels.dtype}"
            )


def _halve(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * in_channels, out_channels, 1))


def _double(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(in_channels, out_channels, 3, padding=1))


class StedFmRMSNorm(nn.Module):
    """Normalisation of maps (B, C, h, w) to the root mean square of their channels, with a factor for each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalise maps (B, C, h, w)."""
        scale = self.weight * math.sqrt(len(self.weight))
        return functional.normalize(hidden, dim=1) * scale[:, None, None]


class StedFmResnetBlock(nn.Module):
    """Residual block of two convolutions; the embedding of time and condition scales and shifts the first."""

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.time_emb_proj = nn.Linear(embedding_dim, 2 * out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = StedFmRMSNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = StedFmRMSNorm(out_channels)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, hidden: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Transform maps (B, in_channels, h, w) with embeddings (B, embedding_dim) to (B, out_channels, h, w)."""
        scale, shift = self.time_emb_proj(functional.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        inner = self.norm1(self.conv1(hidden)) * (scale + 1) + shift
        inner = self.norm2(self.conv2(functional.silu(inner)))
        return functional.silu(inner) + self.conv_shortcut(hidden)


class StedFmUNetAttention(nn.Module):
    """Attention between all positions of maps (B, C, h, w), and to learned keys and values.

    Linear attention costs as much as there are positions; full attention costs the square of that.
    """

    def __init__(self, channels: int, heads: int, head_dim: int, memory_tokens: int, is_linear: bool) -> None:
        super().__init__()
        self.heads, self.head_dim, self.is_linear = heads, head_dim, is_linear
        self.norm = StedFmRMSNorm(channels)
        self.memory = nn.Parameter(torch.randn(2, heads, memory_tokens, head_dim))
        self.to_qkv = nn.Conv2d(channels, 3 * heads * head_dim, 1, bias=False)
        self.to_out = nn.Conv2d(heads * head_dim, channels, 1)
        self.norm_out = StedFmRMSNorm(channels) if is_linear else nn.Identity()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute the attention of maps (B, C, h, w), keeping the shape; the input is not added."""
        batch, _, height, width = hidden.shape
        qkv = self.to_qkv(self.norm(hidden)).view(batch, 3, self.heads, self.head_dim, height * width)
        query, key, value = qkv.transpose(3, 4).unbind(1)
        memory = self.memory[:, None].expand(-1, batch, -1, -1, -1)
        key, value = (torch.cat(pair, dim=2) for pair in zip(memory, (key, value), strict=True))
        if self.is_linear:
            context = key.softmax(dim=2).transpose(2, 3) @ value
            output = (query.softmax(dim=3) * self.head_dim**-0.5) @ context
        else:
            output = functional.scaled_dot_product_attention(query, key, value)
        output = output.transpose(2, 3).reshape(batch, self.heads * self.head_dim, height, width)
        return self.norm_out(self.to_out(output))


class StedFmUNetBlock(nn.Module):
    """Stage of the network: two residual blocks and an attention; `resample` then changes size and width."""

    def __init__(
        self, in_channels: int, channels: int, embedding_dim: int, attention: StedFmUNetAttention, resample: nn.Module
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(StedFmResnetBlock(in_channels, channels, embedding_dim) for _ in range(2))
        self.attention = attention
        self.resample = resample

    def forward(
        self, hidden: torch.Tensor, embedding: torch.Tensor, *skips: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Transform maps (B, C, h, w).

        Args:
            hidden: (B, C, h, w).
            embedding: (B, embedding_dim) of time and condition.
            skips: Maps that are appended to the inputs of the two residual blocks; none on the way down.

        Returns:
            Maps (B, channels, h, w) after the first residual block and after the attention, and the latter resampled.
        """
        first = self.resnets[0](torch.cat([hidden, *skips[:1]], dim=1), embedding)
        second = self.resnets[1](torch.cat([first, *skips[1:]], dim=1), embedding)
        second = second + self.attention(second)
        return first, second, self.resample(second)


class StedFmUNetMidBlock(nn.Module):
    """Middle of the network: an attention between two residual blocks."""

    def __init__(self, channels: int, embedding_dim: int, attention: StedFmUNetAttention) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(StedFmResnetBlock(channels, channels, embedding_dim) for _ in range(2))
        self.attention = attention

    def forward(self, hidden: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Transform maps (B, C, h, w) with embeddings (B, embedding_dim), keeping the shape."""
        hidden = self.resnets[0](hidden, embedding)
        return self.resnets[1](hidden + self.attention(hidden), embedding)


__all__ = ["StedFmUNet"]
