"""Routers: small networks that decide, per pixel or per image, which part of a network has how much to say."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

TINY = 2.220446049250313e-16
"""Stands in for a sum of experts that is exactly 0, before its logarithm."""
NOISE_FLOOR = 0.01
CHUNK_TOKENS = 65_536
"""Pixels that experts work on at a time when no gradient is needed; bounds the memory of their hidden layer."""


class RoutingTap(nn.Module):
    """The place where a router's gates pass, so that whoever wants to show them can hook it; has no weights.

    Attributes:
        kind: ``pixels`` (gates of each pixel, ``(B, N, experts)``, summing to 1), ``channels`` (gates of each channel,
            ``(B, C)``, 0..1) or ``gates`` (one per expert and image, ``(B, experts)``, not negative).
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, gates: Tensor) -> Tensor:
        """Gives the gates back."""
        return gates


class Expert(nn.Module):
    """A perceptron on single pixels."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(N, C)`` in; same shape out."""
        return cast("Tensor", self.fc2(functional.gelu(self.fc1(tokens))))


class Gates(NamedTuple):
    """What a gating decided.

    Attributes:
        gates: ``(N, experts)``; a softmax over the active experts, 0 for the others.
        balance_loss: Scalar; 0 in evaluation mode.
    """

    gates: Tensor
    balance_loss: Tensor


class SparseExperts(nn.Module):
    """Sends each pixel to a few of several experts, chosen from its features and an instruction.

    The experts' answers are combined in log space: exponentiated, weighted by the gates, summed, and the logarithm
    taken. Everything here runs in float32, also under autocast: half precision overflows at answers above 11.

    Reference:
        Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", ICLR 2017,
        section 2 and appendix A; Yang et al., "All-In-One Medical Image Restoration via Task-Adaptive Routing",
        MICCAI 2024, spatial routing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, hidden: int, experts: int = 4, active: int = 2) -> None:
        if not 1 <= active < experts:
            raise ValueError(f"{active} active experts need more than {active} in all, not {experts}")
        super().__init__()
        self.active = active
        self.w_gate = nn.Parameter(torch.randn(2 * channels, experts))  # normal, not zero as in the usual recipe
        self.w_noise = nn.Parameter(torch.zeros(2 * channels, experts))
        self.experts = nn.ModuleList(Expert(channels, hidden) for _ in range(experts))
        self.tap = RoutingTap("pixels")
        self.register_buffer("mean", torch.zeros(1))  # published checkpoints carry these two; nothing reads them
        self.register_buffer("std", torch.ones(1))

    def forward(self, tokens: Tensor, instruction: Tensor) -> tuple[Tensor, Tensor]:
        """Route and combine.

        Args:
            tokens: ``(B, N, C)`` float32.
            instruction: ``(B, C)`` float32, the same for all pixels of an image.

        Returns:
            ``(B, N, C)``, and the balance loss (a scalar; 0 in evaluation mode).
        """
        choice = self.choose(tokens, instruction)
        gates = self.tap(choice.gates.view(*tokens.shape[:2], -1)).flatten(0, 1)  # (B N, experts)
        flat = tokens.flatten(0, 1)
        if torch.is_grad_enabled():
            mixed = self._mix(flat, gates)
        else:
            mixed = torch.empty_like(flat)
            for start in range(0, len(flat), CHUNK_TOKENS):
                part = slice(start, start + CHUNK_TOKENS)
                mixed[part] = self._mix(flat[part], gates[part])
        return mixed.view_as(tokens), choice.balance_loss

    def choose(self, tokens: Tensor, instruction: Tensor) -> Gates:
        """Gates of every pixel of the batch, ``(B N, experts)``; noisy in training, where experts are balanced."""
        channels = tokens.shape[-1]
        # [features, instruction] times a matrix, without repeating the instruction for every pixel
        clean = tokens @ self.w_gate[:channels] + (instruction @ self.w_gate[channels:])[:, None]
        clean = clean.flatten(0, 1)
        if not self.training:
            return Gates(self._softmax_of_the_best(clean), clean.new_zeros(()))
        spread = tokens @ self.w_noise[:channels] + (instruction @ self.w_noise[channels:])[:, None]
        spread = functional.softplus(spread.flatten(0, 1)) + NOISE_FLOOR
        noisy = clean + spread * torch.randn_like(clean)
        gates = self._softmax_of_the_best(noisy)
        load = self._chance_of_being_chosen(clean, noisy, spread).sum(dim=0)
        return Gates(gates, squared_variation(gates.sum(dim=0)) + squared_variation(load))

    def _softmax_of_the_best(self, logits: Tensor) -> Tensor:
        best, index = logits.topk(self.active, dim=1)
        return torch.zeros_like(logits).scatter(1, index, best.softmax(dim=1))

    def _chance_of_being_chosen(self, clean: Tensor, noisy: Tensor, spread: Tensor) -> Tensor:
        """Were the noise of one expert drawn again: how likely it would be among the active ones, ``(N, experts)``."""
        best = noisy.topk(self.active + 1, dim=1).values
        to_stay, to_get_in = best[:, self.active, None], best[:, self.active - 1, None]
        threshold = torch.where(noisy > to_stay, to_stay, to_get_in)
        return torch.special.ndtr((clean - threshold) / spread)

    def _mix(self, tokens: Tensor, gates: Tensor) -> Tensor:
        """``(N, C)`` pixels and ``(N, experts)`` gates to ``(N, C)``; each expert sees only the pixels sent to it.

        Measured: twice as fast as running every expert on every pixel, and an unchosen one can never overflow.
        """
        total = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            sent = gates[:, index].nonzero()[:, 0]  # a gate that underflows to 0 is not sent
            if len(sent):
                total = total.index_add(0, sent, gates[sent, index, None] * expert(tokens[sent]).exp())
        return total.masked_fill(total == 0, TINY).log()


class SpatialRouter(nn.Module):
    """Adds to each pixel what its experts say.

    Reference:
        Yang et al., "All-In-One Medical Image Restoration via Task-Adaptive Routing", MICCAI 2024, spatial routing.
    """

    def __init__(self, channels: int, atom_dim: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Linear(atom_dim, channels)
        self.moe = SparseExperts(channels, hidden)

    def forward(self, features: Tensor, instruction: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` and ``(B, atom_dim)`` in; the same shape as the features, and the balance loss, out."""
        with torch.autocast(features.device.type, enabled=False):
            tokens = features.float().permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C): a view of channels-last memory
            mixed, balance_loss = self.moe(tokens, self.fc(instruction.float()))
            mixed = mixed.unflatten(1, features.shape[2:]).permute(0, 3, 1, 2)
        return features + mixed.to(features.dtype), balance_loss


class ChannelRouter(nn.Module):
    """Scales and shifts the channels of an image as the instruction says; changes nothing at the start of training.

    Reference:
        Yang et al., "All-In-One Medical Image Restoration via Task-Adaptive Routing", MICCAI 2024, channel routing.
    """

    def __init__(self, channels: int, atom_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(atom_dim, channels)
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.tap = RoutingTap("channels")

    def forward(self, features: Tensor, instruction: Tensor) -> Tensor:
        """``(B, C, H, W)`` and ``(B, atom_dim)`` in; same shape as the features out."""
        with torch.autocast(features.device.type, enabled=False):
            gate = self.tap(self.fc(instruction.float()).sigmoid())[:, :, None, None]  # (B, C, 1, 1)
            scale, shift = 1 + gate * self.gamma, gate * self.beta
        return torch.addcmul(shift.to(features.dtype), features, scale.to(features.dtype))


def squared_variation(amounts: Tensor) -> Tensor:
    """Squared coefficient of variation of what each expert got: 0 when all got the same."""
    return amounts.var() / (amounts.mean().square() + 1e-10)
