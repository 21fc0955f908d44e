"""Slices of references as memory-mapped files, with what was derived from them, and random crops of both.

Each slice becomes one ``.npy`` file in a cache folder, and each layer derived from it (degraded, noise, body) another,
under a name that depends on the pixels and on how it was made: a second run finds them, and so does another recipe.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.errors import TrainingError
from medapp.progress import Progress
from medapp.restoration.metrics import body_mask
from medapp.training.degradations import degrade
from medapp.training.degradations.kinds import Parameters, check_parameters
from medapp.training.references import References, counted

_log = logging.getLogger(__name__)

CACHE_VERSION = "2"
LEAST_SIDE_PX = 32
_ENOUGH_BODY = 0.4
_TRIES = 10
_AIR_SHARE = 0.02  # slices with less body than that are left out

Derive = Callable[["StoredSlice"], NDArray]
"""Makes a layer of a slice: ``(..., Y, X)``, or ``(Y, X, 3)`` for colour."""


@dataclass(frozen=True, eq=False)
class StoredSlice:
    """One slice of a reference, on disk.

    Attributes:
        patient: Patient group.
        source: Source of the reference and number of the slice; told to nobody but the run folder.
        spacing_mm: In-plane pixel size as one number; 1 when unknown.
        shape: ``(Y, X)`` or ``(Y, X, 3)``.
        sha256: Over shape and values.
        files: Layer to file: ``reference``, ``is_body`` and whatever was derived.
    """

    patient: str
    source: str
    spacing_mm: float
    shape: tuple[int, ...]
    sha256: str
    files: Mapping[str, Path] = field(repr=False)

    @property
    def seed(self) -> int:
        """Depends on the pixels alone."""
        return int(self.sha256[:15], 16)

    def layer(self, name: str) -> NDArray:
        """A layer, mapped read-only: only what is cut from it is read."""
        mapped: NDArray = np.load(self.files[name], mmap_mode="r", allow_pickle=False)
        return mapped

    @property
    def values(self) -> NDArray[np.float32]:
        """The reference itself, float32."""
        return np.asarray(self.layer("reference"), np.float32)


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Slices to cut crops from.

    Attributes:
        slices: In a fixed order.
        cache: Folder of their files.
        notes: What was left out, one sentence each.
    """

    slices: tuple[StoredSlice, ...]
    cache: Path
    notes: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        references: References,
        cache: Path,
        progress: Progress,
        most_slices: int = 0,
        least_side_px: int = LEAST_SIDE_PX,
    ) -> PatchSet:
        """Store every slice of the references that has a body in it.

        Args:
            references: What to store; read one series at a time.
            cache: Made when it is not there.
            progress: Counts series.
            most_slices: Of one series, evenly spread; 0 = all.
            least_side_px: Smaller slices are left out.

        Raises:
            TrainingError: No slice is large and full enough, or the disk is full.
            Cancelled: The user stopped it; finished slices stay in the cache.
        """
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _full(error) from error
        slices: list[StoredSlice] = []
        small = empty = 0
        progress.start(len(references), "series", "storing slices")
        for reference in references:
            values = reference.load()
            modality = reference.modality
            step = max(1, -(-len(values) // most_slices)) if most_slices else 1
            for z in range((len(values) - 1) % step // 2, len(values), step):
                one = np.ascontiguousarray(values[z], dtype=np.float32)
                if min(one.shape[:2]) < least_side_px:
                    small += 1
                    continue
                body = body_of(one, modality)
                if float(body.mean()) < _AIR_SHARE:
                    empty += 1
                    continue
                digest = hashlib.sha256(repr(one.shape).encode() + one.tobytes()).hexdigest()
                files = {
                    "reference": _stored(cache / f"{digest[:24]}.npy", lambda one=one: one),  # type: ignore[misc]
                    "is_body": _stored(cache / f"{digest[:24]}-body-{modality}.npy", lambda body=body: body),  # type: ignore[misc]
                }
                source = f"{reference.source} {z}"
                slices.append(
                    StoredSlice(reference.patient, source, reference.mean_spacing_mm, one.shape, digest, files)
                )
                region_map = reference.region_map(z) if reference.region_map is not None else None
                if region_map is not None:
                    tag = hashlib.sha256(region_map.tobytes()).hexdigest()[:12]
                    path = _stored(cache / f"{digest[:24]}-regions-{tag}.npy", lambda m=region_map: m)  # type: ignore[misc]
                    slices[-1] = replace(slices[-1], files={**files, "region_map": path})
                progress.check()
            progress.step()
        reasons = ((small, f"are smaller than {least_side_px} px"), (empty, "show nothing but air"))
        notes = tuple(f"{counted(number, 'slice', why)}: left out." for number, why in reasons if number)
        if not slices:
            told = f": {notes[0].removesuffix(': left out.')}" if notes else ""
            raise TrainingError(f"No slice can be cut into patches{told}", "Use scans with larger slices")
        return cls(tuple(slices), cache, notes)

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient groups, sorted."""
        return tuple(sorted({entry.patient for entry in self.slices}))

    @property
    def sha256(self) -> str:
        """Over patient and values of every slice, in any order."""
        lines = sorted(f"{entry.patient}\0{entry.sha256}" for entry in self.slices)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def of_patients(self, patients: Sequence[str]) -> PatchSet:
        """Only the slices of these patients; may be empty."""
        return replace(self, slices=tuple(entry for entry in self.slices if entry.patient in patients))

    def chosen(self, is_wanted: Callable[[StoredSlice], bool]) -> PatchSet:
        """Only the slices that are wanted; may be empty."""
        return replace(self, slices=tuple(entry for entry in self.slices if is_wanted(entry)))

    def derived(self, name: str, key: str, make: Derive, progress: Progress, on_the_grid: bool = True) -> PatchSet:
        """The same slices with one layer more, made now or found in the cache.

        Args:
            name: Of the layer.
            key: Everything that decides what ``make`` gives, beside the slice: another key, another file.
            make: Gives an array whose rows and columns are those of the slice.
            progress: Counts slices.
            on_the_grid: False for layers on a grid of their own, such as coarser pixels; ``Cropper`` cannot cut them.

        Raises:
            TrainingError: A layer has another size, or the disk is full.
            Cancelled: The user stopped it; finished layers stay in the cache.
        """
        tag = hashlib.sha256(f"{CACHE_VERSION}\0{key}".encode()).hexdigest()[:12]
        progress.start(len(self.slices), "slices", f"making {name.replace('_', ' ')}")
        made = []
        for entry in self.slices:
            path = self.cache / f"{entry.sha256[:24]}-{name}-{tag}.npy"
            file = _stored(path, lambda entry=entry: _fitting(make(entry), entry if on_the_grid else None))  # type: ignore[misc]
            made.append(replace(entry, files={**entry.files, name: file}))
            progress.step()
        return replace(self, slices=tuple(made))

    def degraded(self, parameters: Parameters, progress: Progress, realisations: int = 1, seed: int = 0) -> PatchSet:
        """The same slices with the layer ``degraded``: ``(realisations, Y, X[, 3])`` float32.

        Args:
            parameters: As on a card; see ``degradations.kinds.degrade``.
            progress: Counts slices.
            realisations: Different draws of each slice, one of which is cut at random.
            seed: Of the draws, beside the pixels.

        Raises:
            TrainingError: The parameters cannot be used, a slice is too small for them, or the disk is full.
            Cancelled: The user stopped it.
        """
        check_parameters(parameters)

        def make(entry: StoredSlice) -> NDArray:
            draws = [
                degrade(parameters, entry.values, entry.spacing_mm, (entry.seed + seed * 1_000_003 + number) % 2**63)
                for number in range(realisations)
            ]
            return np.stack(draws)

        key = f"{json.dumps(dict(parameters), sort_keys=True)}/{realisations}/{seed}"
        return self.derived("degraded", key, make, progress)


@dataclass(frozen=True, eq=False)
class Crop:
    """A piece of a slice: every layer of the same place, turned the same way.

    Attributes:
        entry: The slice.
        layers: ``reference`` and others, ``(S, S)`` or ``(S, S, 3)``.
    """

    entry: StoredSlice
    layers: Mapping[str, NDArray]


class Cropper:
    """Draws crops: patients alike, slices of a patient alike, air skipped, turned and mirrored at random.

    Args:
        patches: With the layers.
        layers: What to cut beside ``reference``; of a layer with realisations one is drawn.
        augment: False leaves crops as they lie.
        patient_shares: Patients whose group begins so are drawn so many times as often.
    """

    def __init__(
        self,
        patches: PatchSet,
        layers: Sequence[str] = ("degraded",),
        augment: bool = True,
        patient_shares: Mapping[str, int] | None = None,
    ) -> None:
        if not patches.slices:
            raise TrainingError("Nothing is left to train on", "Add data, or hold fewer patients out")
        self._layers, self._augment = ("reference", *layers), augment
        self._by_patient: dict[str, list[StoredSlice]] = {}
        for entry in patches.slices:
            self._by_patient.setdefault(entry.patient, []).append(entry)
        shares = patient_shares or {}
        often = {
            patient: next((times for beginning, times in shares.items() if patient.startswith(beginning)), 1)
            for patient in self._by_patient
        }
        self._patients = sorted(patient for patient in self._by_patient for _ in range(often[patient]))

    def crop(self, side: int, random: np.random.Generator) -> Crop:
        """One crop; a slice smaller than ``side`` is mirrored at its edges."""
        # patients alike, not slices: a long series must not outweigh the others
        of_patient = self._by_patient[self._patients[int(random.integers(len(self._patients)))]]
        entry = of_patient[int(random.integers(len(of_patient)))]
        place = self._place(entry, side, random)
        is_mirrored, turns = (random.random() < 0.5, int(random.integers(4))) if self._augment else (False, 0)
        layers = {}
        for name in self._layers:
            layer = entry.layer(name)
            if layer.ndim > len(entry.shape):  # realisations
                layer = layer[int(random.integers(len(layer)))]
            layers[name] = _turned(_padded(np.array(layer[place]), side), is_mirrored, turns)
        return Crop(entry, layers)

    def batch(self, side: int, count: int, seed: Sequence[int], own: Sequence[int] | None = None) -> list[Crop]:
        """Crops of a batch; crop ``i`` depends on the seed and ``i`` alone, so processes can share a batch.

        Args:
            side: In pixels.
            count: Of the whole batch.
            seed: Such as ``(recipe.seed, step)``.
            own: Which of them to cut; None = all.
        """
        chosen = range(count) if own is None else own
        return [self.crop(side, np.random.default_rng([*seed, index])) for index in chosen]

    def _place(self, entry: StoredSlice, side: int, random: np.random.Generator) -> tuple[slice, slice]:
        """A window with enough body in it; the best of ten draws otherwise."""
        is_body = entry.layer("is_body")
        best, most = (slice(0, side), slice(0, side)), -1.0
        for _ in range(_TRIES):
            y, x = (int(random.integers(max(1, size - side + 1))) for size in entry.shape[:2])
            place = (slice(y, y + side), slice(x, x + side))
            share = float(np.mean(is_body[place]))
            if share > most:
                best, most = place, share
            if share >= _ENOUGH_BODY:
                break
        return best


class PatchPairs:
    """Batches of degraded and reference crops for a restoration task; the same arguments give the same batch.

    Args:
        patches: With the layer ``degraded``.
        crops: ``(side in px, batch)`` pairs drawn in turn at random, as in a recipe.
        seed: Of the draws.
    """

    def __init__(self, patches: PatchSet, crops: Sequence[tuple[int, int]], seed: int = 0) -> None:
        self._cropper, self._crops, self._seed = Cropper(patches), tuple(crops), seed

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
        """Degraded and reference ``(B, C, S, S)`` float32 in native units, C 1 or 3, and whether they count."""
        side, count = self._crops[int(np.random.default_rng([self._seed, step]).integers(len(self._crops)))]
        is_own = rank < count  # a process without a crop of its own cuts one that does not count
        own = range(rank, count, world) if is_own else range(1)
        found = self._cropper.batch(side, count, (self._seed, step), own)
        degraded, reference = (
            np.stack([_channels_first(crop.layers[name]) for crop in found]) for name in ("degraded", "reference")
        )
        return degraded, reference, is_own


def body_of(values: NDArray[np.float32], modality: str | None) -> NDArray[np.bool_]:
    """Where something was measured: the patient in CT, what is brighter than the noise of air elsewhere.

    Args:
        values: ``(Y, X)`` in native units, or ``(Y, X, 3)``, 0..255: tissue is what is not white.
        modality: DICOM code.

    Returns:
        ``(Y, X)`` bool.
    """
    if values.ndim == 3:
        if modality == "SM":
            return np.asarray(ndimage.gaussian_filter(values.min(axis=-1), 2.0) < 225)
        return np.asarray(ndimage.gaussian_filter(values.max(axis=-1), 2.0) > 25)
    if modality == "CT":
        return body_mask(values)
    low, high = np.percentile(values, (0.5, 99.5))
    if high <= low:
        return np.zeros(values.shape, bool)
    share = 0.02 if modality == "PT" else 0.1
    return np.asarray(ndimage.gaussian_filter(values, 1.0) > low + share * (high - low))


def _channels_first(crop: NDArray) -> NDArray[np.float32]:
    crop = np.asarray(crop, np.float32)
    return np.ascontiguousarray(crop[None] if crop.ndim == 2 else np.moveaxis(crop, -1, 0))


def _turned(crop: NDArray, is_mirrored: bool, turns: int) -> NDArray:
    if is_mirrored:
        crop = np.swapaxes(crop, 0, 1)
    return np.ascontiguousarray(np.rot90(crop, turns))


def _padded(crop: NDArray, side: int) -> NDArray:
    """Fill a crop of a slice smaller than the window."""
    while min(crop.shape[:2]) < side:
        missing = [(0, min(side - size, size - 1)) for size in crop.shape[:2]]
        crop = np.pad(crop, missing + [(0, 0)] * (crop.ndim - 2), mode="reflect")
    return crop


def _fitting(layer: NDArray, entry: StoredSlice | None) -> NDArray:
    """The layer, when its rows and columns are those of the slice; without one it has none to fit.

    Raises:
        TrainingError: They are not.
    """
    if entry is None:
        return layer
    ending = layer.shape[-len(entry.shape) :]
    if ending != entry.shape and entry.shape[:2] not in (layer.shape[-2:], layer.shape[1:3]):
        raise TrainingError("A layer made from a slice has another size than the slice", "Leave this data out")
    return layer


def _stored(path: Path, make: Callable[[], NDArray]) -> Path:
    """The file, written beside and renamed when it is not there yet.

    Raises:
        TrainingError: The disk is full or cannot be written.
    """
    if path.exists():
        try:
            np.load(path, mmap_mode="r", allow_pickle=False)
            return path
        except (OSError, ValueError):  # cut short by a full disk
            _log.warning("a file of the cache is damaged and is made again")
    partial = path.with_suffix(f".{os.getpid()}.part")
    array = np.asarray(make())
    try:
        with partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise _full(error) from error
    return path


def _full(error: OSError) -> TrainingError:
    return TrainingError(
        f"The cache of patches cannot be written: {error.strerror}",
        "Free some disk space, or choose another run folder",
    )
