"""Decoding the slices of one DICOM volume into place, and keeping their headers for export."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import dcmread, read_dataset
from pydicom.filewriter import write_dataset

from medapp.errors import UnreadableFileError
from medapp.progress import Progress
from medapp.scan.dicom_file import COMPRESSED, DicomFile
from medapp.scan.frames import Frame
from medapp.scan.lazy import Filled, OnSlice
from medapp.scan.pixels import FrameReader, quiet

logger = logging.getLogger(__name__)


class DicomVoxels:
    """The frames of one volume, in slice order.

    Args:
        frames: One per slice.
        to_values: True when slices are rescaled one by one to float32; False when the stored integers are kept.
        factor: Applied after the rescale of each slice (SUV).

    Attributes:
        failed: The file on which the last decoding failed; the rest of the series can be read without it.
    """

    def __init__(self, frames: Sequence[Frame], to_values: bool, factor: float = 1.0) -> None:
        self._rescales = [frame.rescale.times(factor) for frame in frames]
        self.failed: DicomFile | None = None
        self._frames = list(frames)
        self._to_values = to_values

    def fill(self, out: NDArray, order: Sequence[int], on_slice: OnSlice, progress: Progress) -> Filled:
        """Decode every slice into ``out``; see ``VoxelSource.fill``."""
        padding: NDArray[np.bool_] | None = None
        notes: list[str] = []
        reader: FrameReader | None = None
        reading: DicomFile | None = None
        self.failed = None
        buffer: NDArray | None = None
        try:
            for z in order:
                frame = self._frames[z]
                file = frame.file
                if reader is None or reading is not file:
                    if reader is not None:
                        reader.close()
                    reader, reading = FrameReader(file), file
                if file.transfer_syntax in COMPRESSED:
                    progress.parsing(file.shown, time_limit(file), 8 * file.rows * file.columns)
                if reader.is_direct and not self._to_values:
                    reader.read_plain(frame.index, out[z])
                    stored = out[z]
                elif reader.is_direct:
                    dtype = f"{'i' if file.is_signed else 'u'}{file.bits_allocated // 8}"
                    if buffer is None or buffer.shape != (file.rows, file.columns) or buffer.dtype != dtype:
                        buffer = np.empty((file.rows, file.columns), dtype=dtype)
                    reader.read_plain(frame.index, buffer)
                    stored = buffer
                else:
                    stored = reader.frame(frame.index)
                if frame.rescale.slope == 0 and frame.rescale.table is None and stored.min() != stored.max():
                    raise UnreadableFileError(
                        f"{file.name}: its rescale slope is 0, but the slice is not blank.",
                        "Export the image again from its source.",
                    )
                is_padding = padding_of(file, stored)
                if is_padding is not None:
                    padding = np.zeros(out.shape[:3], dtype=bool) if padding is None else padding
                    padding[z] = is_padding
                if self._to_values:
                    out[z] = self._rescales[z].apply(stored)
                elif stored is not out[z] and not reader.is_direct:
                    out[z] = stored
                notes.extend(note for note in reader.notes if note not in notes)
                on_slice(z, out[z])
                progress.step()
        except UnreadableFileError:
            self.failed = reading
            raise
        finally:
            if reader is not None:
                reader.close()
            progress.parsing("")
        if out.dtype.kind == "f":
            padding, found = clear_not_finite(out, padding)
            notes.extend(found)
        return Filled(padding, None, tuple(notes))

    def headers(self) -> tuple[bytes, ...]:
        """One dataset per slice, explicit VR little endian; frames of one file share the same bytes object."""
        done: dict[int, bytes] = {}
        for frame in self._frames:
            if id(frame.file) not in done:
                done[id(frame.file)] = header_bytes(frame.file)
        return tuple(done[id(frame.file)] for frame in self._frames)


def time_limit(file: DicomFile) -> float:
    """Seconds that decoding one frame may take (formats.md 1)."""
    return min(10.0, 5.0 + file.rows * file.columns / 10e6)


def padding_of(file: DicomFile, stored: NDArray) -> NDArray[np.bool_] | None:
    """Where a slice is padding, or None when nowhere.

    Reference:
        DICOM PS3.3 C.7.5.1.1.2.
    """
    if file.is_colour or stored.dtype.kind not in "iu":
        return None
    first = file.header.integer("PixelPaddingValue", is_needed=False)
    if first is None:
        return None
    last = file.header.integer("PixelPaddingRangeLimit", is_needed=False)
    ends = [_signed(value, file) for value in (first, first if last is None else last)]
    low, high = min(ends), max(ends)
    found = (stored == low) if low == high else (stored >= low) & (stored <= high)
    return found if found.any() else None


def _signed(value: int, file: DicomFile) -> int:
    """A padding value read with the sign of the pixels, whatever VR it was written with."""
    bits = file.bits_allocated
    if file.is_signed and value >= 1 << (bits - 1):
        return value - (1 << bits)
    if not file.is_signed and value < 0:
        return value + (1 << bits)
    return value


def clear_not_finite(
    values: NDArray, padding: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Set NaN and infinite voxels to the finite minimum, in place, and mark them.

    Raises:
        UnreadableFileError: No voxel is finite.
    """
    count, low = 0, np.inf
    for part in values:
        finite = np.isfinite(part)
        count += int(part.size - np.count_nonzero(finite))
        if finite.any():
            low = min(low, float(part[finite].min()))
    if not count:
        return padding, ()
    if not np.isfinite(low):
        raise UnreadableFileError("None of its values is a finite number.", "Export the image again from its source.")
    padding = np.zeros(values.shape[:3], dtype=bool) if padding is None else padding
    for z, part in enumerate(values):
        bad = ~np.isfinite(part)
        padding[z] |= bad if bad.ndim == 2 else bad.any(axis=-1)
        part[bad] = low
    which = (
        "1 voxel is not a finite number; it was" if count == 1 else f"{count} voxels are not finite numbers; they were"
    )
    return padding, (f"{which} set to the smallest value and masked.",)


def header_bytes(file: DicomFile) -> bytes:
    """The dataset of a file without its pixels, as explicit VR little endian.

    Bytes that are written that way already are copied; elements that cannot be written again are left out.
    """
    start, end = file.span
    if file.is_explicit and file.transfer_syntax != "1.2.840.10008.1.2.2" and (start or file.content is not None):
        with file.open() as source:
            source.seek(start)
            return source.read(end - start)
    with quiet():
        try:
            if file.content is not None:
                dataset: Dataset = read_dataset(BytesIO(file.content[:end]), False, True)
            else:
                with file.open() as source:
                    dataset = dcmread(source, stop_before_pixels=True, force=True)
        except Exception as error:  # the whole header cannot be parsed: keep what was needed to read the image
            logger.info("only part of a header is kept for export: %s", type(error).__name__)
            dataset = file.header.dataset
        return _write(dataset)


def _write(dataset: Dataset) -> bytes:
    whole = Dataset()
    whole.update({tag: dataset.get_item(tag) for tag in dataset.keys() if tag.group > 2})  # noqa: SIM118
    try:
        return _encode(whole)
    except Exception:  # one element that cannot be written again: find it and leave it out
        parts = []
        for tag in sorted(whole.keys()):
            single = Dataset()
            single.set_original_encoding(True, True, dataset.original_character_set)
            try:
                single[tag] = dataset[tag]
                parts.append(_encode(single))
            except Exception as error:
                logger.info("an element of a header cannot be kept for export: %s", type(error).__name__)
        return b"".join(parts)


def _encode(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())
