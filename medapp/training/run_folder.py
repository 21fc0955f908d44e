"""A run on disk: recipe, data, curves, and the state from which it goes on after a kill."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medapp.errors import TrainingError
from medapp.training.recipe import Recipe, recipe_of

FREE_TO_CHANGE = ("iterations", "cool_down", "learning_rate", "check_every", "version")
"""Recipe entries that a run may change when it goes on; everything else would make it another run."""


class RunFolder:
    """One folder: ``recipe.json``, ``data.json``, ``curves.jsonl``, ``state.pt``, ``last`` and ``best.safetensors``.

    Every file is written beside its place and renamed, so a kill at any instant leaves a whole one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, recipe: Recipe, data_sha256: str, files: list[str]) -> None:
        """Start a run here, or go on with the one that is here.

        Raises:
            TrainingError: Another recipe or other data were used here, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if (self.path / "recipe.json").exists():
                self._check_same(recipe, data_sha256)
            self._write("recipe.json", recipe.to_json().encode())
            content = {"sha256": data_sha256, "files": files, "threads": torch.get_num_threads()}
            self._write("data.json", json.dumps(content, indent=2).encode())
        except OSError as error:
            raise TrainingError("The run folder cannot be written", "Choose another folder with --out") from error

    def _check_same(self, recipe: Recipe, data_sha256: str) -> None:
        before = asdict(recipe_of(json.loads((self.path / "recipe.json").read_text(encoding="utf-8"))))
        changed = [key for key, value in asdict(recipe).items() if before[key] != value and key not in FREE_TO_CHANGE]
        if changed:
            raise TrainingError(f"This run was started with another {', '.join(changed)}", "Choose a new --out folder")
        if (self.path / "data.json").exists():
            known = json.loads((self.path / "data.json").read_text(encoding="utf-8"))["sha256"]
            if known != data_sha256:
                raise TrainingError("This run was started with other data", "Choose a new --out folder")

    def load_state(self) -> dict[str, Any] | None:
        """What ``save_state`` kept; None for a new run.

        Raises:
            TrainingError: The file is damaged.
        """
        path = self.path / "state.pt"
        if not path.exists():
            return None
        try:
            return dict(torch.load(path, weights_only=True, map_location="cpu"))
        except Exception as error:  # torch raises whatever its reader stumbled upon
            raise TrainingError("The state of this run is damaged", "Start again in a new folder") from error

    def save_state(self, state: dict[str, Any]) -> None:
        """Keep everything that the next iteration depends on."""
        partial = self.path / "state.pt.part"
        torch.save(state, partial)
        _sync(partial)
        partial.replace(self.path / "state.pt")

    def save_weights(self, name: str, weights: dict[str, Tensor]) -> None:
        """Write ``<name>.safetensors``."""
        partial = self.path / f"{name}.part"
        save_file({key: value.contiguous() for key, value in weights.items()}, partial)
        partial.replace(self.path / f"{name}.safetensors")

    def load_weights(self, name: str) -> dict[str, Tensor]:
        """Read ``<name>.safetensors``."""
        return load_file(self.path / f"{name}.safetensors")

    def note(self, **figures: float | int | str) -> None:
        """Append one line to the curves."""
        with (self.path / "curves.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")

    def forget_after(self, iteration: int) -> None:
        """Drop curve points that a killed run noted beyond its last kept state; they will be noted again."""
        path = self.path / "curves.jsonl"
        if path.exists():
            # a kill may have cut the last line short
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["iteration"] <= iteration]
            self._write("curves.jsonl", "".join(f"{line}\n" for line in kept).encode())

    def _write(self, name: str, content: bytes) -> None:
        partial = self.path / f"{name}.part"
        partial.write_bytes(content)
        partial.replace(self.path / name)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
