"""A run on disk: recipe, data, curves, sample images, and the state from which it goes on after a kill."""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from medapp.errors import RunUnusableError, TrainingError
from medapp.training.recipe import Recipe, recipe_of
from medapp.training.tasks.task import DataFacts, Sample

FORMAT = 2
"""Of the folder; 1 had no number in ``data.json``."""
FREE_TO_CHANGE = ("iterations", "minutes", "cool_down", "learning_rate", "check_every", "version", "title")
"""Recipe entries that a run may change when it goes on; everything else would make it another run."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFolder:
    """One folder: ``recipe.json``, ``data.json``, ``curves.jsonl``, ``samples``, ``state.pt``, ``last``, ``best``.

    Every file is written beside its place and renamed, so a kill at any instant leaves a whole one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Nobody else trains in this folder meanwhile; the lock goes with the process, however that ends.

        Raises:
            TrainingError: Another training is under way here, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("a")
        except OSError as error:
            raise TrainingError("The run folder cannot be written", "Choose another run folder") from error
        with file:
            if not _locked(file):
                raise TrainingError(
                    "Another training is under way in this run folder; it was left alone",
                    "Wait for it, or choose another run folder",
                )
            yield

    def begin(self, recipe: Recipe, data: DataFacts) -> None:
        """Start a run here, or go on with the one that is here.

        Raises:
            TrainingError: Another recipe or other data were used here, a newer medapp wrote it, or the folder cannot
                be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError("The run folder cannot be written", "Choose another run folder") from error
        if (self.path / "recipe.json").exists():
            self._check_same(recipe, data.sha256)
        content = {
            "format": FORMAT,
            "sha256": data.sha256,
            "files": list(data.files),
            "patients": data.patients,
            "threads": torch.get_num_threads(),
        }
        self._write("data.json", json.dumps(content, indent=2).encode())
        self._write("recipe.json", recipe.to_json().encode())

    def _check_same(self, recipe: Recipe, data_sha256: str) -> None:
        known = self._read_json("data.json")
        if known.get("format", 1) > FORMAT:
            raise TrainingError("This run folder was written by a newer medapp; it was not changed", "Update medapp")
        if known.get("format", 1) < FORMAT:
            raise RunUnusableError("This run folder was written by an older medapp", "Choose a new run folder")
        before, now = (json.loads(each.to_json()) for each in (recipe_of(self._read_json("recipe.json")), recipe))
        changed = [key for key in now if before.get(key) != now[key] and key not in FREE_TO_CHANGE]
        if changed:
            raise RunUnusableError(f"This run was started with another {', '.join(changed)}", "Choose a new run folder")
        if known["sha256"] != data_sha256:
            raise RunUnusableError("This run was started with other data", "Choose a new run folder")

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.path / name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RunUnusableError(f"The file {name} of this run is damaged", "Choose a new run folder") from error

    def load_state(self) -> dict[str, Any] | None:
        """What ``save_state`` kept; None for a new run.

        Raises:
            RunUnusableError: The file is damaged.
        """
        path = self.path / "state.pt"
        if not path.exists():
            return None
        try:
            return dict(torch.load(path, weights_only=True, map_location="cpu"))
        except Exception as error:  # torch raises whatever its reader stumbled upon
            raise RunUnusableError("The state of this run is damaged", "Choose a new run folder") from error

    def save_state(self, state: dict[str, Any]) -> None:
        """Keep everything that the next iteration depends on.

        Raises:
            TrainingError: The disk is full or cannot be written; what was kept before is untouched.
        """
        content = io.BytesIO()
        torch.save(state, content)
        self._write("state.pt", content.getbuffer())

    def save_weights(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Write ``<name>.safetensors``.

        Raises:
            TrainingError: As ``save_state``.
        """
        self._write(f"{name}.safetensors", to_safetensors({k: v.cpu().contiguous() for k, v in weights.items()}))

    def has_weights(self, name: str) -> bool:
        """True when ``<name>.safetensors`` is there."""
        return (self.path / f"{name}.safetensors").exists()

    def load_weights(self, name: str) -> dict[str, Tensor]:
        """Read ``<name>.safetensors``."""
        return load_file(self.path / f"{name}.safetensors")

    def save_samples(self, samples: Sequence[Sample]) -> None:
        """Write ``samples/<n>.png``: input, result and reference side by side.

        Raises:
            TrainingError: As ``save_state``.
        """
        for number, sample in enumerate(samples, 1):
            parts = [np.atleast_3d(part) for part in (sample.degraded, sample.result, sample.reference)]
            channels = max(part.shape[2] for part in parts)
            row = np.concatenate([np.repeat(p, channels // p.shape[2], axis=2) for p in parts], axis=1)
            shown = np.nan_to_num(np.clip(row, 0, 1) * 255).round().astype(np.uint8)
            self._write(f"samples/{number}.png", png_bytes(shown), is_precious=False)

    def note(self, **figures: float | int | str) -> None:
        """Append one line to the curves; figures that are not finite are left out.

        Raises:
            TrainingError: The disk is full or cannot be written.
        """
        sound = {k: v for k, v in figures.items() if not isinstance(v, float) or np.isfinite(v)}
        try:
            with (self.path / "curves.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(sound) + "\n")
        except OSError as error:
            raise self._not_written(error) from error

    def forget_after(self, iteration: int) -> None:
        """Drop curve points that a killed run noted beyond its last kept state; they will be noted again."""
        path = self.path / "curves.jsonl"
        if path.exists():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _is_until(line, iteration)]
            self._write("curves.jsonl", "".join(f"{line}\n" for line in kept).encode())

    def curves(self) -> list[dict[str, Any]]:
        """The points noted so far; a line that a kill cut short is left out."""
        path = self.path / "curves.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if _is_until(line, None)]

    def _write(self, name: str, content: bytes | memoryview, is_precious: bool = True) -> None:
        place = self.path / name
        partial = place.with_name(f"{place.name}.part")
        try:
            place.parent.mkdir(exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                if is_precious:  # on the disk before it takes the place of the last one
                    os.fsync(file.fileno())
            partial.replace(place)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> TrainingError:
        safe = "what was kept before is sound" if (self.path / "state.pt").exists() else "nothing was kept yet"
        if error.errno in _DISK_FULL:
            return TrainingError(f"The disk of the run folder is full; {safe}", "Free some space, then start it again")
        return TrainingError(f"The run folder cannot be written; {safe}", "Choose another run folder")


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of ``(H, W, 1)`` grey or ``(H, W, 3)`` colour pixels.

    Reference:
        W3C, "Portable Network Graphics", third edition, sections 5 and 9.
    """
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # filter 0 a row
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _is_until(line: str, iteration: int | None) -> bool:
    """True for a whole line of the curves, of an iteration up to this one."""
    try:
        at = json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return False
    return iteration is None or at <= iteration


def _locked(file: IO[str]) -> bool:
    """Lock an open file until it is closed; False where somebody else has it."""
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps two trainings apart there
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
