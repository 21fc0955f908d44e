"""Where a network runs, and how precisely."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from medapp.errors import ComputeError

_log = logging.getLogger(__name__)

BF16_ERROR_LIMIT = 1e-3
"""Largest root-mean-square difference to float32 that bf16 may make, as a share of what the network changes."""


def choose_device(wish: str = "auto") -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ComputeError: The wished device is not there.
    """
    if wish == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(wish, False):
        raise ComputeError(f"This computer has no device '{wish[:20]}'", "Choose Automatic or CPU in the settings")
    return torch.device(wish)


def has_fast_bf16(device: torch.device) -> bool:
    """True where bf16 arithmetic is in the hardware; emulated bf16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def choose_dtype(network: nn.Module, probe: Tensor, inputs: Mapping[str, Tensor] | None = None) -> torch.dtype:
    """Bf16 where it is fast and, as measured on the probe, harmless; float32 elsewhere.

    Args:
        network: In evaluation mode, on its device.
        probe: ``(1, C, H, W)`` on the same device, in the network's range.
        inputs: What it needs beside the image.
    """
    if not has_fast_bf16(probe.device):
        return torch.float32
    difference = bf16_difference(network, probe, inputs)
    _log.info("bf16 differs by %.2g of the change the network makes", difference)
    return torch.bfloat16 if difference <= BF16_ERROR_LIMIT else torch.float32


def bf16_difference(network: nn.Module, probe: Tensor, inputs: Mapping[str, Tensor] | None = None) -> float:
    """Root-mean-square difference of bf16 to float32, as a share of what the network changes in the probe."""
    inputs = inputs or {}
    with torch.inference_mode():
        exact = network(probe, **inputs).float()
        with torch.autocast(probe.device.type, dtype=torch.bfloat16):
            rounded = network(probe, **inputs).float()
        if exact.shape != probe.shape:  # an enlarging network changes what lies on its own grid
            probe = functional.interpolate(probe, size=exact.shape[2:], mode="bilinear", align_corners=False)
        change = (exact - probe).square().mean().sqrt().clamp_min(1e-6)
        return float((rounded - exact).square().mean().sqrt() / change)


def is_out_of_memory(error: BaseException) -> bool:
    """True for the several ways in which torch and the system say that memory is used up."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def free_device_memory(device: torch.device) -> None:
    """Give cached blocks back after a failure or when a model is let go."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device now; the computer's own for the CPU and for unified memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory_bytes()


def free_memory_bytes() -> int:
    """Memory of the computer that is available now; 4 GiB where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass  # not Linux
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return 4 * 1024**3
