"""Restorers: pairs of a degraded slice and its reference, judged on whole held-out slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medapp.networks.registry import architecture
from medapp.restoration.kspace import keep_measured
from medapp.restoration.metrics import psnr_db
from medapp.training.inputs import check_inputs, make_inputs
from medapp.training.losses.focal_region import focal_region_loss
from medapp.training.losses.pixel import log_error
from medapp.training.patches import PatchSet
from medapp.training.recipe import RestorationRecipe
from medapp.training.references import References
from medapp.training.tasks.starting import starting_network
from medapp.training.tasks.task import DataFacts, Judgement, Sample, marked

SAMPLES = 5
_EVERYWHERE = (-float("inf"), float("inf"))


class Pairs(Protocol):
    """Where crops come from; the same arguments give the same crops."""

    def batch(self, step: int, rank: int, world: int) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
        """Degraded and reference crops ``(B, 1, S, S)`` in the recipe's native units, and whether they count.

        A process without samples of its own gets some that do not count, so that it takes part in the exchange.
        """
        ...


@dataclass(frozen=True, eq=False)
class TuningPair:
    """A whole slice on which the best checkpoint is chosen.

    Attributes:
        degraded, reference: ``(Y, X)`` float32 in the recipe's native units.
        is_body: ``(Y, X)`` bool, where it is judged.
        window: What is shown and judged, in native units.
    """

    degraded: NDArray[np.float32]
    reference: NDArray[np.float32]
    is_body: NDArray[np.bool_]
    window: tuple[float, float]


class RestorationTask:
    """Trains a restorer on pairs.

    Args:
        recipe: Network, ranges and loss.
        pairs: Crops to train on.
        tuning: Whole held-out slices; the first five are the samples.
        data: What pairs and slices were made of.
        network: To go on with; None = as the recipe starts.

    Raises:
        TrainingError: The network needs what images alone do not have, or its start cannot be read.
    """

    def __init__(
        self,
        recipe: RestorationRecipe,
        pairs: Pairs,
        tuning: Sequence[TuningPair],
        data: DataFacts,
        network: nn.Module | None = None,
    ) -> None:
        self._recipe, self._pairs, self._tuning, self.data = recipe, pairs, tuple(tuning), data
        self._needed = architecture(recipe.architecture).inputs
        check_inputs(recipe.architecture, self._needed)
        self.network = network if network is not None else starting_network(recipe)
        self._focus = recipe.focus or recipe.value_range

    def parts(self) -> Mapping[str, nn.Module]:
        """Nothing beside the network."""
        return {}

    def batch(self, step: int, rank: int, world: int, share: float) -> Mapping[str, Tensor]:
        """``degraded`` and ``reference`` in native units, and what the network needs beside, such as ``region_map``."""
        degraded, reference, is_own = self._pairs.batch(step, rank, world)
        batch = {"degraded": torch.from_numpy(degraded), "reference": torch.from_numpy(reference)}
        return marked({**batch, **make_inputs(self._needed, degraded, self._focus)}, is_own)

    def loss(self, batch: Mapping[str, Tensor], share: float) -> tuple[Tensor, Mapping[str, float]]:
        """Logarithmic or focal region error, plus what the network adds."""
        recipe, reference = self._recipe, batch["reference"]
        inputs = {name: batch[name] for name in self._needed}
        output = self.network(to_network(batch["degraded"], recipe), **inputs)
        restored, own_loss = output if isinstance(output, tuple) else (output, None)  # such as the balance of routers
        restored = restored.float()  # of autocast
        if recipe.loss == "focal_region":
            loss = focal_region_loss(restored, to_network(reference, recipe), inputs["region_map"], recipe.focal_beta)
        else:
            focus = recipe.focus or _EVERYWHERE
            loss = log_error(from_network(restored, recipe), reference, focus, recipe.outside_weight)
        if own_loss is not None:
            loss = loss + recipe.own_loss_weight * own_loss.float()
        return loss, {}

    def judge(self, network: nn.Module) -> Judgement:
        """Mean PSNR inside of the body over the tuning slices, beside that of the degraded slices."""
        if not self._tuning:
            return Judgement(None)
        restored = [self._restored(network, pair.degraded) for pair in self._tuning]
        made, before = (
            float(
                np.mean([psnr_db(x, p.reference, p.window, p.is_body) for x, p in zip(each, self._tuning, strict=True)])
            )
            for each in (restored, [pair.degraded for pair in self._tuning])
        )
        shown = zip(restored[:SAMPLES], self._tuning, strict=False)
        samples = [_sample(pair, values) for values, pair in shown]
        return Judgement(made, {"psnr_db": made, "input_psnr_db": before}, samples)

    def _restored(self, network: nn.Module, degraded: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = degraded.shape
        multiple = architecture(self._recipe.architecture).size_multiple
        margins = ((0, -height % multiple), (0, -width % multiple))
        padded = np.pad(degraded, margins, mode="reflect")[None, None]
        device = next(network.parameters()).device
        inputs = {k: v.to(device) for k, v in make_inputs(self._needed, padded, self._focus).items()}
        with torch.no_grad():
            made = network(to_network(torch.from_numpy(padded).to(device), self._recipe), **inputs)
        native = from_network(made.float(), self._recipe)[0, 0, :height, :width].cpu().numpy()
        return keep_measured(native, degraded, self._recipe.factor) if self._recipe.factor > 1 else native


def facts_of(references: References, trained: References, patches: PatchSet) -> DataFacts:
    """What a task is made of, for the run folder and the card.

    Args:
        references: All, with those that are held out.
        trained: Those that are trained on.
        patches: What was cut of all.
    """
    spacing = trained.spacing_range_mm
    groups = frozenset(trained.patients) & frozenset(patches.patients)
    return DataFacts(
        references.sha256,
        tuple(entry.source for entry in references),
        len(groups),
        trained.collections(),
        (round(spacing[0], 3), round(spacing[1], 3)) if spacing else None,
        groups=groups,
    )


def to_network(values: Tensor, recipe: RestorationRecipe) -> Tensor:
    """Native values to what the network sees; linear."""
    (low, high), (bottom, top) = recipe.value_range, recipe.network_range
    return (values - low) * ((top - bottom) / (high - low)) + bottom


def from_network(values: Tensor, recipe: RestorationRecipe) -> Tensor:
    """The way back."""
    (low, high), (bottom, top) = recipe.value_range, recipe.network_range
    return (values - bottom) * ((high - low) / (top - bottom)) + low


def _sample(pair: TuningPair, restored: NDArray[np.float32]) -> Sample:
    low, high = pair.window
    shown: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda values: (values - low) / (high - low)  # noqa: E731
    return Sample(shown(pair.degraded), shown(restored), shown(pair.reference))
