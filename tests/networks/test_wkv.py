"""The fast WKV equals its definition, for every size of the decay."""

import pytest
import torch

from medapp.networks.blocks import wkv
from medapp.networks.blocks.wkv import bidirectional_wkv


def _by_definition(key, value, decay, bonus):
    """The double sum of the paper in float64, one token at a time."""
    key, value = key.double(), value.double()
    tokens = key.shape[2]
    w, u = decay.double() / tokens, bonus.double() / tokens
    place = torch.arange(tokens)
    result = torch.empty_like(value)
    for t in range(tokens):
        exponent = key - ((place - t).abs() - 1) * w[:, None]
        exponent[:, :, t] = key[:, :, t] + u
        weight = torch.softmax(exponent, dim=2)
        result[:, :, t] = (weight * value).sum(dim=2)
    return result


@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 200])
@pytest.mark.parametrize("decay_scale", [0.0, 1.0, 40.0, 200.0, 1000.0])
def test_fast_sums_equal_the_definition(tokens, decay_scale):
    torch.manual_seed(tokens)
    key, value = torch.randn(2, 3, tokens) * 3, torch.randn(2, 3, tokens)
    decay, bonus = torch.tensor([-1.0, 0.3, 1.0]) * decay_scale, torch.randn(3)

    with torch.no_grad():
        fast = bidirectional_wkv(key, value, decay, bonus)

    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast.double(), _by_definition(key, value, decay, bonus), rtol=0, atol=2e-5)


def test_gradients_are_those_of_the_definition():
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, 40), torch.randn(1, 2, 40), torch.randn(2) * 2, torch.randn(2)]
    fast_inputs = [x.clone().requires_grad_() for x in inputs]
    slow_inputs = [x.clone().requires_grad_() for x in inputs]
    direction = torch.randn(1, 2, 40)

    (bidirectional_wkv(*fast_inputs) * direction).sum().backward()
    (_by_definition(*slow_inputs) * direction).sum().backward()

    for fast, slow in zip(fast_inputs, slow_inputs, strict=True):
        torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-3, atol=1e-5)


def test_channel_groups_do_not_change_the_result(monkeypatch):
    key, value, decay, bonus = torch.randn(1, 6, 64), torch.randn(1, 6, 64), torch.randn(6), torch.randn(6)
    with torch.no_grad():
        whole = bidirectional_wkv(key, value, decay, bonus)
        monkeypatch.setattr(wkv, "GROUP_ELEMENTS", 100)
        grouped = bidirectional_wkv(key, value, decay, bonus)

    torch.testing.assert_close(grouped, whole, rtol=0, atol=1e-6)


def test_half_precision_input_is_summed_in_float32():
    key, value = torch.randn(1, 2, 500), torch.randn(1, 2, 500)
    decay, bonus = torch.tensor([1.0, -1.0]), torch.zeros(2)
    with torch.no_grad():
        rounded = bidirectional_wkv(key.bfloat16(), value.bfloat16(), decay, bonus)
        exact = bidirectional_wkv(key.bfloat16().float(), value.bfloat16().float(), decay, bonus)

    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact.bfloat16().float(), rtol=0, atol=0)


def test_autocast_does_not_reach_the_sums():
    key, value = torch.randn(1, 2, 500), torch.randn(1, 2, 500)
    decay, bonus = torch.tensor([1.0, -1.0]), torch.zeros(2)
    with torch.no_grad():
        exact = bidirectional_wkv(key, value, decay, bonus)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = bidirectional_wkv(key, value, decay, bonus)

    assert torch.equal(cast, exact)
