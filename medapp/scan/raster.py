"""Reading PNG, JPEG, TIFF and BMP, by content; no other codec of the image library is ever opened."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from medapp.errors import UnreadableFileError
from medapp.progress import Progress
from medapp.scan.dicom_file import open_unchanged
from medapp.scan.dicom_voxels import clear_not_finite
from medapp.scan.lazy import Filled, LazyScan, OnSlice, check_memory
from medapp.scan.scan import SourceInfo

logger = logging.getLogger(__name__)

FORMATS = {"png": "PNG", "jpeg": "JPEG", "tiff": "TIFF", "bmp": "BMP"}
_MAX_PIXELS = 1 << 27
_COPY = "Copy the file again from its source."
_GREY = {"1": "u1", "L": "u1", "I;16": "u2", "I;16B": "u2", "I;16L": "u2", "I": "i4", "F": "f4"}
_COLOUR = frozenset({"RGB", "RGBA", "LA", "P", "PA", "RGBX"})
_ORIENTATION = 274
_UNIT_MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "micron": 0.001, "um": 0.001, "µm": 0.001, "\\u00b5m": 0.001}


def sniff_raster(start: bytes) -> str | None:
    """``png``, ``jpeg``, ``tiff`` or ``bmp`` by the first bytes; None for anything else."""
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if start[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if start[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    if start[:2] == b"BM" and len(start) >= 26 and struct.unpack("<I", start[14:18])[0] in (12, 40, 52, 56, 108, 124):
        return "bmp"
    return None


def raster_scan(path: Path, progress: Progress, modality: str | None = None, shown: str = "") -> LazyScan:
    """One image, or a stack of the pages of a TIFF.

    Raises:
        UnreadableFileError: Damaged, unsupported or unsafe.
    """
    name = Path(shown or path).name
    try:
        status = path.stat()
        with path.open("rb") as file:
            start = file.read(32)
            kind = sniff_raster(start)
            if kind is None:
                raise UnreadableFileError(f"{name} is not an image medapp knows.", "")
            if kind == "tiff":
                _check_directories(file, status.st_size, name)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            pages = _describe(file, kind, status.st_size, name)
    except OSError as error:
        why = (
            f"cannot be read: {error.strerror}"
            if error.strerror
            else f"is truncated or damaged ({status.st_size} bytes present)"
        )
        raise UnreadableFileError(f"{name} {why}.", _COPY) from error
    first = pages[0]
    if any(page.key != first.key for page in pages):
        sizes = ", ".join(f"{page.height} × {page.width} {page.mode}" for page in pages[:6])
        raise UnreadableFileError(f"{name} has {len(pages)} pages that do not agree: {sizes}.", "Save each page alone.")
    notes = list(first.notes)
    spacing, index_spacing = _spacing(first, len(pages), notes)
    stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
    return LazyScan(
        shape=(len(pages), first.height, first.width) + ((3,) if first.is_colour else ()),
        dtype=first.dtype,
        voxels=RasterVoxels(path, shown or str(path), name, stamp, kind, first),
        modality=modality,
        unit="arbitrary",
        kind="image" if len(pages) == 1 else "stack",
        pixel_spacing_mm=spacing,
        index_spacing_mm=index_spacing,
        notes=tuple(notes),
        series_key=digest[:16],
        source=SourceInfo(path=shown or str(path), format="raster", description=Path(name).stem[:64]),
        files=(shown or str(path),),
        progress=progress,
    )


class _Page:
    """What one page says before it is decoded."""

    def __init__(self, image: Image.Image, name: str) -> None:
        self.mode, self.kind = image.mode, image.format or ""
        self.width, self.height = image.size
        self.notes: list[str] = []
        self.info: dict[Any, Any] = dict(image.info)
        self.tags: dict[int, Any] = dict(getattr(image, "tag_v2", {}))
        if self.mode not in _GREY and self.mode not in _COLOUR:
            raise UnreadableFileError(f"{name}: colours as {self.mode} are not supported.", "Save it as RGB.")
        self.is_colour = self.mode not in _GREY and self.mode != "LA"
        if self.mode == "P" and image.palette is not None and _is_grey_palette(image):
            self.is_colour = False
        self.dtype = np.dtype(_GREY.get(self.mode, "u1"))
        self.has_alpha = self.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
            self.width, self.height = self.height, self.width
        if self.mode == "I" and image.format == "PNG":
            self.dtype = np.dtype(np.uint16)

    @property
    def key(self) -> tuple[object, ...]:
        """What must agree for pages to be one stack."""
        return self.mode, self.width, self.height, self.is_colour


def _is_grey_palette(image: Image.Image) -> bool:
    """Pillow opens 1-, 2- and 4-bit grey as a palette of greys."""
    palette = image.getpalette("RGB") or []
    return all(palette[i] == palette[i + 1] == palette[i + 2] for i in range(0, len(palette) - 2, 3))


def _open(file: BinaryIO, kind: str, name: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(file, formats=(FORMATS[kind],))
        except Image.DecompressionBombError as error:
            raise UnreadableFileError(
                f"{name} declares more pixels than the limit of {_MAX_PIXELS}.", "Crop or shrink it first."
            ) from error
        except Exception as error:  # the image library raises whatever the bytes provoke
            raise UnreadableFileError(
                f"{name} is truncated, damaged or of a rare kind: its header cannot be read.", _COPY
            ) from error


def _describe(file: BinaryIO, kind: str, size: int, name: str) -> list[_Page]:
    image = _open(file, kind, name)
    _check_size(image, size, name)
    pages = [_Page(image, name)]
    if kind == "tiff":
        _check_strips(image, size, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for index in range(1, getattr(image, "n_frames", 1)):
                    image.seek(index)
                    _check_size(image, size, name)
                    _check_strips(image, size, name)
                    pages.append(_Page(image, name))
            except UnreadableFileError:
                raise
            except Exception as error:
                raise UnreadableFileError(f"{name} is damaged: page {len(pages) + 1} cannot be read.", _COPY) from error
    if kind == "png" and _bytes_after_png(file, size):
        pages[0].notes.append(f"{_bytes_after_png(file, size)} bytes after the end of the image were ignored.")
    if kind == "png" and pages[0].dtype.itemsize == 1 and _png_depth(file) == 16:
        pages[0].notes.append("The 16-bit samples were read as 8-bit.")
    total = sum(page.width * page.height for page in pages) * pages[0].dtype.itemsize * (3 if pages[0].is_colour else 1)
    check_memory(total, name)
    return pages


def _check_size(image: Image.Image, size: int, name: str) -> None:
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise UnreadableFileError(
            f"{name} declares {width} × {height} pixels, more than the limit of {_MAX_PIXELS}.",
            "Crop or shrink it first.",
        )
    bits = (
        1 if image.mode == "1" else 8 * {"I;16": 2, "I;16B": 2, "I": 4, "F": 4, "RGB": 3, "RGBA": 4}.get(image.mode, 1)
    )
    most = {"PNG": 1100, "BMP": 300, "JPEG": 2000, "TIFF": 5000}.get(image.format or "", 1100)
    if width * height * bits // 8 > max(most * size, 1 << 16):
        raise UnreadableFileError(f"{name} declares {width} × {height} pixels, which {size} bytes cannot hold.", _COPY)


def _check_strips(image: Image.Image, size: int, name: str) -> None:
    """An uncompressed TIFF must hold all the bytes that it declares."""
    tags = dict(getattr(image, "tag_v2", {}))
    counts, offsets = tags.get(279) or tags.get(325), tags.get(273) or tags.get(324)
    if not counts or not offsets:
        raise UnreadableFileError(f"{name} is damaged: a page has no pixel data.", _COPY)
    reach = max(int(o) + int(c) for o, c in zip(offsets, counts, strict=False))
    if reach > size:
        raise UnreadableFileError(f"{name} is truncated: {size} of {reach} bytes are present.", _COPY)
    if tags.get(259, 1) == 1:
        bits = sum(int(b) for b in tags.get(258, (1,))) if isinstance(tags.get(258, (1,)), tuple) else int(tags[258])
        expected = image.size[1] * math.ceil(image.size[0] * bits / 8)
        if tags.get(325) is None and sum(int(c) for c in counts) < expected:
            raise UnreadableFileError(
                f"{name} is truncated: {sum(int(c) for c in counts)} of {expected} pixel bytes are present.", _COPY
            )


def _check_directories(file: BinaryIO, size: int, name: str) -> None:
    """Walk the chain of TIFF directories and refuse a loop (TIFF 6.0, section 2)."""
    file.seek(0)
    head = file.read(8)
    order = "<" if head[:2] == b"II" else ">"
    position = struct.unpack(f"{order}I", head[4:8])[0] if len(head) == 8 else 0
    seen: set[int] = set()
    while position:
        if position in seen:
            raise UnreadableFileError(f"{name} is damaged: its pages form a loop.", _COPY)
        seen.add(position)
        file.seek(position)
        count = file.read(2)
        if len(count) < 2 or position >= size:
            raise UnreadableFileError(f"{name} is truncated: a page lies beyond its {size} bytes.", _COPY)
        file.seek(position + 2 + 12 * struct.unpack(f"{order}H", count)[0])
        following = file.read(4)
        position = struct.unpack(f"{order}I", following)[0] if len(following) == 4 else 0


def _bytes_after_png(file: BinaryIO, size: int) -> int:
    """Bytes after the last chunk (PNG 1.2, section 3.2); 0 when there is no last chunk."""
    position = 8
    while position + 12 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        position += 12 + length
        if name == b"IEND":
            return max(0, size - position)
    return 0


def _png_depth(file: BinaryIO) -> int:
    file.seek(24)
    return (file.read(1) or b"\0")[0]


def _spacing(
    page: _Page, pages: int, notes: list[str]
) -> tuple[tuple[float, float] | None, tuple[float, float, float] | None]:
    """Pixel size from ImageJ, pHYs or TIFF resolution, only where its unit is a length; always with a note."""
    text = str(page.tags.get(270, ""))
    imagej = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)) if text.startswith("ImageJ=") else {}
    resolution = (page.tags.get(282), page.tags.get(283))
    pair: tuple[float, float] | None = None
    unit = imagej.get("unit", "").strip().lower()
    if all(resolution) and (unit in _UNIT_MM or page.tags.get(296) == 3):
        scale = _UNIT_MM.get(unit, 10.0)
        x, y = float(resolution[0] or 0), float(resolution[1] or 0)
        if x > 0 and y > 0:
            pair = (scale / y, scale / x)
    elif not page.tags and page.kind == "PNG" and "dpi" in page.info:
        x, y = (float(v) for v in page.info["dpi"])  # set for pHYs in metres only
        if x > 0 and y > 0:
            pair = (25.4 / y, 25.4 / x)
    if pair is None or not all(math.isfinite(v) and v > 0 for v in pair):
        return None, None
    notes.append(f"The pixel size of {pair[0]:.4g} × {pair[1]:.4g} mm was taken from the image file.")
    between = _positive(imagej.get("spacing"))
    if pages > 1 and between is not None and unit in _UNIT_MM:
        notes.append("The distance between pages was taken from ImageJ; left and right are unknown.")
        return pair, (between * _UNIT_MM[unit], *pair)
    return pair, None


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


class RasterVoxels:
    """The pixels of one image file."""

    def __init__(self, path: Path, shown: str, name: str, stamp: tuple[int, int, int], kind: str, page: _Page) -> None:
        self._path, self._shown, self._name, self._stamp, self._kind, self._page = path, shown, name, stamp, kind, page

    def headers(self) -> tuple[bytes, ...]:
        """Raster images have no dataset per slice."""
        return ()

    def fill(self, out: NDArray, order: Sequence[int], on_slice: OnSlice, progress: Progress) -> Filled:
        """Decode every page."""
        page = self._page
        alpha: NDArray[np.uint16] | None = None
        limit = min(10.0, 5.0 + page.width * page.height / 10e6)
        notes: list[str] = []
        progress.parsing(self._shown, limit, out.nbytes)
        try:
            with open_unchanged(self._path, self._stamp, self._name) as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = _open(file, self._kind, self._name)
                for z in order:
                    try:
                        image.seek(z)
                        image.load()
                    except Exception as error:
                        raise UnreadableFileError(
                            f"{self._name} is truncated or damaged: its pixels cannot be decoded "
                            f"({self._stamp[0]} bytes present).",
                            _COPY,
                        ) from error
                    pixels, matte = _to_arrays(image, page.is_colour)
                    if pixels.shape != out.shape[1:]:
                        raise UnreadableFileError(f"{self._name} is damaged: page {z + 1} changes size.", _COPY)
                    out[z] = pixels
                    if matte is not None:
                        alpha = np.full(out.shape[:3], 65535, dtype=np.uint16) if alpha is None else alpha
                        alpha[z] = matte
                    if out.dtype.kind != "f":
                        on_slice(z, out[z])
                        progress.step()
        finally:
            progress.parsing("")
        padding = None
        if out.dtype.kind == "f":
            try:
                padding, found = clear_not_finite(out, None)
            except UnreadableFileError as error:
                raise UnreadableFileError(f"{self._name}: {error.message}", error.hint) from error
            notes.extend(found)
            for z in order:
                on_slice(z, out[z])
                progress.step()
        return Filled(padding, alpha, tuple(notes))


def _to_arrays(image: Image.Image, is_colour: bool) -> tuple[NDArray, NDArray[np.uint16] | None]:
    """Pixels and straight alpha of the page that is loaded: upright, in sRGB."""
    if image.mode not in ("I;16", "I;16B", "I;16L", "I", "F") and image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in _GREY and "transparency" not in image.info:
        return np.asarray(image.convert("L") if image.mode == "1" else image), None
    if image.mode in _GREY and not isinstance(image.info.get("transparency"), bytes):
        grey = np.asarray(image.convert("L") if image.mode == "1" else image)
        return grey, np.where(grey == image.info["transparency"], 0, 65535).astype(np.uint16)
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    if not is_colour:
        both = np.asarray(image.convert("LA"))
        return both[..., 0], both[..., 1].astype(np.uint16) * 257 if has_alpha else None
    rgba = image.convert("RGBA")
    rgb = _to_srgb(image, rgba.convert("RGB"))
    matte = np.asarray(rgba)[..., 3].astype(np.uint16) * 257 if has_alpha else None
    return np.asarray(rgb), matte


def _to_srgb(image: Image.Image, rgb: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA"):
        return rgb
    try:
        return (
            ImageCms.profileToProfile(
                rgb, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            )
            or rgb
        )
    except Exception as error:  # a damaged profile: colours as stored
        logger.info("a colour profile could not be used: %s", type(error).__name__)
        return rgb
