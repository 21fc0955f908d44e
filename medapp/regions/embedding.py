"""Image embeddings kept on disk, named by the pixels, the window and the weights they came from."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.scan.scan import Window

log = logging.getLogger(__name__)

_MOST_BYTES = 1 << 30


def embedding_key(values: NDArray, window: Window | None, model_sha256: str) -> str:
    """SHA-256 over everything that an embedding depends on, as hex."""
    digest = hashlib.sha256()
    shown = (window.center, window.width) if window is not None and values.ndim == 2 else None
    digest.update(repr((model_sha256, values.shape, str(values.dtype), shown)).encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


class EmbeddingCache:
    """A folder of embeddings; the least used ones go when it grows too large.

    Args:
        folder: Made when first needed; None = remember only the last one, in memory.
        most_bytes: Size limit of the folder.
    """

    def __init__(self, folder: Path | None, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._last: tuple[str, NDArray[np.float32]] | None = None

    def get(self, key: str) -> NDArray[np.float32] | None:
        """The ``(C, s, s)`` float32 embedding, or None when it has to be made."""
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        if self._folder is None:
            return None
        path = self._folder / f"{key}.npy"
        try:
            stored = np.load(path, allow_pickle=False)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:  # cut off when the disk was full: make it again
            log.warning("a stored embedding cannot be read and is made again: %s", type(error).__name__)
            path.unlink(missing_ok=True)
            return None
        embedding = np.asarray(stored, dtype=np.float32)
        if embedding.ndim != 3 or not np.isfinite(embedding).all():
            path.unlink(missing_ok=True)
            return None
        self._last = (key, embedding)
        return embedding

    def put(self, key: str, embedding: NDArray[np.float32]) -> None:
        """Keep an embedding; a full disk is no reason to fail."""
        self._last = (key, embedding)
        if self._folder is None:
            return
        # Half precision: 5e-4 relative, less than bfloat16 computing leaves; beyond its range full precision.
        small = embedding.astype(np.float16) if np.abs(embedding).max() < 6e4 else embedding
        part = self._folder / f".{key}.{os.getpid()}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.save(file, small)
            part.replace(self._folder / f"{key}.npy")
            make_room(self._folder, "*.npy", self._most_bytes)
        except OSError as error:
            log.warning("an embedding was not kept: %s", error.strerror)
            part.unlink(missing_ok=True)


def make_room(folder: Path, pattern: str, most_bytes: int) -> None:
    """Delete the files of a cache that were not used for longest, until it is small enough; the newest one stays."""
    files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > most_bytes and path is not files[0]:
            path.unlink(missing_ok=True)
