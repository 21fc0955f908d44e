"""PNG, JPEG, TIFF and BMP by content."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from medapp.errors import UnreadableFileError
from medapp.scan.reading import read_scan, sniff

GREY = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("ending", "kind"), [("png", "png"), ("bmp", "bmp"), ("tif", "tiff"), ("jpg", "jpeg")])
def test_the_kind_comes_from_the_content(tmp_path, ending, kind):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(GREY).save(path)
    path.rename(tmp_path / "picture.dcm")

    assert sniff(tmp_path / "picture.dcm") == kind
    found = read_scan(tmp_path / "picture.dcm")
    assert (found.kind, found.shape, found.spacing_mm) == ("image", (1, 12, 10), None)
    if kind != "jpeg":
        assert np.array_equal(found.stored[0], GREY)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (GREY.astype(np.uint16) * 500, np.uint16),
        (GREY.astype(np.float32) / 7 - 3, np.float32),
        (GREY.astype(np.int32) - 60, np.int32),
    ],
)
def test_deep_grey_stays_deep(tmp_path, values, dtype):
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = read_scan(tmp_path / "a.tif")

    assert found.stored.dtype == dtype
    assert np.array_equal(found.stored[0], values)


def test_16_bit_png_stays_16_bit(tmp_path):
    values = GREY.astype(np.uint16) * 500
    Image.fromarray(values).save(tmp_path / "a.png")

    assert np.array_equal(read_scan(tmp_path / "a.png").stored[0], values)


def test_bits_become_0_and_255(tmp_path):
    Image.fromarray(GREY > 60).save(tmp_path / "a.png")

    assert np.array_equal(read_scan(tmp_path / "a.png").stored[0], np.where(GREY > 60, 255, 0))


def test_a_palette_becomes_colours(tmp_path):
    picture = Image.fromarray(GREY % 3, mode=None).convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png")
    found = read_scan(tmp_path / "a.png")

    assert found.stored[0, 0, :3].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_alpha_is_kept_straight_and_hidden_colours_survive(tmp_path):
    rgba = np.zeros((3, 4, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, [0, 100, 200, 255]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    found = read_scan(tmp_path / "a.png")

    assert (found.stored[..., 0] == 200).all()
    assert found.alpha[0, 0].tolist() == [0, 100 * 257, 200 * 257, 65535]


def test_the_orientation_of_the_camera_is_applied_without_a_note(tmp_path):
    picture = Image.fromarray(np.dstack([GREY] * 3))
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    found = read_scan(tmp_path / "a.png")

    assert np.array_equal(found.stored[0, ..., 0], np.rot90(GREY, -1))
    assert found.notes == ()


def test_colours_are_brought_to_srgb(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    Image.fromarray(np.full((2, 2, 3), 99, np.uint8)).save(tmp_path / "a.png", icc_profile=profile.tobytes())

    assert np.abs(read_scan(tmp_path / "a.png").stored.astype(int) - 99).max() <= 1


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_print_colours_are_refused(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")

    with pytest.raises(UnreadableFileError, match=mode):
        read_scan(tmp_path / "a.tif")


def test_pages_that_agree_are_a_stack_and_others_are_refused(tmp_path):
    pages = [Image.fromarray(GREY + i) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    found = read_scan(tmp_path / "a.tif")
    assert (found.kind, found.shape) == ("stack", (3, 12, 10))
    assert [int(page[0, 0]) for page in found.stored] == [0, 1, 2]

    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=[Image.fromarray(GREY[:5])])
    with pytest.raises(UnreadableFileError, match="2 pages that do not agree: 12 × 10 L, 5 × 10 L"):
        read_scan(tmp_path / "b.tif")


def test_the_spacing_of_imagej_is_used_with_a_note(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "ImageJ=1.53\nimages=2\nslices=2\nunit=mm\nspacing=2.5\n"
    tags[282], tags[283] = TiffImagePlugin.IFDRational(2), TiffImagePlugin.IFDRational(4)
    page = Image.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page], tiffinfo=tags)
    found = read_scan(tmp_path / "a.tif")

    assert found.spacing_mm == pytest.approx((2.5, 0.25, 0.5))
    assert any("mm" in note for note in found.notes)


def test_only_a_pixel_size_in_a_unit_of_length_counts(tmp_path):
    rows = b"".join(b"\0" + bytes(row) for row in GREY)
    (tmp_path / "a.png").write_bytes(png(10, 12, 8, 0, rows, chunk(b"pHYs", struct.pack(">IIB", 5000, 2500, 1))))
    (tmp_path / "b.png").write_bytes(png(10, 12, 8, 0, rows, chunk(b"pHYs", struct.pack(">IIB", 5000, 2500, 0))))
    Image.fromarray(GREY).save(tmp_path / "c.tif", dpi=(72, 72))

    sized = read_scan(tmp_path / "a.png")
    assert sized.pixel_spacing_mm == pytest.approx((0.4, 0.2))
    assert sized.notes
    for name in ("b.png", "c.tif"):
        plain = read_scan(tmp_path / name)
        assert (plain.pixel_spacing_mm, plain.notes) == (None, ())


def test_a_bomb_is_refused_by_its_header(tmp_path):
    rows = zlib.compress(bytes(1000))
    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    (tmp_path / "b.png").write_bytes(png(8000, 8000, 8, 0, bytes(100)))
    for name in ("a.png", "b.png"):
        with pytest.raises(UnreadableFileError, match=r"limit|cannot hold"):
            read_scan(tmp_path / name)


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "jpg"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_image_is_refused_and_never_padded(tmp_path, ending, share):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(UnreadableFileError, match=r"truncated|damaged"):
        read_scan(path)


def test_a_tiff_whose_pages_form_a_loop_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(GREY).save(path)
    whole = bytearray(path.read_bytes())
    first = struct.unpack("<I", whole[4:8])[0]
    entries = struct.unpack("<H", whole[first : first + 2])[0]
    whole[first + 2 + 12 * entries : first + 6 + 12 * entries] = struct.pack("<I", first)
    path.write_bytes(whole)

    with pytest.raises(UnreadableFileError, match="loop"):
        read_scan(path)


def test_bytes_after_the_end_are_noted(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    path.write_bytes(path.read_bytes() + b"rubbish")

    assert any("7 bytes after" in note for note in read_scan(path).notes)


def test_float_pixels_that_are_no_numbers_are_masked(tmp_path):
    values = GREY.astype(np.float32)
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = read_scan(tmp_path / "a.tif")

    assert found.padding.sum() == 1
    assert np.isfinite(found.stored).all()
