"""Decoding the frames of one DICOM file to stored values, before any rescale."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut

from medapp.errors import Cancelled, ChangedWhileReadingError, MedappError, UnreadableFileError
from medapp.scan.codestream import Codestream, frame_fragments, look
from medapp.scan.dicom_file import COMPRESSED, GREY, J2K, PALETTE, RLE, DicomFile
from medapp.scan.jpeg_extended import decode_12_bit
from medapp.scan.jpeg_lossless import HALVING, roughness, with_signed_predictor

logger = logging.getLogger(__name__)

_PLUGINS = ("pylibjpeg", "pyjpegls", "pillow", "pydicom", "gdcm")  # gdcm last: it can abort on damaged frames
_COPY = "Copy the file again from its source."
_RATIO, _LARGE = 2000, 64 << 20  # a frame that is larger than this and shrank more than that is a bomb
_CLEARLY = 4.0  # times smoother: which of two readings of a lossless JPEG is a picture
_BIG_ENDIAN = "1.2.840.10008.1.2.2"


def stored_dtype(file: DicomFile) -> np.dtype:
    """The dtype that decoding gives, colours after the palette."""
    if file.pixel_keyword != "PixelData":
        return np.dtype(np.float32)
    if file.photometric == PALETTE:
        descriptor = file.header.numbers("RedPaletteColorLookupTableDescriptor", is_needed=False)
        return np.dtype(np.uint8 if len(descriptor) == 3 and descriptor[2] == 8 else np.uint16)
    if file.bits_allocated == 1:
        return np.dtype(np.uint8)
    return np.dtype(f"{'i' if file.is_signed else 'u'}{file.bits_allocated // 8}")


class FrameReader:
    """Decodes the frames of one file, which stays open until ``close``.

    Attributes:
        notes: What the frames decoded so far needed, one sentence each.
    """

    def __init__(self, file: DicomFile) -> None:
        self._file = file
        self._source: BinaryIO | None = None
        self._groups: list[list[tuple[int, int]]] = []
        self.notes: list[str] = []

    def __enter__(self) -> FrameReader:
        self._source = self._file.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def frame(self, index: int, with_palette: bool = True) -> NDArray:
        """One frame: ``(Y, X)`` of ``stored_dtype``, or ``(Y, X, 3)`` RGB.

        Args:
            index: From 0.
            with_palette: False gives the bare indices of a palette image.

        Raises:
            UnreadableFileError: The frame is damaged or does not agree with the header.
            ChangedWhileReadingError: The file changed since its header was read.
        """
        try:
            return self._decoded(index, with_palette)
        except (MedappError, Cancelled):
            raise
        except MemoryError as error:
            raise UnreadableFileError(
                f"{self._file.name} takes more memory to decode than its size allows.", "Ask where it came from."
            ) from error
        except OSError as error:
            raise ChangedWhileReadingError(f"{self._file.name} cannot be read any more.", "Open it again.") from error
        except Exception as error:  # foreign bytes provoke whatever they can
            logger.warning("a frame was refused after %s", type(error).__name__)
            raise UnreadableFileError(
                f"{self._file.name} is damaged: frame {index + 1} cannot be decoded.", _COPY
            ) from error

    def _decoded(self, index: int, with_palette: bool) -> NDArray:
        file = self._file
        if self._source is None:
            self._source = file.open()
        if file.transfer_syntax in COMPRESSED:
            array = self._compressed(index)
        elif self._is_plain:
            array = np.empty((file.rows, file.columns), dtype=stored_dtype(file))
            self.read_plain(index, array)
        else:
            array = self._native(index)
        if file.photometric == PALETTE and with_palette:
            return self._through_palette(array)
        return array

    @property
    def is_direct(self) -> bool:
        """True when ``read_plain`` can put the file's bytes straight into the volume."""
        return self._is_plain

    @property
    def _is_plain(self) -> bool:
        file = self._file
        return (
            file.transfer_syntax not in COMPRESSED
            and file.transfer_syntax != _BIG_ENDIAN
            and file.photometric in GREY
            and file.bits_allocated in (8, 16, 32)
            and file.pixel_keyword == "PixelData"
        )

    def read_plain(self, index: int, out: NDArray) -> None:
        """Read an uncompressed grey frame straight into ``out``, a contiguous ``(Y, X)`` of ``stored_dtype``.

        Raises:
            UnreadableFileError: Bytes are missing.
            ChangedWhileReadingError: The file changed since its header was read.
        """
        file = self._file
        if self._source is None:
            self._source = file.open()
        try:
            self._source.seek(file.pixel_offset + index * out.nbytes)
            read = self._source.readinto(out.data.cast("B"))  # type: ignore[attr-defined]
        except OSError as error:
            raise ChangedWhileReadingError(f"{file.name} cannot be read any more.", "Open it again.") from error
        if read != out.nbytes:
            raise UnreadableFileError(f"{file.name} is truncated: {read} of {out.nbytes} pixel bytes.", _COPY)
        if file.bits_stored < file.bits_allocated:
            _clear_unused_bits(out, file)

    def _native(self, index: int) -> NDArray:
        file = self._file
        assert self._source is not None
        if file.bits_allocated == 1 and file.transfer_syntax != _BIG_ENDIAN:
            return self._bits(index)
        self._source.seek(file.pixel_offset)
        array = self._run(self._source, index, None, file.frames)
        return array.astype(np.float32) if file.pixel_keyword != "PixelData" else array

    def _bits(self, index: int) -> NDArray:
        """One frame of packed bits, which need not begin at a byte (DICOM PS3.5 8.1.1)."""
        file = self._file
        assert self._source is not None
        count = file.rows * file.columns
        start = index * count
        self._source.seek(file.pixel_offset + start // 8)
        packed = np.frombuffer(self._source.read((start % 8 + count + 7) // 8), dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")[start % 8 : start % 8 + count]
        if bits.size != count:
            raise UnreadableFileError(f"{file.name} is truncated: {bits.size} of {count} pixels of a frame.", _COPY)
        return bits.reshape(file.rows, file.columns)

    def _compressed(self, index: int) -> NDArray:
        file, source = self._file, self._source
        assert source is not None
        assert file.items is not None
        if not self._groups:
            starts = file.header.value("ExtendedOffsetTable")
            table = tuple(np.frombuffer(starts, "<u8").tolist()) if isinstance(starts, bytes) else ()
            self._groups = frame_fragments(file.items, file.frames, table, source, file.name)
        parts = []
        for offset, length in self._groups[index]:
            source.seek(offset)
            parts.append(source.read(length))
        frame = b"".join(parts)
        stream = self._compare(frame)
        if stream is not None and stream.kind == "jpeg" and stream.precision > 8 and file.samples == 1:
            return self._fitted(decode_12_bit(frame, stream, file.name))
        decoder = get_decoder(file.transfer_syntax)
        available = decoder.available_plugins
        failure: Exception | None = None
        for plugin in _PLUGINS:
            if plugin in available:
                try:
                    array = self._run(encapsulate([frame], has_bot=False), 0, plugin, 1)
                except UnreadableFileError as error:  # the next one may know better
                    failure = error
                else:
                    return self._signed_lossless(array, stream)
        raise UnreadableFileError(
            f"{file.name} is damaged: its compressed frame {index + 1} cannot be decoded.", _COPY
        ) from failure

    def _fitted(self, decoded: NDArray[np.uint16]) -> NDArray:
        """12-bit samples as the pixels that the header declares."""
        array = decoded.astype(stored_dtype(self._file))
        if self._file.is_signed:
            _clear_unused_bits(array, self._file)
        return array

    def _signed_lossless(self, array: NDArray, stream: Codestream | None) -> NDArray:
        """Lossless JPEG of signed pixels: the reading that is a picture, when the two readings differ."""
        file = self._file
        is_doubtful = (
            stream is not None
            and stream.kind == "jpeg-lossless"
            and stream.predictor in HALVING
            and file.is_signed
            and array.dtype == np.int16
        )
        if not is_doubtful or stream is None:
            return array
        other = with_signed_predictor(array, stream.predictor)
        if other is array:
            return array
        rough, other_rough = roughness(array), roughness(other)
        if rough * _CLEARLY < other_rough:
            return array
        if other_rough * _CLEARLY < rough:
            self._note("The lossless JPEG was predicted with signed numbers; it was decoded that way.")
            return other
        raise UnreadableFileError(
            f"{file.name}: signed lossless JPEG with predictor {stream.predictor} cannot be decoded reliably.",
            "Export it uncompressed.",
        )

    def _compare(self, frame: bytes) -> Codestream | None:
        """The codestream must be what the header says, before a decoder allocates anything."""
        file = self._file
        size = file.rows * file.columns * file.samples * max(file.bits_allocated // 8, 1)
        if size > _LARGE and size > _RATIO * len(frame):
            raise UnreadableFileError(
                f"{file.name} inflates {size // max(len(frame), 1)} times; it is not safe to open.",
                "Ask where it came from.",
            )
        if file.transfer_syntax == RLE:
            return None
        stream = look(frame)
        if stream is None:
            raise UnreadableFileError(f"{file.name} is damaged: a compressed frame has no valid header.", _COPY)
        if (stream.rows, stream.columns, stream.samples) != (file.rows, file.columns, file.samples):
            raise UnreadableFileError(
                f"{file.name}: the header says {file.rows} × {file.columns} × {file.samples}, the compressed frame "
                f"{stream.rows} × {stream.columns} × {stream.samples}.",
                _COPY,
            )
        if stream.precision > file.bits_allocated:
            raise UnreadableFileError(
                f"{file.name}: the compressed frame has {stream.precision} bits, the header {file.bits_allocated}.",
                _COPY,
            )
        if file.transfer_syntax in J2K and file.samples == 1 and stream.is_signed != file.is_signed:
            if stream.precision != file.bits_stored:
                raise UnreadableFileError(
                    f"{file.name}: sign and precision of the compressed frame do not agree with the header.", _COPY
                )
            self._note("The compressed frames disagree with the header about the sign; the header's was used.")
        return stream

    def _run(self, source: Any, index: int, plugin: str | None, frames: int) -> NDArray:
        file = self._file
        options: dict[str, Any] = {
            "rows": file.rows,
            "columns": file.columns,
            "samples_per_pixel": file.samples,
            "bits_allocated": file.bits_allocated,
            "bits_stored": file.bits_stored,
            "number_of_frames": frames,
            "photometric_interpretation": file.photometric,
            "pixel_keyword": file.pixel_keyword,
            "pixel_vr": file.pixel_vr,
            "allow_excess_frames": False,
        }
        if file.pixel_keyword == "PixelData":
            options["pixel_representation"] = int(file.is_signed)
        if file.samples > 1:
            options["planar_configuration"] = file.header.integer("PlanarConfiguration", is_needed=False) or 0
        with quiet():
            try:
                array, _ = get_decoder(file.transfer_syntax).as_array(
                    source, index=index, decoding_plugin=plugin or "", **options
                )
            except BaseException as error:
                # a decoder in Rust panics with an exception that is no Exception; Ctrl-C must still pass
                if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                    raise
                raise UnreadableFileError(f"{file.name}: frame {index + 1} cannot be read.", _COPY) from error
        shape = (file.rows, file.columns) + ((3,) if file.samples == 3 else ())
        if array.shape != shape:
            raise UnreadableFileError(f"{file.name}: frame {index + 1} has the wrong size.", _COPY)
        return array

    def _through_palette(self, indices: NDArray) -> NDArray:
        file = self._file
        descriptor = file.header.numbers("RedPaletteColorLookupTableDescriptor")
        names = ("Red", "Green", "Blue")
        has_data = all(
            f"{c}PaletteColorLookupTableData" in file.header
            or f"Segmented{c}PaletteColorLookupTableData" in file.header
            for c in names
        )
        if len(descriptor) != 3 or not has_data:
            raise UnreadableFileError(f"{file.name}: the colour table of a palette image is missing.", _COPY)
        entries, first = int(descriptor[0]) or 65536, int(descriptor[1])
        low, high = int(indices.min()), int(indices.max())
        if low < first or high >= first + entries:
            raise UnreadableFileError(
                f"{file.name}: indices {low} to {high} lie outside its colour table of {entries} entries.", _COPY
            )
        with quiet():
            try:
                colours = apply_color_lut(indices, file.header.dataset)
            except Exception as error:
                raise UnreadableFileError(f"{file.name}: its colour table is damaged.", _COPY) from error
        return np.ascontiguousarray(colours[..., :3], dtype=stored_dtype(file))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _clear_unused_bits(array: NDArray, file: DicomFile) -> None:
    """Drop the bits around the stored ones, in place (DICOM PS3.5 8.1.1)."""
    above = file.bits_allocated - 1 - file.high_bit
    below = file.high_bit + 1 - file.bits_stored
    if not file.is_signed and not below:
        array &= array.dtype.type((1 << file.bits_stored) - 1)
        return
    if above:
        np.left_shift(array, above, out=array)
    np.right_shift(array, above + below, out=array)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the decoders' warnings and logged tracebacks to ourselves: what matters becomes a note or a refusal."""
    logs = [logging.getLogger(name) for name in ("pydicom", "openjpeg")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def stored_frames(file: DicomFile) -> Iterator[NDArray]:
    """Every frame as stored, before rescale and palette: what reference statistics speak of.

    Raises:
        UnreadableFileError: A frame cannot be decoded.
    """
    with FrameReader(file) as reader:
        for index in range(file.frames):
            yield reader.frame(index, with_palette=False)
