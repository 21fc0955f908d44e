"""The one training loop: plain torch, resumes exactly, keeps the best and the last weights, knows no task."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medapp.errors import Cancelled, RunUnusableError, TrainingError
from medapp.networks.device import has_fast_bf16, is_out_of_memory
from medapp.progress import Progress
from medapp.training.distributed import crew
from medapp.training.recipe import Recipe
from medapp.training.run_folder import RunFolder
from medapp.training.tasks.task import FILLER, Task

_log = logging.getLogger(__name__)

NOTE_EVERY = 25
"""Iterations between two points of the curves."""
STATE_EVERY_S = 60.0
"""Seconds between two saved states; a kill costs at most so much."""
PATIENCE_FOR_NAN = 10
_SMALLEST_SCALE = 2.0**-10


@dataclass(frozen=True)
class TrainedRun:
    """How far a run has come.

    Attributes:
        iteration: Batches so far.
        iterations: Of the recipe; 0 = by time.
        best_score: Highest so far; -inf before the first check.
        seconds: Time spent on batches, over all calls.
        is_done: The budget of the recipe is spent.
    """

    iteration: int
    iterations: int
    best_score: float
    seconds: float
    is_done: bool


class Trainer:
    """Trains the network of a task in one run folder.

    Args:
        recipe: What to train and how.
        task: Network, data, loss and judgement; its network is moved to the device.
        run: Folder where the run begins, or goes on exactly where it was stopped.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        TrainingError: The run folder belongs to another run, is damaged, or cannot be written.
    """

    def __init__(self, recipe: Recipe, task: Task, run: RunFolder, device: str = "auto") -> None:
        self._recipe, self._task, self._run, self._device = recipe, task, run, device
        self.iteration = 0
        self.best_score = -math.inf
        self.seconds = 0.0
        self.is_first = True
        self.device_name = "CPU only"
        self._kept_at = 0.0
        self._sums: dict[str, float] = {}
        self._counted = 0

    def train(self, minutes: float, progress: Progress) -> TrainedRun:
        """Train until the recipe's budget is spent, or until so many minutes are up; either way the state is kept.

        Raises:
            Cancelled: The user stopped it; the state of the last iteration is kept.
            TrainingError: The loss is not finite again and again, the disk is full, the device vanished, or another
                training is under way in the folder; the last state that was kept is sound.
        """
        with crew(self._device) as self._crew, self._run.owned() if self._crew.is_first else nullcontext():
            self._begin(progress)
            try:
                return self._train(minutes, progress)
            except (RuntimeError, MemoryError) as error:
                raise self._told(error) from error

    def _begin(self, progress: Progress) -> None:
        """Put everything on the device, and go on with what is in the folder."""
        recipe, task = self._recipe, self._task
        device, self.is_first = self._crew.device, self._crew.is_first
        if self.is_first:
            self._run.begin(recipe, task.data)
        if device.type == "cuda":
            self.device_name = f"{self._crew.world} x {torch.cuda.get_device_name(device)}"
        progress.tell("training", run=str(self._run.path))
        torch.manual_seed(recipe.seed)
        self._step = _Step(task).to(device)
        if self._crew.world > 1 and device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(self._step)
        self._parameters = [value for value in self._step.parameters() if value.requires_grad]
        self._optimiser = _optimiser(recipe, self._parameters)
        self._dtype = dtype_of(recipe, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype is torch.float16)
        self._averaged = {k: v.detach().clone() for k, v in task.network.state_dict().items()}
        self._judged = copy.deepcopy(task.network)
        self._resume()
        self._joined: nn.Module = self._step
        if self._crew.world > 1:
            of_gpu = [device] if device.type == "cuda" else None
            self._joined = nn.parallel.DistributedDataParallel(
                self._step, device_ids=of_gpu, find_unused_parameters=True
            )

    def _train(self, minutes: float, progress: Progress) -> TrainedRun:
        recipe = self._recipe
        stop_at = time.monotonic() + minutes * 60
        by_time = recipe.minutes > 0
        progress.start(
            round(60 * recipe.minutes) if by_time else recipe.iterations, "seconds" if by_time else "batches"
        )
        progress.done = round(self._share() * progress.total)
        if self.is_first and not self._run.curves():
            self._judge(progress)  # what it starts from: the first picture of the window
        strikes, self._kept_at = 0, time.monotonic()
        is_stopped = False
        while True:
            share, is_over = self._crew.largest(
                self._share() if self.is_first else 0.0,
                float(is_stopped or (self.is_first and time.monotonic() >= stop_at)),
            )
            if share >= 1 or is_over:
                break
            began = time.monotonic()
            is_sound = self._update(share)
            strikes = 0 if is_sound else strikes + 1
            if strikes >= PATIENCE_FOR_NAN:
                raise TrainingError(
                    "The loss is not finite any more; what was kept before is sound",
                    "Lower learning_rate in the recipe, then start it again",
                )
            self.iteration += 1
            self.seconds += time.monotonic() - began
            loss = self._sums.get("loss", math.nan) / max(1, self._counted)
            if self.iteration % NOTE_EVERY == 0:
                self._note()
            if self._share() >= 1 or (strikes == 0 and self.iteration % recipe.check_every == 0):
                began = time.monotonic()
                self._check(progress)
                self.seconds += time.monotonic() - began  # judging is a part of the budget
            if strikes == 0 and time.monotonic() > self._kept_at + STATE_EVERY_S:
                self._keep()
            units = max(0, round(self._share() * progress.total) - progress.done)
            try:
                progress.step(units, "training", iteration=self.iteration, loss=loss)
            except Cancelled:
                is_stopped = True
        self._keep()
        if is_stopped and self._share() < 1:
            raise Cancelled
        return TrainedRun(self.iteration, recipe.iterations, self.best_score, self.seconds, self._share() >= 1)

    def _share(self) -> float:
        return self._recipe.spent(self.iteration, self.seconds)

    def _update(self, share: float) -> bool:
        """One iteration; False when it was skipped because something was not finite."""
        recipe, team = self._recipe, self._crew
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.rate(self.iteration, share)
        batch = dict(self._task.batch(self.iteration, team.rank, team.world, share))
        own = 0 if batch.pop(FILLER, None) is not None else len(next(iter(batch.values())))
        batch = {key: value.to(team.device, non_blocking=True) for key, value in batch.items()}
        # noise inside of networks and losses: of the iteration, so that a resumed run draws the same
        torch.manual_seed((recipe.seed * 1_000_003 + self.iteration) * team.world + team.rank)
        self._step.train()
        self._optimiser.zero_grad(set_to_none=True)
        with torch.autocast(team.device.type, self._dtype, enabled=self._dtype is not torch.float32):
            loss, figures = self._joined(batch, share)
        (everybody,) = team.total(own)
        weight = own * team.world / everybody  # gradients are averaged over processes, of which some have fewer samples
        self._scaler.scale(loss * weight).backward()
        self._scaler.unscale_(self._optimiser)
        norm = float(nn.utils.clip_grad_norm_(self._parameters, recipe.gradient_limit))
        mean, *parts = team.total(*(x * own / everybody for x in (float(loss.detach()), *figures.values())))
        is_scaled = self._scaler.is_enabled() and self._scaler.get_scale() > _SMALLEST_SCALE
        if math.isfinite(mean) and (math.isfinite(norm) or is_scaled):
            self._scaler.step(self._optimiser)  # fp16 leaves the weights alone where gradients outgrew it
            self._scaler.update()
            self._average()
            for key, value in zip(("loss", *figures), (mean, *parts), strict=True):
                self._sums[key] = self._sums.get(key, 0.0) + value
            self._counted += 1
            return True
        self._scaler.update()
        _log.warning("iteration %d skipped: loss or gradient is not finite", self.iteration)
        return False

    def _average(self) -> None:
        # young averages must not remember the start
        decay = min(self._recipe.average_decay, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            for key, value in self._task.network.state_dict().items():
                if value.is_floating_point():
                    self._averaged[key].lerp_(value, 1 - decay)
                else:
                    self._averaged[key].copy_(value)

    def _note(self) -> None:
        """One point of the curves: means since the last one."""
        if self.is_first and self._counted:
            means = {key: round(value / self._counted, 5) for key, value in self._sums.items()}
            rate = self._optimiser.param_groups[0]["lr"]
            self._run.note(iteration=self.iteration, seconds=round(self.seconds, 1), rate=rate, **means)
        self._sums, self._counted = {}, 0

    def _check(self, progress: Progress) -> None:
        """Judge the averaged weights on held-out images; keep them when they are the best so far."""
        if not self.is_first:
            return
        score = self._judge(progress)
        self._run.save_weights("last", self._averaged)
        if score is None or score > self.best_score or not self._run.has_weights("best"):
            self._run.save_weights("best", self._averaged)
        if score is not None and score > self.best_score:
            self.best_score = score
        self._keep()

    def _judge(self, progress: Progress) -> float | None:
        """The score of the averaged weights; samples and figures go into the run folder."""
        self._judged.load_state_dict(self._averaged)
        with torch.inference_mode():
            found = self._task.judge(self._judged.eval())
        self._run.save_samples(found.samples)
        figures = {**found.figures, **({} if found.score is None else {"score": found.score})}
        seconds, shown = round(self.seconds, 1), {key: round(value, 5) for key, value in figures.items()}
        self._run.note(iteration=self.iteration, seconds=seconds, **shown)
        _log.info("iteration %d: %s", self.iteration, shown)
        progress.tell("training", checked=self.iteration, **shown)
        return found.score

    def _keep(self) -> None:
        self._kept_at = time.monotonic()
        if not self.is_first:
            return
        self._run.save_state(
            {
                "step": self._step.state_dict(),
                "averaged": self._averaged,
                "optimiser": self._optimiser.state_dict(),
                "scaler": self._scaler.state_dict(),
                "iteration": self.iteration,
                "best_score": self.best_score,
                "seconds": self.seconds,
                "sums": self._sums,
                "counted": self._counted,
            }
        )

    def _resume(self) -> None:
        state: dict[str, Any] | None = self._crew.of_first(self._run.load_state() if self.is_first else None)
        if state is None:
            return
        try:
            self._step.load_state_dict(state["step"])
            self._averaged = {k: v.to(self._crew.device) for k, v in state["averaged"].items()}
            self._optimiser.load_state_dict(state["optimiser"])
            if self._scaler.is_enabled() and state["scaler"]:
                self._scaler.load_state_dict(state["scaler"])
            self.iteration, self.seconds = int(state["iteration"]), float(state["seconds"])
            self.best_score = float(state["best_score"])
            self._sums, self._counted = dict(state["sums"]), int(state["counted"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise RunUnusableError(
                "The state of this run does not fit its recipe", "Choose a new run folder"
            ) from error
        if self.is_first:
            self._run.forget_after(self.iteration)
        _log.info("going on at iteration %d", self.iteration)

    def _told(self, error: Exception) -> Exception:
        """What a person can act upon, of what torch raised; our own bugs stay what they are."""
        safe = f"the run is sound as it was last kept, before iteration {self.iteration + 1}"
        text = str(error).lower()
        if is_out_of_memory(error):
            return TrainingError(f"Memory ran out; {safe}", "Make crops smaller or batches fewer in the recipe")
        if any(word in text for word in ("cuda error", "device lost", "device-side", "mps backend", "hip error")):
            return TrainingError(f"The graphics card vanished; {safe}", "Start it again, or choose --device cpu")
        if any(word in text for word in ("gloo", "nccl", "connection closed by peer", "connection reset")):
            return TrainingError(f"Another process of this training is gone; {safe}", "Start all of them again")
        return error


class _Step(nn.Module):
    """Everything that has parameters, called as one, so that DistributedDataParallel sees the whole step."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = task.network
        self.parts = nn.ModuleDict(dict(task.parts()))
        self._loss = task.loss

    def forward(self, batch: Mapping[str, Tensor], share: float) -> tuple[Tensor, Mapping[str, float]]:
        """Loss of a batch, and its parts."""
        return self._loss(batch, share)


def dtype_of(recipe: Recipe, device: torch.device) -> torch.dtype:
    """In which precision networks compute in training; weights and losses stay float32."""
    wished = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
    if wished is not None:
        return wished
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if has_fast_bf16(device) else torch.float16


def _optimiser(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    made = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return made(parameters, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay)
