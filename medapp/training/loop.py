"""The training loop: plain torch, resumes exactly, keeps the best and the last weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medapp.errors import TrainingError
from medapp.networks.registry import architecture, build_network
from medapp.progress import Progress
from medapp.restoration.metrics import CT_DISPLAY_WINDOW, body_mask, psnr_db
from medapp.training.data import CropSampler, CtSlice
from medapp.training.degradations import Scanner, low_dose
from medapp.training.inputs import check_inputs, make_inputs
from medapp.training.losses.focal_region import focal_region_loss
from medapp.training.losses.pixel import log_error
from medapp.training.recipe import Recipe
from medapp.training.run_folder import RunFolder

_log = logging.getLogger(__name__)

STATE_EVERY = 100
"""Iterations between two saved states; a kill costs at most so many."""
PATIENCE_FOR_NAN = 10


@dataclass(frozen=True)
class TuningPair:
    """A whole slice on which the best checkpoint is chosen."""

    degraded: NDArray[np.float32]
    reference: NDArray[np.float32]
    is_body: NDArray[np.bool_]


def tuning_pairs(slices: Sequence[CtSlice], per_patient: int = 1) -> list[TuningPair]:
    """Quarter-dose pairs, sharp and soft kernel in turn, from the middle slices of each patient."""
    by_patient: dict[str, list[CtSlice]] = {}
    for entry in slices:
        by_patient.setdefault(entry.patient, []).append(entry)
    pairs: list[TuningPair] = []
    for patient in sorted(by_patient):
        entries = by_patient[patient]
        first = max(0, (len(entries) - per_patient) // 2)
        for entry in entries[first : first + per_patient]:
            scanner = Scanner(kernel="hann" if len(pairs) % 2 == 0 else "ramp")
            degraded = low_dose(entry.values, entry.spacing_mm, 0.25, scanner, tag="tuning")
            pairs.append(TuningPair(degraded, entry.values, body_mask(entry.values)))
    return pairs


class Trainer:
    """Trains one network in one run folder."""

    def __init__(self, recipe: Recipe, run: RunFolder, sampler: CropSampler, pairs: Sequence[TuningPair]) -> None:
        self._recipe = recipe
        self._run = run
        self._sampler = sampler
        self._pairs = pairs
        self._needed = architecture(recipe.architecture).inputs
        check_inputs(recipe.architecture, self._needed)
        torch.manual_seed(recipe.seed)
        self.network = build_network(recipe.architecture, recipe.config)
        _start_as_identity(self.network)
        self.averaged = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
        )
        self.iteration = 0
        self.best_psnr_db = float("-inf")
        self.seconds = 0.0
        self._resume()

    def train(self, minutes: float, progress: Progress) -> None:
        """Train until the recipe's last iteration, or until the time is up; either way the state is kept.

        Raises:
            Cancelled: The user stopped it; the state of the last iteration is kept.
            TrainingError: The loss is not finite again and again.
        """
        recipe, stop_at = self._recipe, time.monotonic() + minutes * 60
        progress.start(recipe.iterations, "batches", "training")
        progress.done = self.iteration
        strikes, losses = 0, []
        try:
            while self.iteration < recipe.iterations and time.monotonic() < stop_at:
                began = time.monotonic()
                loss = self._step()
                strikes = 0 if loss is not None else strikes + 1
                if strikes >= PATIENCE_FOR_NAN:
                    raise TrainingError("The loss is not finite any more", "Lower learning_rate in the recipe")
                losses.append(loss if loss is not None else float("nan"))
                self.iteration += 1
                self.seconds += time.monotonic() - began
                if self.iteration % 25 == 0:
                    self._run.note(
                        iteration=self.iteration,
                        loss=round(float(np.nanmean(losses)), 5),
                        rate=recipe.rate(self.iteration),
                        seconds=round(self.seconds, 1),
                    )
                    losses = []
                if self.iteration % recipe.check_every == 0 or self.iteration == recipe.iterations:
                    self._check()
                if self.iteration % STATE_EVERY == 0:
                    self._keep()
                progress.step()
        finally:
            self._keep()

    def _step(self) -> float | None:
        """One iteration; None when it was skipped because something was not finite."""
        recipe = self._recipe
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.rate(self.iteration)
        batch = self._sampler.batch(self.iteration)
        degraded, reference = (torch.from_numpy(part) for part in batch)
        inputs = make_inputs(self._needed, batch[0], recipe.focus)
        self.network.train()
        self._optimiser.zero_grad(set_to_none=True)
        output = self.network(to_network(degraded, recipe), **inputs)
        restored, own_loss = output if isinstance(output, tuple) else (output, None)  # such as the balance of routers
        if recipe.loss == "focal_region":
            loss = focal_region_loss(restored, to_network(reference, recipe), inputs["region_map"], recipe.focal_beta)
        else:
            loss = log_error(from_network(restored, recipe), reference, recipe.focus, recipe.outside_weight)
        if own_loss is not None:
            loss = loss + recipe.own_loss_weight * own_loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), recipe.gradient_limit)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            _log.warning("iteration %d skipped: loss or gradient is not finite", self.iteration)
            return None
        self._optimiser.step()
        # young averages must not remember the start
        decay = min(recipe.average_decay, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            for key, value in self.network.state_dict().items():
                self.averaged[key].lerp_(value, 1 - decay)
        return float(loss.detach())

    def _check(self) -> None:
        """Judge the averaged weights on whole slices; keep them when they are the best so far."""
        network = build_network(self._recipe.architecture, self._recipe.config)
        network.load_state_dict(self.averaged)
        network.eval()
        figures = [self._psnr_db(network, pair) for pair in self._pairs]
        mean = float(np.mean(figures)) if figures else float(-self.iteration)
        self._run.note(
            iteration=self.iteration, tuning_psnr_db=round(mean, 4), each=" ".join(f"{f:.2f}" for f in figures)
        )
        _log.info("iteration %d: tuning PSNR %.3f dB", self.iteration, mean)
        self._run.save_weights("last", self.averaged)
        if mean > self.best_psnr_db:
            self.best_psnr_db = mean
            self._run.save_weights("best", self.averaged)

    def _psnr_db(self, network: nn.Module, pair: TuningPair) -> float:
        height, width = pair.degraded.shape
        multiple = architecture(self._recipe.architecture).size_multiple
        margins = ((0, -height % multiple), (0, -width % multiple))
        padded = np.pad(pair.degraded, margins, mode="reflect")[None, None]
        inputs = make_inputs(self._needed, padded, self._recipe.focus)
        with torch.inference_mode():
            made = network(to_network(torch.from_numpy(padded), self._recipe), **inputs)
            restored = from_network(made, self._recipe)
        return psnr_db(restored[0, 0, :height, :width].numpy(), pair.reference, CT_DISPLAY_WINDOW, pair.is_body)

    def _keep(self) -> None:
        self._run.save_state(
            {
                "network": self.network.state_dict(),
                "averaged": self.averaged,
                "optimiser": self._optimiser.state_dict(),
                "iteration": self.iteration,
                "best_psnr_db": self.best_psnr_db,
                "seconds": self.seconds,
            }
        )

    def _resume(self) -> None:
        state = self._run.load_state()
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.averaged = state["averaged"]
        self._optimiser.load_state_dict(state["optimiser"])
        self.iteration = int(state["iteration"])
        self.best_psnr_db = float(state["best_psnr_db"])
        self.seconds = float(state["seconds"])
        self._run.forget_after(self.iteration)
        _log.info("going on at iteration %d", self.iteration)


def to_network(values: Tensor, recipe: Recipe) -> Tensor:
    """Native values to what the network sees; linear."""
    (low, high), (bottom, top) = recipe.value_range, recipe.network_range
    return (values - low) * ((top - bottom) / (high - low)) + bottom


def from_network(values: Tensor, recipe: Recipe) -> Tensor:
    """The way back."""
    (low, high), (bottom, top) = recipe.value_range, recipe.network_range
    return (values - bottom) * ((high - low) / (top - bottom)) + low


def _start_as_identity(network: nn.Module) -> None:
    """Silence the last layer: the network starts as "leave the image alone", never worse than doing nothing."""
    output = next(
        (getattr(network, name) for name in ("output", "ending", "tail_conv") if hasattr(network, name)), None
    )
    if isinstance(output, nn.Conv2d | nn.Conv3d):
        nn.init.zeros_(output.weight)
        if output.bias is not None:
            nn.init.zeros_(output.bias)


def cache_dir(run: Path) -> Path:
    """Where simulated noise is kept: beside the runs, shared by them."""
    return run.parent / "noise_cache"
