"""Writing colour pictures that were made from others: PNG or TIFF that say so themselves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, TiffImagePlugin

from medapp.errors import ExportError
from medapp.export.files import write_bytes

ENDINGS = (".png", ".tif", ".tiff")
_IMAGE_DESCRIPTION, _RESOLUTION_UNIT, _X_RESOLUTION, _Y_RESOLUTION = 270, 296, 282, 283
_CENTIMETRE = 3


def write_pictures(
    path: Path, pages: Sequence[NDArray], said: str, spacing_mm: tuple[float, float] | None = None
) -> None:
    """Write pictures losslessly and read them back.

    Args:
        path: Ends in ``.png`` for one page, or in ``.tif`` or ``.tiff``.
        pages: All of one shape and type: ``(H, W, 3)`` or ``(H, W, 4)`` uint8, with straight alpha; or ``(H, W)``
            float32, TIFF only.
        said: What viewers show as the description: how the picture was made. Must not name anybody.
        spacing_mm: Pixel size ``(y, x)``, kept where it is known.

    Raises:
        ExportError: The file reads back differently, or the disk is full or read-only.
    """
    images = [Image.fromarray(np.ascontiguousarray(page)) for page in pages]
    buffer = io.BytesIO()
    if path.suffix.lower() == ".png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Description", said.encode("latin-1", "replace").decode("latin-1"))
        dpi = {"dpi": (25.4 / spacing_mm[1], 25.4 / spacing_mm[0])} if spacing_mm else {}
        images[0].save(buffer, format="PNG", compress_level=4, pnginfo=text, **dpi)
    else:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[_IMAGE_DESCRIPTION] = said.replace("·", "-").encode("ascii", "replace").decode("ascii")  # TIFF 6.0 ASCII
        if spacing_mm is not None:
            tags[_RESOLUTION_UNIT] = _CENTIMETRE
            tags[_X_RESOLUTION], tags[_Y_RESOLUTION] = 10 / spacing_mm[1], 10 / spacing_mm[0]
        images[0].save(
            buffer,
            format="TIFF",
            compression="tiff_lzw" if images[0].mode != "F" else None,
            tiffinfo=tags,
            save_all=len(images) > 1,
            append_images=images[1:],
        )
    data = buffer.getvalue()
    with Image.open(io.BytesIO(data)) as again:
        for number, page in enumerate(pages):
            again.seek(number)
            if not np.array_equal(np.asarray(again), page):
                raise ExportError(f"{path.name} would read back differently; nothing was written.", "")
    write_bytes(path, data)
