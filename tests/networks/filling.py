"""Weights that anyone can make again: the deterministic filling of specification ``medical_matting`` section 8."""

from math import sqrt
from zlib import crc32

import numpy as np
import torch

_MASK = np.uint64(0xFFFFFFFF)


def filled(state_dict):
    """The same keys and shapes, every value a hash of its key and place; counters stay 0."""
    return {key: _fill(key, value) for key, value in state_dict.items()}


def _fill(key, value):
    if key.endswith("num_batches_tracked"):
        return torch.zeros_like(value)
    n = np.arange(1, value.numel() + 1, dtype=np.uint64)
    z = (n * np.uint64(0x9E3779B1) & _MASK) ^ np.uint64(crc32(key.encode()))
    z ^= z >> np.uint64(15)
    z = z * np.uint64(0x85EBCA6B) & _MASK
    z ^= z >> np.uint64(13)
    s = torch.from_numpy((2 * z.astype(np.float64) / 2**32 - 1) * sqrt(3)).reshape(value.shape)
    if value.ndim >= 2:
        s = s * sqrt(2 / value[0].numel())
    elif key.endswith("running_mean"):
        s = 0.05 * s
    elif key.endswith("running_var"):
        s = 1 + 0.2 * s.abs()
    elif key.endswith("bias"):
        s = 0.1 * s
    else:
        s = 1 + 0.1 * s
    return s.to(value.dtype)
