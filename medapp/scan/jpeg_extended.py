"""12-bit lossy JPEG by way of GDCM, the one decoder among ours that has it; pydicom's plugin declines it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UnreadableFileError
from medapp.scan.codestream import Codestream


def decode_12_bit(frame: bytes, stream: Codestream, name: str) -> NDArray[np.uint16]:
    """One grey frame of 9 to 12 bits.

    Args:
        frame: The codestream.
        stream: Its header, which agrees with that of the file.
        name: For messages.

    Returns:
        ``(Y, X)`` uint16.

    Raises:
        UnreadableFileError: GDCM gives back nothing, or too little.
    """
    import gdcm  # 60 ms and 30 MB: only when such a frame is met

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((stream.columns, stream.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2"))
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType("1.2.840.10008.1.2.4.51")))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, stream.precision, stream.precision - 1, 0))
    with _without_stderr():
        buffer = image.GetBuffer()  # bytes as text; None when nothing could be decoded
    pixels = buffer.encode("utf-8", "surrogateescape") if buffer is not None else b""
    expected = stream.rows * stream.columns * 2
    if len(pixels) != expected:
        raise UnreadableFileError(
            f"{name} is damaged: {len(pixels)} of {expected} bytes of a compressed frame could be decoded.",
            "Copy the file again from its source.",
        )
    return np.frombuffer(pixels, dtype="<u2").reshape(stream.rows, stream.columns)


@contextmanager
def _without_stderr() -> Iterator[None]:
    """GDCM's libjpeg writes to the process's error stream each time it tries the 8-bit codec first."""
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
