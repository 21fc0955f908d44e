"""A scan whose headers are read and whose voxels are not, and the other things that reading can find."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UnreadableFileError
from medapp.progress import Progress
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Kind, Scan, SourceInfo, Window

OnSlice = Callable[[int, NDArray], None]
MEMORY_SHARE = 0.6  # of the free memory that one declared volume may take (formats.md 1)


@dataclass(frozen=True, eq=False)
class Filled:
    """What decoding learned besides the voxels.

    Attributes:
        padding: ``(Z, Y, X)`` bool or None, as in ``Scan``.
        alpha: ``(Z, Y, X)`` uint16 or None, as in ``Scan``.
        notes: What had to be repaired, one sentence each.
    """

    padding: NDArray[np.bool_] | None = None
    alpha: NDArray[np.uint16] | None = None
    notes: tuple[str, ...] = ()


class VoxelSource(Protocol):
    """Decodes the voxels of one scan."""

    def fill(self, out: NDArray, order: Sequence[int], on_slice: OnSlice, progress: Progress) -> Filled:
        """Write every slice into ``out``, in the given order where the format allows it.

        Args:
            out: The whole volume, of the shape and dtype that the headers promised.
            order: Every slice index once; the first is on screen.
            on_slice: Told ``(z, slice)`` as soon as a slice is final.
            progress: Told which foreign file is parsed; ``step`` after each slice.
        """
        ...

    def headers(self) -> tuple[bytes, ...]:
        """One dataset per slice, explicit VR little endian, without pixel data; empty where the format has none."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class LazyScan:
    """Everything of a ``Scan`` except its voxels, known after the headers were read.

    Attributes are those of ``Scan``; ``shape`` and ``dtype`` are those that ``stored`` will have.

    Attributes:
        files: What findings call the files that it comes from.
        keeps: What must live until it is decoded (an unpacked archive).
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    voxels: VoxelSource = field(repr=False)
    geometry: Geometry | None = None
    modality: str | None = None
    unit: str = "arbitrary"
    kind: Kind = "scan"
    slope: float = 1.0
    intercept: float = 0.0
    pixel_spacing_mm: tuple[float, float] | None = None
    index_spacing_mm: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    is_inverted: bool = False
    series_key: str = ""
    source: SourceInfo = field(default_factory=SourceInfo)
    files: tuple[str, ...] = field(default=(), repr=False)
    progress: Progress = field(default_factory=Progress, repr=False)
    keeps: tuple[object, ...] = field(default=(), repr=False)

    @property
    def is_colour(self) -> bool:
        """True for RGB images."""
        return len(self.shape) == 4

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """``(z, y, x)`` in millimetres, or None where it is not known in all three directions."""
        return self.geometry.spacing_mm if self.geometry is not None else self.index_spacing_mm

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded voxels."""
        return prod(self.shape) * int(self.dtype.itemsize)

    def decode(
        self,
        on_slice: OnSlice | None = None,
        first: int | None = None,
        out: NDArray | None = None,
        progress: Progress | None = None,
        with_headers: bool = True,
    ) -> Scan:
        """Decode the voxels, slices outward from ``first`` so that the window can show it at once.

        Args:
            on_slice: Told ``(z, slice)`` as soon as a slice is in place.
            first: The slice to begin with; the middle one when None.
            out: A writable array of ``shape`` and ``dtype`` to decode into (a memory-mapped file); a new one when None.
            progress: Where to announce files and count slices; the one given to ``read_path`` when None.
            with_headers: Keep the datasets of the slices in ``source.headers``, which exporting needs.

        Raises:
            UnreadableFileError: The voxels are damaged, unsupported, or too large for this machine.
            ChangedWhileReadingError: The file changed since its header was read.
            Cancelled: The user stopped it.
        """
        if out is None:
            check_memory(self.nbytes, Path(self.source.path).name)
            try:
                out = np.empty(self.shape, dtype=self.dtype)
            except MemoryError as error:
                raise _too_large(self.nbytes, Path(self.source.path).name) from error
        elif out.shape != self.shape or out.dtype != self.dtype:
            raise ValueError(f"out must be {self.shape} {self.dtype}, not {out.shape} {out.dtype}")
        middle = self.shape[0] // 2 if first is None else min(max(first, 0), self.shape[0] - 1)
        filled = self.voxels.fill(out, outward(self.shape[0], middle), on_slice or _ignore, progress or self.progress)
        voxels = out.view()
        voxels.setflags(write=False)
        source = replace(self.source, headers=self.voxels.headers()) if with_headers else self.source
        return Scan(
            stored=voxels,
            geometry=self.geometry,
            modality=self.modality,
            unit=self.unit,
            kind=self.kind,
            slope=self.slope,
            intercept=self.intercept,
            pixel_spacing_mm=self.pixel_spacing_mm,
            index_spacing_mm=self.index_spacing_mm,
            notes=self.notes + tuple(note for note in filled.notes if note not in self.notes),
            windows=self.windows,
            is_inverted=self.is_inverted,
            padding=filled.padding,
            alpha=filled.alpha,
            series_key=self.series_key,
            source=source,
        )


@dataclass(frozen=True, eq=False)
class FoundScan:
    """One scan that can be decoded."""

    scan: LazyScan


@dataclass(frozen=True)
class Refused:
    """A file that cannot be read: one line and what to do."""

    path: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Skipped:
    """A sound file that holds no image, such as a structured report."""

    path: str
    kind: str
    message: str


Finding = FoundScan | Refused | Skipped


def temporary_folder(owner: object, purpose: str) -> Path:
    """A folder that is removed with its owner, or when the process ends; those of killed readers go now."""
    for old in Path(tempfile.gettempdir()).glob("medapp-*-*-*"):
        pid = old.name.split("-")[2]
        if pid.isdigit() and not _is_running(int(pid)) and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"medapp-{purpose}-{os.getpid()}-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's, or a system that cannot say
        return True
    return True


def outward(count: int, first: int) -> list[int]:
    """Every index below ``count`` once, beginning at ``first`` and moving away from it on both sides."""
    return sorted(range(count), key=lambda z: (abs(z - first), z))


def free_memory() -> int:
    """Bytes of memory that can still be had; a generous guess where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 4 << 30


def check_memory(declared: int, name: str) -> None:
    """Refuse before allocating what would not fit.

    Raises:
        UnreadableFileError: ``declared`` bytes exceed 60 % of the free memory.
    """
    if declared > MEMORY_SHARE * free_memory():
        raise _too_large(declared, name)


def _too_large(declared: int, name: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{name} declares {declared / 2**20:,.0f} MiB of voxels, more than this machine can hold.",
        "Close other programs, or open it on a computer with more memory.",
    )


def _ignore(z: int, values: NDArray) -> None:
    """Nobody wants to know."""
