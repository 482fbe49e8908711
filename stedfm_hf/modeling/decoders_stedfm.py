"""Decoders of the segmentation model: patch tokens of some layers to logits of every pixel."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import nn
from transformers.models.upernet.modeling_upernet import UperNetConvModule, UperNetFCNHead, UperNetHead

from .configuration_stedfm import StedFmConfig

POOL_SCALES = (1, 2, 3, 6)
"""Of the pyramid pooling of UperNet (Xiao et al. 2018)."""
AUXILIARY_LEVEL = 2
GROUPS = 8


def spread_layers(layers: int, count: int) -> tuple[int, ...]:
    """Numbers (from 1) of `count` layers that lie evenly, the last one among them; of few layers some come twice.

    Example:
    ```python
    >>> spread_layers(12, 4), spread_layers(24, 4), spread_layers(2, 4)
    ((3, 6, 9, 12), (6, 12, 18, 24), (1, 1, 2, 2))

    ```
    """
    return tuple(-(-layers * (number + 1) // count) for number in range(count))


class StedFmLinearDecoder(nn.Module):
    """The pixels of a patch from its own token (the reference's default head).

    Attributes:
        layers: Numbers of the encoder layers it takes; 0 stands for the tokens after the final norm.
    """

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__()
        self.layers, self.patch_size, self.num_labels = (0,), config.patch_size, config.num_labels
        self.projection = nn.Linear(config.hidden_size, config.patch_size**2 * config.num_labels)

    def forward(self, maps: Sequence[torch.Tensor], pixel_values: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Logits (B, L, H, W) of the one map (B, D, h, w)."""
        (tokens,) = maps
        side = self.patch_size
        pixels = self.projection(tokens.permute(0, 2, 3, 1)).unflatten(-1, (side, side, self.num_labels))
        return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3), None


class StedFmConvBlock(nn.Module):
    """Convolution 3 x 3, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.batch_norm = nn.BatchNorm2d(out_channels)

    def forward(self, map: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (B, C', h, w)."""
        return self.batch_norm(self.conv(map)).relu()


class StedFmUpBlock(nn.Module):
    """Transposed convolution to twice the size, then a block."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.block = StedFmConvBlock(out_channels, out_channels)

    def forward(self, map: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (B, C', 2 h, 2 w)."""
        return self.block(self.up(map))


class StedFmUnetrDecoder(nn.Module):
    """The reference's full decoder: layers brought up to ever finer grids and merged, the image itself at the end.

    For patches of 16 pixels it takes layers 3, 6, 9 and 12 of 12, without the final norm; for smaller patches it has
    a level less for each halving.

    Raises:
        ValueError: The side of a patch is no power of two, or below 4.
    """

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__()
        doublings = config.patch_size.bit_length() - 1
        if config.patch_size != 2**doublings or doublings < 2:
            raise ValueError(f'decoder "unetr" doubles: patch_size must be 4, 8, 16, ..., got {config.patch_size}')
        self.layers = spread_layers(config.num_hidden_layers, doublings)
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
        """Logits (B, L, H, W) of maps (B, D, h, w), the shallowest layer first."""
        *others, deepest = maps
        merged = self.deepest(deepest)
        for map, lateral, merge in zip(reversed(others), self.laterals, self.merges, strict=True):
            merged = merge(torch.cat([lateral(map), merged], dim=1))
        return self.classifier(self.predict(torch.cat([self.image(pixel_values), merged], dim=1))), None


class StedFmPyramid(nn.Module):
    """Maps of one size to a pyramid: 4, 2, 1 and 1/2 times as fine, with the channels of `widths`."""

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
        """Four maps (B, D, h, w), the shallowest first, to the pyramid, the finest first."""
        first, second, third, last = maps
        return [self.finest(first), self.finer(second), third, self.coarser(last)]


class StedFmUperNetDecoder(nn.Module):
    """Four layers after the final norm, a pyramid of them, and transformers' UperNet head.

    Batch normalisation is replaced by group normalisation: masks are few and batches small, a batch of one image has
    a single value at pool scale 1, and what an image gets shall not depend on its neighbours in the batch.
    """

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__()
        channels = config.decode_head_hidden_size or max(16, config.hidden_size // 4 // 16 * 16)
        if channels % GROUPS:
            raise ValueError(f"decode_head_hidden_size {channels} is not a multiple of {GROUPS}")
        self.layers = spread_layers(config.num_hidden_layers, 4)
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
        """Logits (B, L, H, W), and in training those of the auxiliary head, where there is one."""
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

__all__ = ["DECODERS", "StedFmLinearDecoder", "StedFmUnetrDecoder", "StedFmUperNetDecoder", "spread_layers"]
