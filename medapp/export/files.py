"""Writing a file so that it is whole or absent, and naming it so that every system takes the name."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from medapp.errors import ExportError

_CHUNK = 1 << 20
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)$", re.IGNORECASE)


def write_bytes(path: Path, data: bytes) -> tuple[int, str]:
    """Write a file whole or not at all: temporary name beside, fsync, read back, rename, fsync the folder.

    Returns:
        Size and SHA-256 of the bytes.

    Raises:
        ExportError: The disk is full or read-only, or what was read back differs.
    """

    def fill(stream: BinaryIO) -> None:
        stream.write(data)

    return write_stream(path, fill)


def write_stream(path: Path, fill: Callable[[BinaryIO], None]) -> tuple[int, str]:
    """As ``write_bytes``, for contents that are made on the way.

    Args:
        path: The final name.
        fill: Writes everything to the stream it is given, front to back.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as raw:
            tee = _HashingStream(raw)
            fill(tee)  # type: ignore[arg-type]
            raw.flush()
            os.fsync(raw.fileno())
        wanted = (tee.size, tee.digest.hexdigest())
        if hash_file(beside) != wanted:
            raise ExportError(
                f"{path.name} read back differently from what was written; nothing was exported.",
                "Check the disk, then export again to another one.",
            )
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        reason = error.strerror or type(error).__name__
        raise ExportError(
            f"{path.name} could not be written ({reason}); nothing was exported.",
            "Free space or choose another folder.",
        ) from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return wanted


def hash_file(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable, where the system can."""
    if os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clean_name(text: str, fallback: str = "item") -> str:
    """A file name that every file system takes: letters, digits, ``-`` and ``_``; at most 60 bytes.

    Accents are dropped; other scripts stay, as UTF-8. Names that Windows keeps for itself get a ``_``.
    """
    flat = unicodedata.normalize("NFKD", text)
    flat = "".join(c for c in flat if not unicodedata.combining(c))
    flat = re.sub(r"[^\w\-]+", "_", flat).strip("_-")
    while len(flat.encode("utf-8")) > 60:
        flat = flat[:-1]
    flat = flat.strip("_-") or fallback
    return f"{flat}_" if _RESERVED.match(flat) else flat


class _HashingStream:
    """Counts and hashes what passes through, so that the file is read only once more."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._raw.write(data)
        self.digest.update(data)
        self.size += memoryview(data).nbytes
        return memoryview(data).nbytes

    def flush(self) -> None:
        self._raw.flush()
