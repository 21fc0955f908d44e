"""A convolution whose input channels are weighed by a style code, one for each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_TINY = 1e-8


class ModulatedConv(nn.Module):
    """Scales the weights' input channels by a style, brings each output channel back to unit size, and convolves.

    With weights ``W`` (output o, input i, tap t), gain ``g = 1 / sqrt(fan in)`` and style ``s``::

        W'  = g s_i W_oit            W'' = W' / sqrt(sum over i and t of W'^2 + 1e-8)

    ``forward`` scales features instead of weights, so that a batch needs one ordinary convolution; ``folded`` is the
    definition to the letter, with one grouped convolution over the batch.

    Args:
        channels: Of the input.
        out_channels: Of the output.
        kernel: Odd side of the kernel.
        dims: 2 for images, 3 for volumes.
        style_width: Length of the style code.
        is_demodulated: Image heads leave the division out.

    Reference:
        Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, section 2.2.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel: int,
        dims: int,
        style_width: int,
        is_demodulated: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, channels, *([kernel] * dims)))
        self.affine = nn.Linear(style_width, channels)
        nn.init.ones_(self.affine.bias)
        self.is_demodulated = is_demodulated
        self.gain = (channels * kernel**dims) ** -0.5
        self.padding = kernel // 2
        self._convolve = functional.conv3d if dims == 3 else functional.conv2d

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """``(B, C, ...)`` features and ``(B, style width)`` codes in; ``(B, out, ...)`` out, same sizes."""
        style, weight = self._style_and_weight(features, code)
        mixed = self._convolve(features * _over_space(style, features).to(features.dtype), weight, padding=self.padding)
        if not self.is_demodulated:
            return mixed
        power = weight.float().square().flatten(2).sum(2)  # (out, C)
        with torch.autocast(features.device.type, enabled=False):
            scale = (style.square() @ power.T + _TINY).rsqrt()  # (B, out)
        return mixed * _over_space(scale, mixed).to(mixed.dtype)

    def folded(self, features: Tensor, code: Tensor) -> Tensor:
        """The same as ``forward``, with the style folded into each image's own weights."""
        style, weight = self._style_and_weight(features, code)
        batch, channels = style.shape
        own = weight * style.view(batch, 1, channels, *([1] * (features.ndim - 2)))  # (B, out, C, taps...)
        if self.is_demodulated:
            power = own.square().flatten(2).sum(2) + _TINY  # (B, out)
            own = own * power.rsqrt().view(batch, -1, *([1] * (features.ndim - 1)))
        grouped = features.reshape(1, batch * channels, *features.shape[2:])
        mixed = self._convolve(grouped, own.flatten(0, 1), padding=self.padding, groups=batch)
        return mixed.view(batch, -1, *features.shape[2:])

    def _style_and_weight(self, features: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C)`` styles and ``(out, C, taps...)`` weights with their gain, both float32.

        Half precision would overflow in the products, so there both are brought to at most 1 first; the division by
        their size undoes that.
        """
        with torch.autocast(features.device.type, enabled=False):
            style = functional.linear(code.float(), self.affine.weight.float(), self.affine.bias.float())
            weight = self.gain * self.weight.float()
            is_half = features.dtype.itemsize < 4 or torch.is_autocast_enabled(features.device.type)
            if self.is_demodulated and is_half:
                style = style / style.abs().amax(dim=1, keepdim=True).clamp_min(_TINY)
                weight = weight / weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True).clamp_min(_TINY)
        if torch.is_autocast_enabled(features.device.type):
            return style, weight
        return style, weight.to(features.dtype)


def _over_space(values: Tensor, features: Tensor) -> Tensor:
    """``(B, C)`` values as ``(B, C, 1, ...)``, to multiply features with."""
    return values.view(*values.shape, *([1] * (features.ndim - 2)))
