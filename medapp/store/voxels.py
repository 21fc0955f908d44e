"""Voxel files: immutable, named by their hash, memory-mapped; written beside and renamed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import ProjectDamagedError
from medapp.store.database import explained, sync_folder

log = logging.getLogger(__name__)

_PARTIAL = "partial-"
_CHUNK = 8 * 2**20


class VoxelWriter:
    """A voxel file under way: fill ``array`` slice by slice, then ``commit``; others may look while it grows.

    The space is reserved first, so that a full disk is an error here and not a crash in the middle of a write.

    Attributes:
        path: The partial file; maps as raw ``dtype`` of ``shape`` in C order.
        array: ``shape`` of ``dtype``, writable, memory-mapped, zero at first.

    Raises:
        SaveFailedError: The disk is full or the folder cannot be written.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        self.path = folder / f"{_PARTIAL}{uuid.uuid4().hex}"
        size = self.dtype.itemsize
        for n in self.shape:
            size *= n
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w+b")
            try:
                _hold(self._file)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(self._file.fileno(), 0, size)
                else:
                    self._file.truncate(size)
                self.array: NDArray = np.memmap(self._file, dtype=self.dtype, mode="r+", shape=self.shape)
            except BaseException:
                self._file.close()
                self.path.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise explained(error) from error
        self._folder = folder
        self.sha256 = ""

    def commit(self) -> str:
        """Make the file permanent and give its SHA-256; a file with the same content is not kept twice.

        Raises:
            SaveFailedError: It cannot be written.
        """
        try:
            if isinstance(self.array, np.memmap):
                self.array.flush()
            os.fsync(self._file.fileno())
            sha256 = file_sha256(self.path)
            target = self._folder / sha256
            self._file.close()
            if target.exists() and target.stat().st_size == self.path.stat().st_size:
                self.path.unlink()
            else:
                self.path.chmod(0o444)
                self.path.replace(target)
                sync_folder(self._folder)
        except OSError as error:
            self.discard()
            raise explained(error) from error
        self.sha256 = sha256
        return sha256

    def discard(self) -> None:
        """Drop the file."""
        if not self._file.closed:
            self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def open_voxels(folder: Path, sha256: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
    """Map a voxel file read-only.

    Raises:
        ProjectDamagedError: It is missing or has another size.
    """
    path = folder / sha256
    expected = np.dtype(dtype).itemsize
    for n in shape:
        expected *= n
    try:
        found = path.stat().st_size
        if found != expected:
            raise ProjectDamagedError(
                f"A voxel file of the project holds {found} bytes; {expected} were expected.",
                "Import the series again; its mattes are safe.",
            )
        return np.memmap(path, dtype=np.dtype(dtype), mode="r", shape=shape)
    except OSError as error:
        raise ProjectDamagedError(
            "A voxel file of the project is missing or cannot be read.", "Import the series again; its mattes are safe."
        ) from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sweep(folder: Path) -> int:
    """Remove partial files that nobody is writing any more; returns how many."""
    removed = 0
    for path in folder.glob(f"{_PARTIAL}*"):
        try:
            with path.open("r+b") as file:
                if not _hold(file) and time.time() - path.stat().st_mtime < 86400:
                    continue
            path.unlink()
            removed += 1
        except OSError:
            log.info("a partial voxel file is still in use")
    return removed


def _hold(file: Any) -> bool:
    """Mark a file as being written until it is closed; False when someone else does, or the system cannot tell."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
