"""Bf16 is used only where it is fast and was measured to be harmless."""

import pytest
import torch
from torch import nn

from medapp.networks import device
from medapp.networks.device import bf16_difference, choose_device, choose_dtype, is_out_of_memory


class _Layers(nn.Module):
    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 8)
        self.scale = scale

    def forward(self, image):
        return image + self.scale * self.layer(image)


def test_the_difference_is_that_of_rounding():
    assert 1e-4 < bf16_difference(_Layers(1.0), torch.rand(1, 1, 8, 8)) < 2e-2


def test_bf16_is_chosen_only_when_it_is_harmless(monkeypatch):
    probe = torch.rand(1, 1, 8, 8)
    monkeypatch.setattr(device, "has_fast_bf16", lambda _: True)
    assert choose_dtype(_Layers(1.0), probe) is torch.float32
    monkeypatch.setattr(device, "BF16_ERROR_LIMIT", 0.1)
    assert choose_dtype(_Layers(1.0), probe) is torch.bfloat16
    monkeypatch.setattr(device, "has_fast_bf16", lambda _: False)
    assert choose_dtype(_Layers(1.0), probe) is torch.float32


def test_cpu_is_always_there():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_errors_are_told_from_others(error, is_memory):
    assert is_out_of_memory(error) is is_memory
