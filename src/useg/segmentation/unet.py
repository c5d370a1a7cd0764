"""The U-Net, in 2D and 3D by the same code: `UNet.paper` as published in 2015, `UNet` as trained today."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from useg.segmentation.norm import BATCH_NORM

_CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOL: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_LIGHT = 8
_DROPOUT: dict[int, Any] = {2: nn.Dropout2d, 3: nn.Dropout3d}


class DoubleConvolution(nn.Module):
    """Two 3x3 (3x3x3) convolutions, each followed by optional BatchNorm and ReLU.

    With `residual`, the block's input (through a 1x1 convolution where the width changes) is added
    before the last ReLU.
    """

    def __init__(self, dims: int, inputs: int, width: int, *, valid: bool, batch_norm: bool, residual: bool) -> None:
        super().__init__()
        padding = 0 if valid else 1
        conv, norm = _CONV[dims], BATCH_NORM[dims]
        self.conv1 = conv(inputs, width, 3, padding=padding, bias=not batch_norm)
        self.norm1 = norm(width) if batch_norm else nn.Identity()
        self.conv2 = conv(width, width, 3, padding=padding, bias=not batch_norm)
        self.norm2 = norm(width) if batch_norm else nn.Identity()
        self.shortcut: nn.Module | None = None
        if residual:
            self.shortcut = conv(inputs, width, 1) if inputs != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, *space) -> (N, width, *space), 4 smaller along each axis when valid."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return torch.relu(y)


class Convolution(nn.Sequential):
    """One convolution, followed by optional BatchNorm and ReLU."""

    def __init__(self, dims: int, inputs: int, width: int, *, batch_norm: bool, **arguments: Any) -> None:
        super().__init__()
        self.conv1 = _CONV[dims](inputs, width, bias=not batch_norm, **arguments)
        self.norm1 = BATCH_NORM[dims](width) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, *space) -> (N, width, *space), smaller by the stride."""
        return torch.relu(self.norm1(self.conv1(x)))


class UNet(nn.Module):
    """A contracting path, an expansive path, and skips between them.

    Args:
        dims: 2 or 3 spatial axes.
        channels: channels of the input.
        outputs: channels of the result (logits; nothing is applied to them).
        base: width (channels) at full resolution; doubles at each level up to `max_width`.
        light_top: at full resolution there is one convolution each way, of which the first halves the resolution, and
            the image itself is the skip; `base` is then the width after that.
        depth: how many times the resolution is halved.
        max_width: bound of the doubling.
        strides: pooling per level and axis, `depth` tuples; default 2 everywhere. An axis of few
            planes is left alone by 1.
        valid: unpadded convolutions and cropped skips (2015) instead of padded ones.
        batch_norm: BatchNorm after each 3x3 convolution; `fold()` merges it away after training.
        residual: a shortcut around each pair of convolutions.
        deep_supervision: while training, also return logits of the coarser levels.
        dropout: probability, at the end of the contracting path (its last two levels).

    Raises:
        ValueError: `dims` is not 2 or 3, or `strides` does not fit `depth` and `dims`.

    Source: Ronneberger, Fischer, Brox 2015 (arXiv 1505.04597), figure 1; 3D as Cicek et al. 2016.
    Padding, BatchNorm, residual blocks and deep supervision are later additions.
    """

    def __init__(
        self,
        *,
        dims: int = 2,
        channels: int = 1,
        outputs: int = 2,
        base: int = 16,
        depth: int = 4,
        max_width: int = 1024,
        strides: Sequence[Sequence[int]] | None = None,
        valid: bool = False,
        batch_norm: bool = True,
        residual: bool = False,
        deep_supervision: bool = False,
        dropout: float = 0.0,
        light_top: bool = False,
    ) -> None:
        super().__init__()
        if dims not in (2, 3):
            raise ValueError(f"dims is 2 or 3, not {dims}")
        self.strides = tuple(tuple(s) for s in strides) if strides is not None else ((2,) * dims,) * depth
        if len(self.strides) != depth or any(len(s) != dims for s in self.strides):
            raise ValueError(f"strides wants {depth} tuples of {dims} numbers, not {self.strides}")
        self.dims, self.valid, self.deep_supervision = dims, valid, deep_supervision
        if light_top and (valid or depth < 2):
            raise ValueError("a light top wants padded convolutions and a depth of at least 2")
        inner = self.strides[light_top:]
        widths = [min(base * 2**level, max_width) for level in range(len(inner) + 1)]

        def block(inputs: int, width: int) -> DoubleConvolution:
            return DoubleConvolution(dims, inputs, width, valid=valid, batch_norm=batch_norm, residual=residual)

        self.stem = self.top = None
        top = widths[0]
        if light_top:
            # each output pixel sees all pixels of its window, and one more on each side
            window = [2 * s if s > 1 else 3 for s in self.strides[0]]
            around = [(w - s + 1) // 2 for w, s in zip(window, self.strides[0], strict=True)]
            options = {"kernel_size": window, "stride": self.strides[0], "padding": around}
            self.stem = Convolution(dims, channels, widths[0], batch_norm=batch_norm, **options)
            top = max(_LIGHT, outputs)
            self.unfold = _UP[dims](widths[0], top, self.strides[0], stride=self.strides[0])
            self.top = Convolution(dims, top + channels, top, batch_norm=batch_norm, kernel_size=3, padding=1)
        self.down = nn.ModuleList(block(i, o) for i, o in pairwise([widths[0] if light_top else channels, *widths]))
        self.pool = nn.ModuleList(_POOL[dims](s) for s in inner)
        self.dropout = _DROPOUT[dims](dropout) if dropout else nn.Identity()
        upwards = list(reversed(list(zip(widths[:-1], widths[1:], inner, strict=True))))
        self.up = nn.ModuleList(_UP[dims](low, high, s, stride=s) for high, low, s in upwards)
        self.merge = nn.ModuleList(block(2 * high, high) for high, _, _ in upwards)
        self.head = _CONV[dims](top, outputs, 1)
        merged = [high for high, _, _ in upwards] + [top] * light_top
        coarse = merged[-3:-1] if deep_supervision else []
        self.coarse_heads = nn.ModuleList(_CONV[dims](width, outputs, 1) for width in coarse)
        self.apply(_initialise_he)

    @classmethod
    def paper(cls, channels: int = 1, classes: int = 2) -> "UNet":
        """The network of 2015: 31,030,658 parameters for one channel and two classes, 572 in, 388 out.

        The dropout rate is not in the paper; 0.5 is that of the released network definition.
        """
        return cls(channels=channels, outputs=classes, base=64, depth=4, valid=True, batch_norm=False, dropout=0.5)

    def forward(self, x: Tensor) -> Any:
        """(N, channels, *space) -> logits (N, outputs, *space).

        `space` must be a multiple of the product of the strides (padded), or a valid size (valid;
        the result is then smaller by the margin). While training with deep supervision: a list of
        logits, finest first.
        """
        image, skips = x, []
        if self.stem is not None:
            x = self.stem(x)
        last = len(self.down) - 1
        for level, block in enumerate(self.down):
            x = block(x)
            if level >= last - 1:
                x = self.dropout(x)
            if level < last:
                skips.append(x)
                x = self.pool[level](x)
        coarse = []
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            skip = skips.pop()
            x = merge(torch.cat([_crop(skip, x) if self.valid else skip, x], dim=1))
            coarse.append(x)
        if self.top is not None:
            x = self.top(torch.cat([image.to(x.dtype), self.unfold(x)], dim=1))
            coarse.append(x)
        logits = self.head(x)
        if self.training and self.deep_supervision:
            heads = zip(self.coarse_heads, coarse[-1 - len(self.coarse_heads) : -1], strict=True)
            return [logits, *reversed([head(features) for head, features in heads])]
        return logits

    def fold(self) -> "UNet":
        """Merge each BatchNorm into the convolution before it, in place; for prediction only."""
        self.eval()
        for module in self.modules():
            if isinstance(module, DoubleConvolution | Convolution):
                for conv, norm in (("conv1", "norm1"), ("conv2", "norm2")):
                    if not isinstance(getattr(module, norm, nn.Identity()), nn.Identity):
                        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                        setattr(module, norm, nn.Identity())
        return self


def _crop(skip: Tensor, target: Tensor) -> Tensor:
    """The centre of `skip` in the spatial size of `target`."""
    window: list[slice] = [slice(None), slice(None)]
    for have, want in zip(skip.shape[2:], target.shape[2:], strict=True):
        start = (have - want) // 2
        window.append(slice(start, start + want))
    return skip[tuple(window)]


def _initialise_he(module: nn.Module) -> None:
    """Gaussian weights with std sqrt(2 / N), N the incoming nodes of a neuron (2015, section 3)."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        # Without overlap (stride = kernel) each output pixel has exactly `in_channels` incoming nodes.
        nn.init.normal_(module.weight, std=(2.0 / module.in_channels) ** 0.5)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
