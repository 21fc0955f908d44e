"""From paths to scans: what a file is by its content; folders and archives; one bad file never stops the others."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydicom._uid_dict import UID_dictionary

from medapp.errors import Cancelled, HoldsNoImageError, MedappError, UnreadableFileError
from medapp.progress import Progress
from medapp.scan.archive import Archive, Member
from medapp.scan.dicom import open_dicom
from medapp.scan.dicom_file import DicomFile
from medapp.scan.dicom_scan import scans_of
from medapp.scan.lazy import Finding, FoundScan, LazyScan, Refused, Skipped
from medapp.scan.nifti import nifti_scans
from medapp.scan.nifti_header import gzip_start, is_pair_data, sniff_nifti
from medapp.scan.raster import raster_scan, sniff_raster
from medapp.scan.scan import Scan

logger = logging.getLogger(__name__)

FileKind = Literal["dicom", "nifti", "png", "jpeg", "tiff", "bmp", "zip", "gzip", "unknown"]
_UID = re.compile(rb"1\.2\.840\.10008\.[0-9.]+")
_NOT_KNOWN = "Choose DICOM, NIfTI, PNG, JPEG, TIFF or BMP files."
_LIMIT_S = 10.0
__all__ = [
    "Finding",
    "FoundScan",
    "LazyScan",
    "Refused",
    "Skipped",
    "read_all",
    "read_path",
    "read_paths",
    "read_scan",
    "sniff",
]


def sniff(path: Path | str) -> FileKind:
    """What a file is, by its first bytes, never by its name.

    Raises:
        UnreadableFileError: It cannot be opened.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise UnreadableFileError(
            f"{path.name} cannot be opened: {error.strerror or 'I/O error'}.", "Check that you may open it."
        ) from error
    if start[128:132] == b"DICM":
        return "dicom"
    if sniff_nifti(start):
        return "nifti"
    raster = sniff_raster(start)
    if raster is not None:
        return raster  # type: ignore[return-value]
    if start[:2] == b"\x1f\x8b":
        return "nifti" if sniff_nifti(gzip_start(path)) else "gzip"
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    return "dicom" if _is_headerless(start) else "unknown"


def _is_headerless(start: bytes) -> bool:
    """DICOM without preamble: group 0002 or 0008 first, and a known SOP class follows."""
    if start[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    return any(uid.rstrip(b".").decode() in UID_dictionary and b"5.1.4" in uid for uid in _UID.findall(start))


def read_path(
    path: Path | str, progress: Progress, refused: Mapping[str, str] | None = None, modality: str | None = None
) -> Iterator[Finding]:
    """Everything that can be read at one path: a file, a folder or a ZIP archive; see ``read_paths``."""
    yield from read_paths([path], progress, refused, modality)


def read_paths(
    paths: Sequence[Path | str],
    progress: Progress,
    refused: Mapping[str, str] | None = None,
    modality: str | None = None,
) -> Iterator[Finding]:
    """Everything that can be read at several paths, which are one import: their DICOM files are grouped together.

    Args:
        paths: Files, folders and archives that the user chose.
        progress: Told each foreign file before it is parsed.
        refused: Files on which a former reader hung or died, with what to say of them; never opened again.
        modality: For files that do not say theirs.

    Yields:
        ``FoundScan``, ``Refused`` and ``Skipped`` as they are found; DICOM series when all headers are read.

    Raises:
        Cancelled: The user stopped it.
    """
    walk = _Walk(progress, dict(refused or {}), modality)
    for path in paths:
        yield from walk.visit(Path(path))
    progress.parsing("")
    for finding in scans_of(walk.dicom, progress, modality):
        yield _owned(finding, walk.archives)
        progress.check()


def read_all(path: Path | str, modality: str | None = None) -> list[Scan]:
    """Every scan at a path, decoded.

    Raises:
        MedappError: A scan cannot be decoded, or there is none.
    """
    findings = list(read_path(path, Progress(), modality=modality))
    scans = [finding.scan.decode() for finding in findings if isinstance(finding, FoundScan)]
    if not scans:
        _raise_first(findings, Path(path).name)
    return scans


def read_scan(path: Path | str, modality: str | None = None) -> Scan:
    """The one scan at a path.

    Raises:
        MedappError: There is none, or more than one; the message says how many.
    """
    findings = list(read_path(path, Progress(), modality=modality))
    scans = [finding.scan for finding in findings if isinstance(finding, FoundScan)]
    if not scans:
        _raise_first(findings, Path(path).name)
    if len(scans) > 1:
        raise MedappError(f"{Path(path).name} holds {len(scans)} scans, not one.", "Choose one of them.")
    return scans[0].decode()


def _raise_first(findings: Sequence[Finding], name: str) -> None:
    for finding in findings:
        if isinstance(finding, Refused):
            raise UnreadableFileError(finding.message, finding.hint)
    for finding in findings:
        if isinstance(finding, Skipped):
            raise HoldsNoImageError(finding.message, "Choose the images of the study instead.")
    raise UnreadableFileError(f"{name} holds no image.", _NOT_KNOWN)


def _owned(finding: Finding, archives: list[Archive]) -> Finding:
    """Keep unpacked archives alive as long as a scan may still be decoded from them."""
    if isinstance(finding, FoundScan) and archives:
        return FoundScan(replace(finding.scan, keeps=tuple(archives)))
    return finding


class _Walk:
    """One pass over what the user chose.

    Attributes:
        dicom: DICOM images met so far; they are grouped at the end.
        archives: Unpacked archives.
    """

    def __init__(self, progress: Progress, refused: dict[str, str], modality: str | None) -> None:
        self._progress = progress
        self._refused = refused
        self._modality = modality
        self._seen: set[tuple[int, int]] = set()
        self.dicom: list[DicomFile] = []
        self.archives: list[Archive] = []

    def visit(self, path: Path) -> Iterator[Finding]:
        """A path that the user named."""
        try:
            mode = path.stat().st_mode
        except OSError as error:
            yield Refused(
                str(path), f"{path.name} cannot be opened: {error.strerror or 'I/O error'}.", "Check the path."
            )
            return
        if stat.S_ISDIR(mode):
            yield from self._folder(path)
        elif not stat.S_ISREG(mode):
            yield Refused(str(path), f"{path.name} is not a regular file.", "Choose files or folders of images.")
        else:
            yield from self._file(path, str(path))

    def _folder(self, root: Path) -> Iterator[Finding]:
        below = root.resolve()
        closed: list[OSError] = []
        for folder, subfolders, names in os.walk(root, followlinks=False, onerror=closed.append):
            subfolders.sort()
            for name in list(subfolders):
                link = Path(folder, name)
                if link.is_symlink():
                    subfolders.remove(name)
                    if not _is_below(link, below):
                        yield Refused(str(link), f"{name} points outside the folder.", "Choose that folder itself.")
            for name in sorted(names):
                path = Path(folder, name)
                try:
                    mode = path.lstat().st_mode
                    if stat.S_ISLNK(mode):
                        if not _is_below(path, below):
                            yield Refused(str(path), f"{name} points outside the folder.", "Choose that file itself.")
                            continue
                        mode = path.stat().st_mode
                except OSError as error:
                    yield Refused(str(path), f"{name} cannot be opened: {error.strerror or 'I/O error'}.", "")
                    continue
                if not stat.S_ISREG(mode):
                    yield Refused(str(path), f"{name} is not a regular file; it was not opened.", "Choose image files.")
                    continue
                yield from self._file(path, str(path))
        for error in closed:
            name = Path(error.filename or root).name
            yield Refused(
                str(error.filename or root), f"{name} cannot be opened: {error.strerror}.", "Check that you may."
            )

    def _file(self, path: Path, shown: str, is_packed: bool = False) -> Iterator[Finding]:
        if shown in self._refused:
            yield Refused(shown, self._refused[shown], "Export the image again from its source.")
            return
        status = path.stat()
        place = (status.st_dev, status.st_ino)
        if place in self._seen:  # named twice, or named together with its folder
            return
        self._seen.add(place)
        self._progress.check()
        self._progress.parsing(shown, _LIMIT_S)
        try:
            kind = sniff(path)
            if kind == "dicom":
                self.dicom.append(open_dicom(path, shown))
            elif kind == "nifti":
                for scan in nifti_scans(path, self._progress, self._modality, shown):
                    yield _owned(FoundScan(scan), self.archives if is_packed else [])
            elif kind == "zip" and not is_packed:
                yield from self._archive(path, shown)
            elif kind in ("png", "jpeg", "tiff", "bmp"):
                scan = raster_scan(path, self._progress, self._modality, shown)
                yield _owned(FoundScan(scan), self.archives if is_packed else [])
            elif kind == "unknown" and is_pair_data(path):
                return
            else:
                yield self._not_an_image(path, shown, kind)
        except HoldsNoImageError as error:
            yield Skipped(shown, _kind_of(error.message), error.message)
        except UnreadableFileError as error:
            yield Refused(shown, error.message, error.hint)
        except (Cancelled, MedappError):
            raise
        except MemoryError:
            name = Path(shown).name
            yield Refused(shown, f"{name} takes more memory than its size allows.", "Ask where it came from.")
        except OSError as error:
            name = Path(shown).name
            yield Refused(shown, f"{name} changed or vanished while reading.", "Try again.")
            logger.info("reading failed: %s", error.strerror)
        except Exception as error:  # libraries raise whatever foreign bytes provoke; one file never stops the others
            logger.warning("a file was refused after %s", type(error).__name__)
            name = Path(shown).name
            yield Refused(shown, f"{name} is damaged: it cannot be read.", "Copy the file again from its source.")

    def _archive(self, path: Path, shown: str) -> Iterator[Finding]:
        archive = Archive(path, shown)
        self.archives.append(archive)
        for member in archive.members(self._progress):
            if isinstance(member, Member):
                yield from self._file(member.path, member.shown, is_packed=True)
            else:
                yield member

    @staticmethod
    def _not_an_image(path: Path, shown: str, kind: str) -> Refused:
        name = Path(shown).name
        size = path.stat().st_size
        if size == 0:
            return Refused(shown, f"{name} is empty; it is not an image medapp knows.", _NOT_KNOWN)
        if kind == "gzip":
            return Refused(shown, f"{name} is a gzip file of something else than NIfTI.", "Unpack it first.")
        if kind == "zip":
            return Refused(shown, f"{name} is an archive inside an archive.", "Unpack it first.")
        return Refused(shown, f"{name} is not an image medapp knows.", _NOT_KNOWN)


def _is_below(link: Path, root: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # a loop, or nothing there
        return False


def _kind_of(message: str) -> str:
    """The kind of object in a "holds no image" message."""
    found = re.search(r"it is a (.+?)\.$", message) or re.search(r" holds (.+?): import as masks", message)
    return found.group(1) if found else "no image"
