"""Reading NIfTI-1 and NIfTI-2: one scan per volume, compressed data checked to its end."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UnreadableFileError
from medapp.progress import Progress
from medapp.scan.dicom_file import open_unchanged
from medapp.scan.dicom_voxels import clear_not_finite
from medapp.scan.lazy import Filled, LazyScan, OnSlice, temporary_folder
from medapp.scan.nifti_header import NiftiFile, open_nifti
from medapp.scan.scan import SourceInfo

logger = logging.getLogger(__name__)

_COPY = "Copy the file again from its source."
_CHUNK = 1 << 20


def nifti_scans(path: Path, progress: Progress, modality: str | None = None, shown: str = "") -> Iterator[LazyScan]:
    """One scan per volume of the file.

    Raises:
        UnreadableFileError: The header is damaged, unsupported or unsafe.
    """
    file = open_nifti(path, shown)
    inflated = _Inflated(file) if file.is_gzip and file.volumes > 1 else None
    key = _content_key(file)
    x, y, z = file.shape_xyz
    is_colour = file.channels > 1
    for volume in range(file.volumes):
        yield LazyScan(
            shape=(z, y, x, 3) if is_colour else (z, y, x),
            dtype=file.kept_dtype,
            voxels=NiftiVoxels(file, volume, inflated),
            geometry=file.geometry,
            modality=modality,
            unit="HU" if modality == "CT" and not is_colour else "arbitrary",
            kind="scan",
            slope=file.slope,
            intercept=file.intercept,
            pixel_spacing_mm=file.spacing_zyx[1:] if file.spacing_zyx is not None else None,
            index_spacing_mm=file.spacing_zyx,
            notes=file.notes,
            series_key=f"{key[:14]}{volume:02x}" if file.volumes > 1 else key[:16],
            source=SourceInfo(path=file.shown, format="nifti", description=_title(file, volume)),
            files=(file.shown,),
            progress=progress,
        )


def _title(file: NiftiFile, volume: int) -> str:
    name = file.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".hdr")[:64]
    return f"{name} [{volume + 1}]" if file.volumes > 1 else name


def _content_key(file: NiftiFile) -> str:
    """A key of size, beginning and end: stable when the file moves, quick for large ones."""
    digest = hashlib.sha256(str(file.stamp[0]).encode())
    for path in {file.path, file.data_path}:
        with path.open("rb") as source:
            digest.update(source.read(65536))
            source.seek(max(0, path.stat().st_size - 65536))
            digest.update(source.read(65536))
    return digest.hexdigest()


class NiftiVoxels:
    """The voxels of one volume of a NIfTI file."""

    def __init__(self, file: NiftiFile, volume: int, inflated: _Inflated | None) -> None:
        self._file = file
        self._volume = volume
        self._inflated = inflated

    def headers(self) -> tuple[bytes, ...]:
        """NIfTI has no dataset per slice."""
        return ()

    def fill(self, out: NDArray, order: Sequence[int], on_slice: OnSlice, progress: Progress) -> Filled:
        """Decode into ``out``; compressed files are decoded whole before the first slice is told."""
        file = self._file
        notes: list[str] = []
        alpha = np.zeros(out.shape[:3], dtype=np.uint16) if file.channels == 4 else None
        x, y, z = file.shape_xyz
        slice_bytes = x * y * file.channels * file.item.itemsize
        is_float = file.item.kind == "f"
        progress.parsing(file.shown, max(10.0, 5.0 + x * y * z * file.volumes / 10e6), out.nbytes)
        try:
            if file.is_gzip and self._inflated is None:
                stream = _GzipStream(file)
                with stream:
                    stream.skip(file.offset)
                    for index in range(z):
                        self._put(out, index, stream.read_exactly(slice_bytes), alpha)
                        progress.check()
                    notes.extend(stream.drain())
            else:
                source = self._inflated.open(notes) if self._inflated is not None else None
                start = (0 if source is not None else file.offset) + self._volume * file.volume_bytes
                if source is None:
                    source = open_unchanged(file.data_path, file.stamp, file.name)
                with source:
                    for index in order:
                        source.seek(start + index * slice_bytes)
                        self._put(out, index, source.read(slice_bytes), alpha)
                        if not is_float:
                            on_slice(index, out[index])
                            progress.step()
        finally:
            progress.parsing("")
        padding = None
        if is_float:
            try:
                padding, found = clear_not_finite(out, None)
            except UnreadableFileError as error:
                raise UnreadableFileError(f"{file.name}: {error.message}", error.hint) from error
            notes.extend(found)
        if is_float or (file.is_gzip and self._inflated is None):
            for index in order:
                on_slice(index, out[index])
                progress.step()
        return Filled(padding, alpha, tuple(notes))

    def _put(self, out: NDArray, index: int, content: bytes, alpha: NDArray[np.uint16] | None) -> None:
        file = self._file
        x, y, _ = file.shape_xyz
        if len(content) != x * y * file.channels * file.item.itemsize:
            raise UnreadableFileError(f"{file.name} is truncated within slice {index + 1}.", _COPY)
        values = np.frombuffer(content, dtype=file.item)
        if file.channels > 1:
            values = values.reshape(y, x, file.channels)
            out[index] = values[..., :3]
            if alpha is not None:
                alpha[index] = values[..., 3].astype(np.uint16) * 257
            return
        values = values.reshape(y, x)
        if file.item.kind in "iu" and file.item.itemsize == 8:
            limits = np.iinfo(out.dtype)
            if values.size and (int(values.min()) < limits.min or int(values.max()) > limits.max):
                raise UnreadableFileError(f"{file.name} holds 64-bit numbers beyond 32 bits.", "Convert it to float32.")
        with np.errstate(over="ignore", invalid="ignore"):
            out[index] = values


class _GzipStream:
    """Reads gzip members through to the end, so that CRC and length are checked."""

    def __init__(self, file: NiftiFile) -> None:
        self._file = file
        self._source: BinaryIO = open_unchanged(file.data_path, file.stamp, file.name)
        self._stream: io.BufferedIOBase = gzip.GzipFile(fileobj=self._source, mode="rb")
        self.done = 0

    def __enter__(self) -> _GzipStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._source.close()

    def skip(self, count: int) -> None:
        """Read over the header."""
        while count:
            part = self._read(min(count, _CHUNK))
            count -= len(part)

    def read_exactly(self, count: int) -> bytes:
        """So many bytes, or a refusal."""
        parts = []
        while count:
            part = self._read(min(count, _CHUNK))
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drain(self) -> list[str]:
        """Read to the end of the stream; a note when something follows the complete member."""
        beyond = 0
        while True:
            try:
                part = self._stream.read(_CHUNK)
            except (gzip.BadGzipFile, zlib.error, EOFError) as error:
                if "Not a gzipped file" in str(error):  # the CRC of the member itself was right
                    return ["Bytes after the end of the compressed data were ignored."]
                raise self._damaged() from error
            if not part:
                return [f"{beyond} bytes after the voxels were ignored."] if beyond else []
            beyond += len(part)
            if beyond > _CHUNK:
                raise UnreadableFileError(
                    f"{self._file.name} inflates beyond what its header declares.", "Ask where it came from."
                )

    def _read(self, count: int) -> bytes:
        try:
            part = self._stream.read(count)
        except (gzip.BadGzipFile, zlib.error, EOFError, OSError) as error:
            raise self._damaged() from error
        if not part:
            file = self._file
            raise UnreadableFileError(
                f"{file.name} is truncated: {self.done} of {file.offset + file.volume_bytes * file.volumes} bytes are "
                "present.",
                _COPY,
            )
        self.done += len(part)
        return part

    def _damaged(self) -> UnreadableFileError:
        file = self._file
        return UnreadableFileError(
            f"{file.name} is damaged: its gzip data ends early or fails its check after {self.done} of "
            f"{file.offset + file.volume_bytes * file.volumes} bytes.",
            _COPY,
        )


class _Inflated:
    """A 4-D gzip file inflated once into a temporary file that all its volumes read."""

    def __init__(self, file: NiftiFile) -> None:
        self._file = file
        self._path: Path | None = None
        self._notes: list[str] = []

    def open(self, notes: list[str]) -> BinaryIO:
        """The voxels of all volumes, without the header."""
        if self._path is None:
            path = temporary_folder(self, "nifti") / "voxels"
            with _GzipStream(self._file) as stream, path.open("wb") as target:
                stream.skip(self._file.offset)
                left = self._file.volume_bytes * self._file.volumes
                while left:
                    part = stream.read_exactly(min(left, _CHUNK))
                    target.write(part)
                    left -= len(part)
                self._notes = stream.drain()
            self._path = path
        notes.extend(self._notes)
        return self._path.open("rb")
