"""OmniShift: what a token knows of its 5x5 neighbourhood, learnt as four branches and run as one kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class OmniShift(nn.Module):
    """Depthwise mixture of identity, 1x1, 3x3 and 5x5, always run as the merged 5x5 kernel.

    The merge is recomputed from the branches in every pass (it costs 25 numbers a channel), so it can never be stale:
    not after loading, and not after switching between training and evaluation.

    Reference:
        Yang et al., "Restore-RWKV", JBHI 2026, section on re-parameterised token shift.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(4))
        self.conv1x1 = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
        self.conv3x3 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.conv5x5 = nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False)

    def merged_kernel(self) -> Tensor:
        """``(C, 1, 5, 5)``; one convolution with it equals the sum of the four branches."""
        centre = self.alpha[1] * self.conv1x1.weight + self.alpha[0]  # (C, 1, 1, 1)
        middle = self.alpha[2] * self.conv3x3.weight
        outer = self.alpha[3] * self.conv5x5.weight
        return outer + functional.pad(middle, (1, 1, 1, 1)) + functional.pad(centre, (2, 2, 2, 2))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out."""
        kernel = self.merged_kernel().to(features.dtype)
        return functional.conv2d(features, kernel, padding=2, groups=features.shape[1])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        accept_deployed_kernel(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def accept_deployed_kernel(state_dict: dict[str, Any], prefix: str) -> None:
    """Turn a deployed checkpoint's merged kernel into branches; drop a merged kernel that came with branches.

    A published checkpoint carries ``conv5x5_reparam``, which may be a stale merge: with branches present it is ignored.
    Changes ``state_dict`` in place.
    """
    merged = state_dict.pop(f"{prefix}conv5x5_reparam.weight", None)
    if merged is None or _has_branches(state_dict, prefix):
        return
    state_dict[f"{prefix}alpha"] = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=merged.dtype)
    state_dict[f"{prefix}conv1x1.weight"] = torch.zeros_like(merged[:, :, :1, :1])
    state_dict[f"{prefix}conv3x3.weight"] = torch.zeros_like(merged[:, :, :3, :3])
    state_dict[f"{prefix}conv5x5.weight"] = merged


def _has_branches(state_dict: Mapping[str, Any], prefix: str) -> bool:
    names = ("alpha", "conv1x1.weight", "conv3x3.weight", "conv5x5.weight")
    return any(prefix + name in state_dict for name in names)
