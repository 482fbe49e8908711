"""Decoders of the segmentation model, from the patch tokens of some layers to the logits of every pixel."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import nn
from transformers.models.upernet.modeling_upernet import UperNetConvModule, UperNetFCNHead, UperNetHead

from .configuration_stedfm import StedFmConfig
from .layers_stedfm import StedFmBatchNorm2d

POOL_SCALES = (1, 2, 3, 6)
"""Scales of the pyramid pooling (source: UperNet, Xiao et al. 2018)."""
AUXILIARY_LEVEL = 2
GROUPS = 8


def spaced_layers(layers: int, count: int) -> tuple[int, ...]:
    """Return the numbers (from 1) of `count` evenly spaced layers, including the last; few layers are repeated.

    Example:
    ```python
    >>> spaced_layers(12, 4), spaced_layers(24, 4), spaced_layers(2, 4)
    ((3, 6, 9, 12), (6, 12, 18, 24), (1, 1, 2, 2))

    ```
    """
    return tuple(-(-layers * (number + 1) // count) for number in range(count))


class StedFmLinearDecoder(nn.Module):
    """Linear decoder: predicts the pixels of a patch from its token (reference protocol, default head).

    Attributes:
        layers: Numbers of the encoder layers it uses; 0 is the tokens after the final norm.
    """

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__()
        self.layers, self.patch_size, self.num_labels = (0,), config.patch_size, config.num_labels
        self.projection = nn.Linear(config.hidden_size, config.patch_size**2 * config.num_labels)

    def forward(self, maps: Sequence[torch.Tensor], pixel_values: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Compute the logits (B, L, H, W) from one map (B, D, h, w)."""
        (tokens,) = maps
        side = self.patch_size
        pixels = self.projection(tokens.permute(0, 2, 3, 1)).unflatten(-1, (side, side, self.num_labels))
        return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3), None


class StedFmConvBlock(nn.Module):
    """3 x 3 convolution, batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.batch_norm = StedFmBatchNorm2d(out_channels)

    def forward(self, map: torch.Tensor) -> torch.Tensor:
        """Transform (B, C, h, w) to (B, C', h, w)."""
        return self.batch_norm(self.conv(map)).relu()


class StedFmUpBlock(nn.Module):
    """Transposed convolution to twice the size, followed by a convolution block."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.block = StedFmConvBlock(out_channels, out_channels)

    def forward(self, map: torch.Tensor) -> torch.Tensor:
        """Transform (B, C, h, w) to (B, C', 2 h, 2 w)."""
        return self.block(self.up(map))


class StedFmUnetrDecoder(nn.Module):
    """UNETR decoder: merges layers and the image on increasingly fine grids (reference protocol, full decoder).

    For patches of 16 pixels it uses layers 3, 6, 9 and 12 of 12, without the final norm; for every halving of the
    patch size it has one level less.

    Raises:
        ValueError: If the patch size is not a power of two, or is below 4.
    """

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__()
        doublings = config.patch_size.bit_length() - 1
        if config.patch_size != 2**doublings or doublings < 2:
            raise ValueError(f'decoder "unetr" doubles: patch_size must be 4, 8, 16, ..., got {config.patch_size}')
        self.layers = spaced_layers(config.num_hidden_layers, doublings)
        width = config.hidden_size
        channels = [64 * 2 ** (doublings - 1 - level) for level in range(doublings)]
        self.deepest = nn.ConvTranspose2d(width, channels[0], kernel_size=2, stride=2)
        self.laterals, self.merges = nn.ModuleList(), nn.ModuleList()
        for level in range(doublings - 1):
            widths = [width, *channels[: level + 1]]
            self.laterals.append(nn.Sequential(*map(StedFmUpBlock, widths, widths[1:])))
            same = [StedFmConvBlock(channels[level], channels[level]) for _ in range(2 if level == 0 else 1)]
            up = nn.ConvTranspose2d(channels[level], channels[level + 1], kernel_size=2, stride=2)
            self.merges.append(nn.Sequential(StedFmConvBlock(2 * channels[level], channels[level]), *same, up))
        self.image = nn.Sequential(StedFmConvBlock(config.num_channels, 32), StedFmConvBlock(32, channels[-1]))
        last = channels[-1]
        self.predict = nn.Sequential(StedFmConvBlock(2 * last, last), StedFmConvBlock(last, last))
        self.classifier = nn.Conv2d(last, config.num_labels, kernel_size=1)

    def forward(self, maps: Sequence[torch.Tensor], pixel_values: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Compute the logits (B, L, H, W) from maps (B, D, h, w), the shallowest layer first."""
        *others, deepest = maps
        merged = self.deepest(deepest)
        for map, lateral, merge in zip(reversed(others), self.laterals, self.merges, strict=True):
            merged = merge(torch.cat([lateral(map), merged], dim=1))
        return self.classifier(self.predict(torch.cat([self.image(pixel_values), merged], dim=1))), None


class StedFmPyramid(nn.Module):
    """Pyramid of maps at 4, 2, 1 and 1/2 times the resolution of the patch grid, with `widths` channels."""

    def __init__(self, hidden_size: int, channels: int) -> None:
        super().__init__()
        self.widths = (channels, channels, hidden_size, hidden_size)
        self.finest = nn.Sequential(
            nn.ConvTranspose2d(hidden_size, 2 * channels, kernel_size=2, stride=2),
            nn.GroupNorm(GROUPS, 2 * channels),
            nn.GELU(),
            nn.ConvTranspose2d(2 * channels, channels, kernel_size=2, stride=2),
        )
        self.finer = nn.ConvTranspose2d(hidden_size, channels, kernel_size=2, stride=2)
        self.coarser = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Transform four maps (B, D, h, w), the shallowest first, to a pyramid, the finest first."""
        first, second, third, last = maps
        return [self.finest(first), self.finer(second), third, self.coarser(last)]


class StedFmUperNetDecoder(nn.Module):
    """UperNet decoder: four layers after the final norm, a pyramid, and the UperNet head of transformers.

    Group normalisation replaces batch normalisation, because batches are small, a batch of one image has a single
    value at pool scale 1, and predictions must not depend on the other images in the batch.
    """

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__()
        channels = config.decode_head_hidden_size or max(16, config.hidden_size // 4 // 16 * 16)
        if channels % GROUPS:
            raise ValueError(f"decode_head_hidden_size {channels} is not a multiple of {GROUPS}")
        self.layers = spaced_layers(config.num_hidden_layers, 4)
        self.pyramid = StedFmPyramid(config.hidden_size, channels)
        settings = SimpleNamespace(
            pool_scales=POOL_SCALES,
            hidden_size=channels,
            num_labels=config.num_labels,
            auxiliary_in_channels=None,
            auxiliary_channels=channels,
            auxiliary_num_convs=1,
            auxiliary_concat_input=False,
        )
        self.head = UperNetHead(settings, self.pyramid.widths)
        self.auxiliary = (
            UperNetFCNHead(settings, self.pyramid.widths, in_index=AUXILIARY_LEVEL)
            if config.use_auxiliary_head
            else None
        )
        for module in list(self.modules()):
            if isinstance(module, UperNetConvModule):
                module.batch_norm = nn.GroupNorm(GROUPS, module.conv.out_channels)

    def forward(
        self, maps: Sequence[torch.Tensor], pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute the logits (B, L, H, W), and in training those of the auxiliary head if there is one."""
        levels = self.pyramid(maps)
        logits = self._enlarge(self.head(levels), pixel_values)
        if self.auxiliary is None or not self.training:
            return logits, None
        return logits, self._enlarge(self.auxiliary(levels), pixel_values)

    @staticmethod
    def _enlarge(logits: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(logits, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False)


DECODERS: dict[str, type[StedFmLinearDecoder | StedFmUnetrDecoder | StedFmUperNetDecoder]] = {
    "linear": StedFmLinearDecoder,
    "unetr": StedFmUnetrDecoder,
    "upernet": StedFmUperNetDecoder,
}

__all__ = ["DECODERS", "StedFmLinearDecoder", "StedFmUnetrDecoder", "StedFmUperNetDecoder", "spaced_layers"]
