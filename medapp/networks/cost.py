"""How large a network is and how much it computes: parameters, and multiply-adds (MACs) for an input.

Papers count differently. Most print what the thop package says: convolutions, linear layers, norms and pooling, but no
product of features with features, so attention is missing. Here every part has its own name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from medapp.networks.architectures import drmc, pddm, restore_rwkv
from medapp.networks.blocks.bin_attention import Attention
from medapp.networks.blocks.region_attention import RegionAttention, RegionPlan, WindowAttention
from medapp.networks.blocks.restormer import ChannelNorm, TransposedAttention
from medapp.networks.blocks.routing import SparseExperts
from medapp.networks.registry import architecture, build_network

_aten = torch.ops.aten
_Convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_Norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True)
class Case:
    """A configuration and the input that its cost is told for.

    Attributes:
        architecture: Name in the registry.
        shape: Of the image.
        config: Beside the defaults.
    """

    architecture: str
    shape: tuple[int, ...]
    config: Mapping[str, Any] = field(default_factory=dict)


DEFAULTS = (
    Case("restore_rwkv", (1, 1, 128, 128)),
    Case("amir", (1, 1, 128, 128)),
    Case("drmc", (1, 1, 128, 128), {"dims": 2}),
    Case("drmc", (1, 1, 64, 64, 64), {"dims": 3}),
    Case("rat", (1, 1, 128, 128)),
    Case("sgsgan", (1, 1, 128, 128), {"dims": 2}),
    Case("sgsgan", (1, 1, 64, 64, 64), {"dims": 3}),
    Case("medical_matting", (1, 1, 128, 128)),
    Case("pddm", (1, 3, 228, 304)),
    Case("nafnet", (1, 3, 256, 256), {"img_channel": 3}),
    Case("restormer", (1, 3, 256, 256), {"inp_channels": 3}),
)
"""Every architecture as published, or as the reconstruction has it, at the size that its paper tells costs for."""


@dataclass(frozen=True)
class Cost:
    """What one call of a network takes.

    Attributes:
        parameters: Numbers that it learns.
        convolution_macs: Of convolutions, also of pointwise ones that run as a matrix product.
        linear_macs: Of linear layers.
        attention_macs: Of features with features in attention: queries with keys, weights with values; by definition,
            however it is evaluated.
        other_macs: Of gates, and of scores of pixels and depth bins.
        norm_ops: What thop adds for norms (4 for each value), pooling (1) and softmax layers.
        wkv_updates: Tokens times channels that pass through WKV, once for each direction; about 20 to 30 elementary
            operations each, in no other number.
    """

    parameters: int
    convolution_macs: int
    linear_macs: int
    attention_macs: int
    other_macs: int
    norm_ops: int
    wkv_updates: int

    @property
    def weight_macs(self) -> int:
        """Of convolutions and linear layers."""
        return self.convolution_macs + self.linear_macs

    @property
    def thop(self) -> int:
        """The "FLOPs" of papers: convolutions, linear layers, norms and pooling, without attention."""
        return self.weight_macs + self.norm_ops

    @property
    def macs(self) -> int:
        """Everything that multiplies and adds, attention included, norms and WKV not."""
        return self.weight_macs + self.attention_macs + self.other_macs


def network_cost(network: nn.Module, image: Tensor, **inputs: Tensor) -> Cost:
    """Count what a network does with an image.

    Convolutions and matrix products are counted but not computed, so that this takes little time also for networks and
    volumes that would take minutes.

    Args:
        network: On the CPU; put into evaluation mode.
        image: ``(B, C, H, W)`` or ``(B, C, D, H, W)``; only its shape matters.
        inputs: What the network takes beside, such as ``region_map``, whose values do matter.
    """
    counts = dict.fromkeys(("attention", "other", "norm", "wkv"), 0)
    products = _Products(network)
    with torch.no_grad(), _hooked(network.eval(), counts), products:
        network(image, **inputs)
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        convolution_macs=products.convolution_macs,
        linear_macs=products.linear_macs,
        attention_macs=counts["attention"],
        other_macs=counts["other"],
        norm_ops=counts["norm"] + products.pooled,
        wkv_updates=counts["wkv"],
    )


def case_cost(case: Case) -> Cost:
    """Count for a configuration; where it takes a region map, the image is one region, and no depth is known.

    Raises:
        WeightsError: The architecture is not known, or the configuration does not fit it.
    """
    image = torch.zeros(case.shape)
    beside = {"region_map": image[:, 0], "sparse_depth": torch.zeros(case.shape[0], 1, *case.shape[2:])}
    inputs = {name: beside[name] for name in architecture(case.architecture).inputs}
    return network_cost(build_network(case.architecture, case.config), image, **inputs)


class _Products(TorchDispatchMode):
    """Counts convolutions and products with a layer's weights, and gives ones of the right shape instead.

    Ones, because gates that came out as zero would leave experts out. Products that are not with a layer's weights are
    the network's own way to evaluate attention; those are counted by definition elsewhere.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and loading the compiler takes seconds

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.convolution_macs = self.linear_macs = self.pooled = 0
        self._kinds: dict[int, type[nn.Module]] = {}
        for module in network.modules():
            if isinstance(module, (nn.Linear, *_Convolutions)):
                kind = nn.Linear if isinstance(module, nn.Linear) else nn.Conv2d
                self._kinds[_storage(module.weight)] = kind

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is _aten.convolution.default:
            return self._convolve(*args)
        if func in (_aten.mm.default, _aten.bmm.default):
            return self._multiply(*args)
        if func in (_aten.addmm.default, _aten.baddbmm.default):
            return self._multiply(*args[1:3])
        if func is _aten.mean.dim and args[0].ndim > 3:
            self.pooled += args[0].numel()
        return func(*args, **(kwargs or {}))

    def _convolve(
        self,
        features: Tensor,
        weight: Tensor,
        _bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        is_transposed: bool,
        output_padding: list[int],
        groups: int,
    ) -> Tensor:
        sizes, sides = features.shape[2:], weight.shape[2:]
        if is_transposed:
            out = [
                (size - 1) * stride[i] - 2 * padding[i] + dilation[i] * (sides[i] - 1) + output_padding[i] + 1
                for i, size in enumerate(sizes)
            ]
            shape = (features.shape[0], weight.shape[1] * groups, *out)
        else:
            out = [
                (size + 2 * padding[i] - dilation[i] * (sides[i] - 1) - 1) // stride[i] + 1
                for i, size in enumerate(sizes)
            ]
            shape = (features.shape[0], weight.shape[0], *out)
        counted = features.numel() if is_transposed else math.prod(shape)
        self.convolution_macs += counted * math.prod(weight.shape[1:])
        return features.new_ones(shape)

    def _multiply(self, left: Tensor, right: Tensor) -> Tensor:
        shape = (*left.shape[:-1], right.shape[-1])
        kind = self._kinds.get(_storage(left)) or self._kinds.get(_storage(right))
        macs = math.prod(shape) * left.shape[-1]
        if kind is nn.Linear:
            self.linear_macs += macs
        elif kind is not None:
            self.convolution_macs += macs
        return left.new_ones(shape)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextmanager
def _hooked(network: nn.Module, counts: dict[str, int]) -> Iterator[None]:
    """Add to ``counts`` whenever a module runs whose work is known by definition."""

    def hook(count: _Count) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def add(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            for name, number in count(module, inputs, output).items():
                counts[name] += number

        return add

    own_norms = {norm for module in network.modules() if isinstance(module, ChannelNorm) for norm in module.modules()}
    handles = []
    for module in network.modules():
        count = next((count for kinds, count in _COUNTS if isinstance(module, kinds)), None)
        if count is not None and module not in own_norms:  # published as a class that thop does not know
            handles.append(module.register_forward_hook(hook(count)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_Count = Callable[[Any, tuple[Any, ...], Any], dict[str, int]]


def _norm(module: Any, inputs: tuple[Any, ...], _output: Any) -> dict[str, int]:
    has_weight = getattr(module, "affine", False) or getattr(module, "elementwise_affine", False)
    return {"norm": (4 if has_weight else 2) * inputs[0].numel()}


def _channel_attention(module: Any, inputs: tuple[Any, ...], _output: Any) -> dict[str, int]:
    features, heads = inputs[0], module.temperature.shape[0]
    return {"attention": 2 * features.numel() * features.shape[1] // heads}


def _region_attention(_module: Any, inputs: tuple[Any, ...], _output: Any) -> dict[str, int]:
    tokens, plan = inputs
    pairs = sum(count * size**2 for count, size in plan.groups) if isinstance(plan, RegionPlan) else plan.mask.numel()
    return {"attention": 2 * pairs * tokens.shape[-1]}


def _window_attention(module: Any, inputs: tuple[Any, ...], _output: Any) -> dict[str, int]:
    return {"attention": 2 * inputs[0].numel() * module.window_tokens}


def _attention(_module: Any, inputs: tuple[Any, ...], _output: Any) -> dict[str, int]:
    return {"attention": 2 * inputs[0].numel() * inputs[1].shape[1]}


def _bin_scores(_module: Any, inputs: tuple[Any, ...], output: Any) -> dict[str, int]:
    return {"other": inputs[0].numel() * output.logits.shape[1]}


def _expert_gates(module: Any, inputs: tuple[Any, ...], _output: Any) -> dict[str, int]:
    tokens, experts = inputs[0], module.w_gate.shape[1]
    pixels = tokens.shape[0] * tokens.shape[1]
    return {"other": pixels * module.w_gate.shape[0] * experts, "norm": (3 * module.active - 1) * pixels}


def _wkv(_module: Any, inputs: tuple[Any, ...], _output: Any) -> dict[str, int]:
    return {"wkv": restore_rwkv.PASSES * inputs[0].numel()}


_COUNTS: tuple[tuple[type | tuple[type, ...], _Count], ...] = (
    (_Norms, _norm),
    ((TransposedAttention, drmc.AttentionExpert), _channel_attention),
    (RegionAttention, _region_attention),
    (WindowAttention, _window_attention),
    (Attention, _attention),
    (pddm.Stage, _bin_scores),
    (SparseExperts, _expert_gates),
    (restore_rwkv.SpatialMix, _wkv),
)
