"""Opening ZIP archives that others packed: members checked before they are unpacked, under limits."""

from __future__ import annotations

import logging
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medapp.errors import UnreadableFileError
from medapp.progress import Progress
from medapp.scan.lazy import Refused, temporary_folder

logger = logging.getLogger(__name__)

_MAX_MEMBERS = 100_000
_RATIO = 1100  # deflate cannot shrink more than 1032 times; more is an overlapping or forged archive
_CHUNK = 1 << 20
_KEEP_FREE = 256 << 20
_SAFE_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


@dataclass(frozen=True)
class Member:
    """One unpacked member: where it lies now, and what findings call it."""

    path: Path
    shown: str


class Archive:
    """A ZIP archive unpacked member by member into a temporary folder that goes when the archive does.

    Args:
        path: The archive.
        shown: What findings call it.
    """

    def __init__(self, path: Path, shown: str) -> None:
        self._path, self._shown = path, shown
        self._folder = temporary_folder(self, "zip")

    def members(self, progress: Progress) -> Iterator[Member | Refused]:
        """Unpack safe members one by one; say which are not.

        Raises:
            UnreadableFileError: The archive itself is damaged or a bomb.
        """
        name = Path(self._shown).name
        try:
            size = self._path.stat().st_size
            with zipfile.ZipFile(self._path) as archive:
                entries = archive.infolist()
                if len(entries) > _MAX_MEMBERS:
                    raise UnreadableFileError(
                        f"{name} has {len(entries)} members; the limit is {_MAX_MEMBERS}.", "Unpack it yourself."
                    )
                total = sum(entry.file_size for entry in entries)
                free = shutil.disk_usage(self._folder).free - _KEEP_FREE
                if total > _RATIO * max(size, 1) or total > free:
                    raise UnreadableFileError(
                        f"{name} would unpack to {total >> 20} MiB from {size >> 10} KiB; it is not safe to open.",
                        "Ask where it came from, or unpack it yourself.",
                    )
                for number, entry in enumerate(entries):
                    if not entry.is_dir():
                        yield self._unpack(archive, entry, number, progress)
        except (zipfile.BadZipFile, NotImplementedError, OSError, zlib.error, EOFError) as error:
            raise UnreadableFileError(
                f"{name} is damaged: the archive cannot be read.", "Copy the file again from its source."
            ) from error

    def _unpack(
        self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, number: int, progress: Progress
    ) -> Member | Refused:
        shown = f"{self._shown}/{entry.filename}"
        name = PurePosixPath(entry.filename.replace("\\", "/")).name or "member"
        if not _is_inside(entry.filename):
            return Refused(shown, f"{name} points outside the folder.", "Ask where the archive came from.")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            return Refused(
                shown, f"{name} is a link or a device and points outside the folder.", "Pack the files themselves."
            )
        if entry.flag_bits & 1:
            return Refused(shown, f"{name} is encrypted.", "Unpack the archive with its password first.")
        if entry.compress_type not in _SAFE_METHODS:
            return Refused(
                shown, f"{name} is packed by a method that medapp does not read.", "Unpack the archive yourself."
            )
        if entry.file_size > _RATIO * max(entry.compress_size, 60):
            return Refused(
                shown, f"{name} would unpack to {entry.file_size >> 20} MiB; it is not safe.", "Leave it out."
            )
        # numbered folders keep siblings (.hdr, .img) together and never use a name from the archive as a path
        parent = str(PurePosixPath(entry.filename.replace("\\", "/")).parent)
        folder = self._folder / f"{zlib.crc32(parent.encode()):08x}"
        folder.mkdir(exist_ok=True)
        target = folder / (name if _is_plain(name) else f"{number:06d}")
        progress.parsing(shown, 10.0)
        written = 0
        try:
            with archive.open(entry) as source, target.open("wb") as file:
                while part := source.read(_CHUNK):
                    written += len(part)
                    if written > entry.file_size:
                        raise zipfile.BadZipFile("longer than declared")
                    file.write(part)
            if written != entry.file_size:
                raise zipfile.BadZipFile("shorter than declared")
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            target.unlink(missing_ok=True)
            logger.info("a member of an archive was refused: %s", type(error).__name__)
            return Refused(
                shown, f"{name} is damaged: {written} of {entry.file_size} bytes unpack.", "Pack the archive again."
            )
        return Member(target, shown)


def _is_inside(name: str) -> bool:
    """True when a member's name stays below the folder it is unpacked to."""
    path = PurePosixPath(name.replace("\\", "/"))
    return not path.is_absolute() and ".." not in path.parts and not re.match(r"^[A-Za-z]:", name)


def _is_plain(name: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,100}", name)) and not name.endswith((".", " "))
