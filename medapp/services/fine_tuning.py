"""Going on from a model without forgetting: staying near its start, and how far to go towards what was learnt."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from medapp.networks.card import Card
from medapp.networks.library import LoadedModel
from medapp.progress import Progress
from medapp.training.recipe import Recipe
from medapp.training.tasks.task import DataFacts, Judgement, Task

_log = logging.getLogger(__name__)

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)

OF_INFERENCE = ("crop", "views", "finish")
"""Beginnings of the entries of a card's training that say how the model is used, and stay."""
SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Of the way from the champion to the fine-tuned weights that are tried."""
OLD_LOSS_LIMIT = 0.0
"""Of the error on old cases held apart from training; the scorecard's hold-out is never looked at. They are a handful,
and what they lose nothing on still costs 1 or 2 % on others, so none is allowed here."""
UNSEEN_SHARE = 0.6
"""Of the way where nothing old is at hand and nothing new can be held apart."""


def fine_tuned_recipe(recipe: AnyRecipe, card: Card, minutes: float, **entries: Any) -> AnyRecipe:
    """The recipe of a champion as one gentle run from its weights, by time.

    Args:
        recipe: Of the champion, or one with the defaults of its task.
        card: Of the champion.
        minutes: Of training.
        entries: What else differs.
    """
    return replace(
        recipe,
        name=card.id,
        title=card.name,
        version=card.version,
        start_from=card.id,
        stages=(),
        full={},
        iterations=0,
        minutes=minutes,
        warm_up=20,
        schedule="cosine",
        least_rate=0.02,
        average_decay=0.98,
        tuning_patients=(),
        seed=0,
        hold_out_seed=None,
        **entries,
    )


@dataclass(frozen=True)
class HeldOutCase:
    """A case that only judges.

    Attributes:
        group: ``scorecard.NEW`` or ``scorecard.OLD``.
        name: What people read; no patient's name.
        patient: Patient group.
        measure: Figures of a model on it, by the keys of ``METRICS``.
    """

    group: str
    name: str
    patient: str
    measure: Callable[[LoadedModel], Mapping[str, float]]


@dataclass(frozen=True)
class FineTuning:
    """Everything that is particular to what a model is retrained for.

    Attributes:
        recipe: How to train.
        task: What the loop trains; its network starts as the champion.
        validate: Error on new and on old cases held apart from training, lower is better; None where there are none.
        held_out: Reads the cases that judge; asked for once training is over.
        to_keep: Of the trained weights, what a model is made of.
        notes: Sentences for the scorecard.
        unit: Of the values, for the scorecard.
    """

    recipe: Recipe
    task: Task
    validate: Callable[[nn.Module], tuple[float | None, float | None]]
    held_out: Callable[[Progress], Sequence[HeldOutCase]]
    to_keep: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    notes: tuple[str, ...] = ()
    unit: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)


class NearStart:
    """A task whose weights are drawn back to where they began, so that little is forgotten.

    Args:
        task: Its network is at its start.
        strength: Weight of the mean squared distance, in units of the mean squared weight.

    Reference:
        Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018 (L2-SP).
    """

    def __init__(self, task: Task, strength: float) -> None:
        self._task, self._strength = task, strength
        self.network: nn.Module = task.network
        self.data: DataFacts = task.data
        self._start = {name: value.detach().clone() for name, value in task.network.named_parameters()}
        size = sum(float(value.square().sum()) for value in self._start.values())
        self._scale = strength / max(size, 1e-12)

    def parts(self) -> Mapping[str, nn.Module]:
        """Of the task."""
        return self._task.parts()

    def batch(self, step: int, rank: int, world: int, share: float) -> Mapping[str, Tensor]:
        """Of the task."""
        return self._task.batch(step, rank, world, share)

    def loss(self, batch: Mapping[str, Tensor], share: float) -> tuple[Tensor, Mapping[str, float]]:
        """The task's, and the distance from the start."""
        loss, figures = self._task.loss(batch, share)
        distance = loss.new_zeros(())
        for name, value in self.network.named_parameters():
            start = self._start[name]
            if start.device != value.device:
                start = self._start[name] = start.to(value.device)
            distance = distance + (value - start).square().sum()
        return loss + self._scale * distance, {**figures, "distance": float(self._scale * distance.detach())}

    def judge(self, network: nn.Module) -> Judgement:
        """Of the task."""
        return self._task.judge(network)


def blended(start: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights a share of the way from the start to what was learnt; whole numbers are those of the start.

    Reference:
        Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022 (WiSE-FT).
    """
    return {
        key: torch.lerp(value, trained[key].to(value.dtype), share) if value.is_floating_point() else value
        for key, value in start.items()
    }


def best_share(tuning: FineTuning, start: nn.Module, trained: Mapping[str, Tensor], progress: Progress) -> float:
    """How far to go, judged on cases that were held apart from training and from the hold-out.

    The way with the lowest error on new cases among those that lose nothing on old ones; without new cases the
    farthest of those; without old ones at most to where the new error is lowest.

    Args:
        tuning: Knows the cases.
        start: The champion; it is left as it is.
        trained: What was learnt.
        progress: Notices Stop.
    """
    began, network = start.state_dict(), copy.deepcopy(start).eval()
    tried: list[tuple[float, float | None, float | None]] = []
    for share in SHARES:
        progress.check()
        network.load_state_dict(blended(began, trained, share))
        with torch.inference_mode():
            tried.append((share, *tuning.validate(network)))
        _log.info("a share of %.2f: new %s, old %s", *tried[-1])
    _, new_before, old_before = tried[0]
    if new_before is None and old_before is None:
        return UNSEEN_SHARE
    allowed = [
        (share, new)
        for share, new, old in tried[1:]
        if old is None or old_before is None or old <= (1 + OLD_LOSS_LIMIT) * old_before
    ]
    if not allowed:
        return SHARES[1]  # the smallest step; the scorecard tells whether it was worth it
    if new_before is None:
        return max(share for share, _ in allowed)
    return min(allowed, key=lambda pair: (pair[1] if pair[1] is not None else float("inf"), pair[0]))[0]


def challenger_card(
    champion: Card, challenger_id: str, line: str, training: Mapping[str, Any], data: Sequence[Mapping[str, Any]]
) -> Card:
    """The card of a fine-tuned model: the champion's, with how it was made anew and no figures of its own yet."""
    from dataclasses import replace

    number = challenger_id.removeprefix(f"{line}.")
    first = champion.version.partition(".")[0]
    return replace(
        champion,
        id=challenger_id,
        version=f"{first}.{number}",
        sha256="0" * 64,  # keep_weights fills it in
        figures={},
        data=(*champion.data, *data),
        training={**{k: v for k, v in champion.training.items() if k.startswith(OF_INFERENCE)}, **training},
    )
