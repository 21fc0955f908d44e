"""The measurements of ``medapp bench networks``; each runs in its own process, so that its peak memory is its own.

``python -m medapp.benchmarks.network_cases JSON`` runs the case that the JSON names and writes its result as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from medapp.benchmarks.memory import PeakMemory
from medapp.networks.architectures.rat import RAT
from medapp.networks.blocks.region_attention import DensePlan, Plan, RegionPlan
from medapp.networks.blocks.wkv import bidirectional_wkv
from medapp.networks.registry import architecture, build_network

Result = dict[str, Any]
REGIONS = 32


def wkv(tokens: int, channels: int, repeats: int, device: str = "cpu") -> Result:
    """Ours against the plain float32 loop over tokens, and both against the loop in float64."""
    torch.manual_seed(0)
    inputs = (torch.randn(1, channels, tokens), torch.randn(1, channels, tokens), *torch.randn(2, channels))
    exact = _token_loop(*(x.double() for x in inputs))
    inputs = tuple(x.to(device) for x in inputs)
    ours = [_ms(lambda: bidirectional_wkv(*inputs), device) for _ in range(repeats)]
    loop = [_ms(lambda: _token_loop(*inputs), device) for _ in range(2)]
    error = float((bidirectional_wkv(*inputs).cpu().double() - exact).abs().max())
    loop_error = float((_token_loop(*inputs).cpu().double() - exact).abs().max())
    return {"ms": ours, "peer_ms": loop, "max_error_float64": error, "peer_max_error_float64": loop_error}


def wkv_size(tokens: int, channels: int, repeats: int) -> Result:
    """Time and peak memory of one pass; an activation is one float32 tensor of its input's size."""
    torch.manual_seed(0)
    inputs = (torch.randn(1, channels, tokens), torch.randn(1, channels, tokens), *torch.randn(2, channels))
    bidirectional_wkv(*(x[..., :1024] if x.ndim == 3 else x for x in inputs))
    memory = PeakMemory()
    taken = [_ms(lambda: bidirectional_wkv(*inputs))]
    growth = memory.growth_mb()
    taken += [_ms(lambda: bidirectional_wkv(*inputs)) for _ in range(repeats - 1)]
    return {"ms": taken, "growth_mb": growth, "activations": growth * 1e6 / (tokens * channels * 4)}


def network(
    name: str,
    config: Mapping[str, Any],
    shape: Sequence[int],
    repeats: int,
    device: str = "cpu",
    dtype: str = "float32",
) -> Result:
    """Time and peak memory of one network on a batch of ``shape`` ``(B, C, ...)``; on a GPU its own memory counts."""
    module = _filled(build_network(name, config)).to(device)
    small = (1, shape[1], *(min(side, 64) for side in shape[2:]))
    with _precision(device, dtype):
        _run(module, _inputs(name, small, device))  # what is loaded and compiled once
        inputs = _inputs(name, shape, device)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            _run(module, inputs)
        memory = PeakMemory()
        taken = [_ms(lambda: _run(module, inputs), device) for _ in range(repeats)]
    on_device = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
    return {
        "ms": taken,
        "peak_mb": on_device or memory.process_mb(),
        "growth_mb": memory.growth_mb(),
        "is_finite": bool(torch.isfinite(_run(module, inputs)).all()) if device == "cuda" else True,
    }


def modes(name: str, config: Mapping[str, Any], shape: Sequence[int], repeats: int) -> Result:
    """Float32 as it is, in bf16 and in channels-last memory, in turns; differences are relative L2 to the first."""
    module = _filled(build_network(name, config))
    inputs = _inputs(name, shape)
    turned = _filled(build_network(name, config))
    turned.load_state_dict(module.state_dict())
    for parameter in turned.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    turned_inputs = {**inputs, "image": inputs["image"].contiguous(memory_format=torch.channels_last)}
    ways: dict[str, tuple[nn.Module, dict[str, Tensor], str]] = {
        "float32": (module, inputs, "float32"),
        "bf16": (module, inputs, "bfloat16"),
        "channels-last": (turned, turned_inputs, "float32"),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    outputs: dict[str, Tensor] = {}
    for turn in range(repeats + 1):
        for way, (which, given, dtype) in ways.items():
            with _precision("cpu", dtype):
                since = time.perf_counter()
                outputs[way] = _run(which, given).double()
            if turn:  # the first counts for none of them
                taken[way].append((time.perf_counter() - since) * 1000)
    exact = outputs["float32"]
    return {
        "ms": taken,
        "difference": {way: float((output - exact).norm() / exact.norm()) for way, output in outputs.items()},
    }


def regions(config: Mapping[str, Any], side: int, repeats: int) -> Result:
    """RAT with sorted regions against itself with an N x N mask, in turns, on the same slice."""
    module = _filled(build_network("rat", config))
    masked = _MaskedRAT(**config).eval()
    masked.load_state_dict(module.state_dict())
    inputs = _inputs("rat", (1, 1, side, side))
    ours, theirs = [], []
    for turn in range(repeats + 1):
        mine, their = _ms(lambda: _run(module, inputs)), _ms(lambda: _run(masked, inputs))
        if turn:
            ours.append(mine)
            theirs.append(their)
    difference = float((_run(module, inputs) - _run(masked, inputs)).abs().max())
    return {"ms": ours, "peer_ms": theirs, "max_difference": difference, "fill": _fill(inputs["region_map"])}


def region_check(tokens: int, channels: int, heads: int, device: str = "cpu") -> Result:
    """Largest error of sorted region attention to the form with a mask in float64."""
    torch.manual_seed(0)
    qkv = torch.randn(3, 2 * tokens, heads, channels // heads)
    labels = torch.randint(0, REGIONS, (2, tokens))
    masked = DensePlan(DensePlan.of(labels).mask.double())
    query, key, value = qkv.double()
    exact = masked.attend(query, key, value, heads**-0.5)
    plan = RegionPlan.of(labels.to(device))
    query, key, value = (plan.sort(part.flatten(1)).unflatten(1, (heads, -1)) for part in qkv.to(device))
    found = plan.restore(plan.attend(query, key, value, heads**-0.5))
    return {"max_error_float64": float((found.cpu().double() - exact).abs().max())}


class _MaskedRAT(RAT):
    """The published form."""

    def plan_regions(self, labels: Tensor) -> Plan:
        """One N x N mask for all layers of a pass."""
        return DensePlan.of(labels)


def _token_loop(key: Tensor, value: Tensor, decay: Tensor, bonus: Tensor) -> Tensor:
    """The textbook form: a running maximum, once from the left and once from the right, token after token."""
    tokens = key.shape[2]
    w, u = decay / tokens, bonus / tokens
    past = [torch.stack(part, dim=2) for part in _sweep(key, value, w, range(tokens))]
    future = [torch.stack(part, dim=2) for part in _sweep(key, value, w, range(tokens - 1, -1, -1))]
    own = [key + u[:, None], torch.ones_like(key), value]
    top = torch.maximum(torch.maximum(past[0], future[0]), own[0])
    total, weighted = torch.zeros_like(key), torch.zeros_like(key)
    for log_scale, weights, values in (past, future, own):
        weight = (log_scale - top).exp()
        total, weighted = total + weight * weights, weighted + weight * values
    return weighted / total


def _sweep(key: Tensor, value: Tensor, w: Tensor, order: range) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Log scale, weights and weighted values of all tokens before each one, ``(B, C)`` a token."""
    scale = torch.full_like(key[..., 0], -torch.inf)
    total, weighted = torch.zeros_like(scale), torch.zeros_like(scale)
    scales, totals, sums = [scale] * len(order), [total] * len(order), [weighted] * len(order)
    for t in order:
        scales[t], totals[t], sums[t] = scale, total, weighted
        faded = scale - w
        scale = torch.maximum(faded, key[..., t])
        left, right = (faded - scale).exp(), (key[..., t] - scale).exp()
        total, weighted = left * total + right, left * weighted + right * value[..., t]
    return scales, totals, sums


def _filled(module: nn.Module) -> nn.Module:
    """In evaluation mode, with something where a fresh network has zeros: step sizes of zero would hide whole parts."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return module.eval()


def _inputs(name: str, shape: Sequence[int], device: str = "cpu") -> dict[str, Tensor]:
    """A noisy image and what the architecture needs beside it."""
    generator = torch.Generator().manual_seed(1)
    batch, _, *sides = shape
    inputs = {"image": torch.rand(tuple(shape), generator=generator)}
    if "region_map" in architecture(name).inputs:
        inputs["region_map"] = _region_map(sides[0], sides[1]).expand(batch, -1, -1)
    if "sparse_depth" in architecture(name).inputs:
        some = torch.rand(batch, 1, *sides, generator=generator) < 0.002
        inputs["sparse_depth"] = some * (10 + 80 * torch.rand(batch, 1, *sides, generator=generator))
    return {key: value.to(device) for key, value in inputs.items()}


def _region_map(height: int, width: int) -> Tensor:
    """``(1, H, W)`` regions of very different sizes, as a segmenter leaves them: weighted Voronoi cells."""
    generator = torch.Generator().manual_seed(2)
    centres, reach = torch.rand(REGIONS, 2, generator=generator), 0.4 * torch.rand(REGIONS, generator=generator) ** 3
    rows, columns = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    nearest = torch.full((height, width), torch.inf)
    labels = torch.zeros(height, width, dtype=torch.int64)
    for label, ((y, x), far) in enumerate(zip(centres.tolist(), reach.tolist(), strict=True)):
        distance = ((rows[:, None] - y) ** 2 + (columns[None] - x) ** 2).sqrt() - far
        labels[distance < nearest] = label
        nearest = torch.minimum(nearest, distance)
    return labels[None]


def _fill(region_map: Tensor) -> float:
    """The part of all pairs of pixels that lie in one region."""
    sizes = torch.bincount(region_map.flatten()).double()
    return float(sizes.square().sum() / sizes.sum().square())


def _run(module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The network's main result, whatever it returns beside it; what it draws, it draws alike every time."""
    torch.manual_seed(0)
    with torch.inference_mode():
        output = module(**inputs)
    if isinstance(output, Tensor):
        return output
    found = [value for field in ("depth", "alpha") if (value := getattr(output, field, None)) is not None]
    return next(value for value in found if isinstance(value, Tensor))


def _precision(device: str, dtype: str) -> AbstractContextManager[Any]:
    return nullcontext() if dtype == "float32" else torch.autocast(device, dtype=getattr(torch, dtype))


def _ms(action: Callable[[], Any], device: str = "cpu") -> float:
    """Milliseconds of one call, without gradients, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    since = time.perf_counter()
    with torch.inference_mode():
        action()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - since) * 1000


CASES: Mapping[str, Callable[..., Result]] = {
    "wkv": wkv,
    "wkv_size": wkv_size,
    "network": network,
    "modes": modes,
    "regions": regions,
    "region_check": region_check,
}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked.pop("threads"))
    sys.stdout.write(json.dumps(CASES[asked.pop("case")](**asked)) + "\n")
