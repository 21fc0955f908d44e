"""Opening single DICOM files: bits, colours, values, and everything that must be refused."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from medapp.errors import ChangedWhileReadingError, HoldsNoImageError, UnreadableFileError
from medapp.progress import Progress
from medapp.scan.intensity import starting_window, value_range
from medapp.scan.reading import read_path, read_scan, sniff
from medapp.scan.scan import Scan
from tests.builders import EXPLICIT, compress, make_dataset, make_scan, save_dataset, write_dicom_series

RLE = "1.2.840.10008.1.2.5"
DEFLATED = "1.2.840.10008.1.2.1.99"
IMPLICIT = "1.2.840.10008.1.2"


def one(tmp_path, scan=None, syntax=EXPLICIT, **overrides):
    return save_dataset(tmp_path / "one.dcm", make_dataset(scan or make_scan(), 0, **overrides), syntax)


def test_the_transfer_syntax_changes_nothing(tmp_path):
    scan = make_scan((3, 64, 70))
    for syntax in (EXPLICIT, IMPLICIT, DEFLATED):
        write_dicom_series(tmp_path / syntax, scan, transfer_syntax=syntax)
        assert np.array_equal(read_scan(tmp_path / syntax).stored, scan.stored)
    for syntax in (RLE, "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"):
        for z in range(scan.shape[0]):
            ds = compress(make_dataset(scan, z), syntax)
            save_dataset(tmp_path / syntax / f"{z}.dcm", ds, syntax)
        found = read_scan(tmp_path / syntax)
        assert np.array_equal(found.stored, scan.stored)
        assert found.geometry.is_close(scan.geometry)


def test_big_endian_is_read(tmp_path):
    ds = make_dataset(make_scan(), 0)
    ds.PixelData = make_scan().stored[0].astype(">i2").tobytes()
    path = tmp_path / "big.dcm"
    save_dataset(path, ds, "1.2.840.10008.1.2.2")

    assert np.array_equal(read_scan(path).stored[0], make_scan().stored[0])


def test_a_file_without_preamble_loads_with_a_note(tmp_path):
    path = one(tmp_path)
    bare = tmp_path / "bare"
    bare.write_bytes(path.read_bytes()[132:])

    assert sniff(bare) == "dicom"
    assert any("preamble" in note for note in read_scan(bare).notes)


def test_a_file_meta_without_transfer_syntax_is_tried_as_little_endian(tmp_path):
    ds = make_dataset(make_scan(), 0)
    path = save_dataset(tmp_path / "a.dcm", ds, IMPLICIT)
    content = path.read_bytes()
    start = content.index(b"\x02\x00\x10\x00UI")
    stop = start + 8 + struct.unpack("<H", content[start + 6 : start + 8])[0]
    length = struct.unpack("<I", content[140:144])[0] - (stop - start)
    path.write_bytes(content[:140] + struct.pack("<I", length) + content[144:start] + content[stop:])

    assert any("transfer syntax is missing" in note for note in read_scan(path).notes)


def test_twelve_bits_signed_with_rubbish_above_them_come_out_right(tmp_path):
    wanted = np.arange(-2048, -2048 + 12 * 16, dtype=np.int16).reshape(12, 16)
    ds = make_dataset(make_scan(), 0, BitsStored=12, HighBit=11)
    ds.PixelData = ((wanted.view(np.uint16) & 0x0FFF) | 0x5000).tobytes()

    assert np.array_equal(read_scan(save_dataset(tmp_path / "a.dcm", ds)).stored[0], wanted)


def test_one_bit_and_32_bit_images_load(tmp_path):
    picture = (np.indices((9, 15)).sum(axis=0) % 2).astype(np.uint8)
    ds = make_dataset(Scan(picture[None], None, "OT"), 0, BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.PixelData = np.packbits(np.tile(picture.ravel(), 3), bitorder="little").tobytes() + b"\0"
    ds.NumberOfFrames = 3
    found = read_scan(save_dataset(tmp_path / "bits.dcm", ds))
    assert np.array_equal(found.stored, np.repeat(picture[None], 3, axis=0))  # frames do not begin at bytes

    large = Scan(np.array([[[0, 1 << 30], [5, 7]]], dtype=np.uint32), None, "OT")
    assert read_scan(save_dataset(tmp_path / "wide.dcm", make_dataset(large, 0))).stored.max() == 1 << 30


def test_monochrome1_keeps_its_values_and_is_shown_inverted(tmp_path):
    found = read_scan(one(tmp_path, PhotometricInterpretation="MONOCHROME1"))

    assert found.is_inverted
    assert np.array_equal(found.stored[0], make_scan().stored[0])


def rgb_dataset(pixels: np.ndarray, photometric: str = "RGB", planar: int = 0) -> Dataset:
    ds = make_dataset(Scan(pixels[None, ..., 0], None, "OT"), 0)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, photometric, planar
    raw = (pixels if not planar else pixels.transpose(2, 0, 1)).tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    return ds


def test_colour_is_rgb_however_it_was_stored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    for name, planar in (("a", 0), ("b", 1)):
        found = read_scan(save_dataset(tmp_path / name, rgb_dataset(pixels, planar=planar)))
        assert found.is_colour
        assert np.array_equal(found.stored[0], pixels)

    grey = np.zeros((6, 8, 3), dtype=np.uint8)
    grey[..., 0], grey[..., 1:] = 90, 128
    assert (read_scan(save_dataset(tmp_path / "y", rgb_dataset(grey, "YBR_FULL"))).stored == 90).all()


def palette_dataset(indices: np.ndarray) -> Dataset:
    ds = make_dataset(Scan(indices[None], None, "US"), 0, PhotometricInterpretation="PALETTE COLOR")
    for place, colour in enumerate(("Red", "Green", "Blue")):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [4, 10, 8])
        setattr(ds, f"{colour}PaletteColorLookupTableData", bytes([place * 50 + i for i in range(4)]))
    return ds


def test_a_palette_gives_colours_and_a_bad_one_is_refused(tmp_path):
    indices = np.array([[10, 11], [12, 13]], dtype=np.uint8)
    found = read_scan(save_dataset(tmp_path / "good.dcm", palette_dataset(indices)))
    assert found.stored[0].tolist() == [[[0, 50, 100], [1, 51, 101]], [[2, 52, 102], [3, 53, 103]]]

    with pytest.raises(UnreadableFileError, match="outside its colour table"):
        read_scan(save_dataset(tmp_path / "beyond.dcm", palette_dataset(indices + 1)))
    without = palette_dataset(indices)
    del without.GreenPaletteColorLookupTableData
    with pytest.raises(UnreadableFileError, match="colour table"):
        read_scan(save_dataset(tmp_path / "none.dcm", without))


@pytest.mark.parametrize("photometric", ["CMYK", "HSV", "ARGB"])
def test_other_colour_spaces_are_refused(tmp_path, photometric):
    with pytest.raises(UnreadableFileError, match=photometric):
        read_scan(one(tmp_path, PhotometricInterpretation=photometric))


# ------------------------------------------------------------------------------------------------------------- values


def test_hu_are_kept_as_integers_with_one_slope(tmp_path):
    write_dicom_series(tmp_path, make_scan(), RescaleSlope=2, RescaleIntercept=-1000)
    found = read_scan(tmp_path)

    assert (found.stored.dtype, found.slope, found.intercept, found.unit) == (np.int16, 2.0, -1000.0, "HU")
    assert np.array_equal(found.values(), make_scan().stored * 2.0 - 1000)


def test_slopes_of_each_slice_are_applied_to_that_slice(tmp_path):
    def own(ds, z):
        ds.RescaleSlope, ds.RescaleIntercept = 0.5 + z, 3

    write_dicom_series(tmp_path, make_scan(modality="MR"), own)
    found = read_scan(tmp_path)

    assert found.stored.dtype == np.float32
    for z in range(4):
        assert np.allclose(found.values()[z], make_scan(modality="MR").stored[z] * (0.5 + z) + 3)


@pytest.mark.parametrize(("slope", "intercept"), [("nan", 0), (1, "inf")])
def test_a_rescale_that_is_not_finite_is_refused(tmp_path, slope, intercept):
    with pytest.raises(UnreadableFileError, match="not a finite number"):
        read_scan(one(tmp_path, RescaleSlope=slope, RescaleIntercept=intercept))


def test_a_blank_slice_may_have_the_slope_0(tmp_path):
    blank = Scan(np.zeros((1, 4, 4), np.int16), make_scan().geometry, "CT", "HU")

    assert read_scan(one(tmp_path, blank, RescaleSlope=0)).values().max() == 0


def test_the_modality_table_wins_over_slope_and_intercept(tmp_path):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4, 0, 16])
    item.add_new("LUTData", "US", [100, 200, 400, 800])
    item.ModalityLUTType = "HU"
    picture = Scan(np.array([[[0, 1], [2, 3]]], dtype=np.uint16), None, "OT")
    path = one(tmp_path, picture, ModalityLUTSequence=Sequence([item]), RescaleSlope=7)

    assert read_scan(path).values().tolist() == [[[100, 200], [400, 800]]]


@pytest.mark.parametrize(
    ("overrides", "unit"),
    [
        ({}, "HU"),
        ({"RescaleType": None}, "HU"),
        ({"RescaleType": "US"}, "arbitrary"),
        ({"RescaleType": None, "RescaleSlope": None, "RescaleIntercept": None}, "arbitrary"),
    ],
)
def test_a_ct_is_in_hu_only_when_it_says_so_or_says_nothing_else(tmp_path, overrides, unit):
    found = read_scan(one(tmp_path, **overrides))

    assert found.unit == unit
    assert any("not HU" in note for note in found.notes) == (unit == "arbitrary")


def test_float_pixels_that_are_no_numbers_are_masked(tmp_path):
    ds = make_dataset(make_scan(modality="MR"), 0, BitsStored=None, HighBit=None, PixelRepresentation=None)
    values = np.linspace(-1, 1, 12 * 16, dtype=np.float32).reshape(12, 16)
    values[0, 0] = np.nan
    del ds.PixelData
    ds.BitsAllocated, ds.FloatPixelData = 32, values.tobytes()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.30"  # Parametric Map
    found = read_scan(save_dataset(tmp_path / "map.dcm", ds))

    assert found.padding.sum() == 1
    assert np.allclose(found.stored[0].ravel()[1:], values.ravel()[1:])
    assert any("not a finite number" in note for note in found.notes)


def test_padding_takes_no_part_but_keeps_its_value(tmp_path):
    scan = make_scan()
    scan.stored[:, 0] = -2000
    write_dicom_series(tmp_path, scan, PixelPaddingValue=-2000)
    found = read_scan(tmp_path)

    assert found.padding[:, 0].all()
    assert not found.padding[:, 1:].any()
    assert value_range(found)[0] == scan.stored[:, 1:].min()
    assert (found.stored[:, 0] == -2000).all()


def test_a_range_of_padding_and_an_unsigned_padding_value_are_understood(tmp_path):
    scan = make_scan()
    scan.stored[:, 0], scan.stored[:, 1] = -2000, -1990
    ds = make_dataset(scan, 0)
    ds.add_new("PixelPaddingValue", "US", 65536 - 2000)
    ds.add_new("PixelPaddingRangeLimit", "US", 65536 - 1985)
    found = read_scan(save_dataset(tmp_path / "a.dcm", ds))

    assert found.padding[0, :2].all()
    assert not found.padding[0, 2:].any()


def test_images_that_are_constant_or_all_padding_can_still_be_shown(tmp_path):
    flat = Scan(np.full((1, 4, 4), 7, np.int16), None, "OT")
    for overrides in ({}, {"PixelPaddingValue": 7}):
        found = read_scan(one(tmp_path, flat, **overrides))
        assert value_range(found) == (7.0, 7.0)
        assert starting_window(found).width > 0


def test_windows_without_width_are_ignored_with_a_note(tmp_path):
    found = read_scan(one(tmp_path, WindowCenter=[40, 50, 60], WindowWidth=[0, 400, -5]))

    assert [(w.center, w.width) for w in found.windows] == [(50.0, 400.0)]
    assert any("window" in note for note in found.notes)


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "keyword", ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"]
)
def test_a_missing_description_of_the_pixels_is_refused_by_name(tmp_path, keyword):
    with pytest.raises(UnreadableFileError, match=keyword):
        read_scan(one(tmp_path, **{keyword: None}))


@pytest.mark.parametrize(
    "overrides",
    [
        {"Rows": 0},
        {"NumberOfFrames": -1},
        {"NumberOfFrames": 2**31},
        {"BitsStored": 17},
        {"BitsAllocated": 12},
        {"SamplesPerPixel": 3},
        {"Rows": 65535, "Columns": 65535},
        {"ImagePositionPatient": [0, 0]},
        {"PhotometricInterpretation": None},
    ],
)
def test_impossible_headers_are_refused_without_allocating(tmp_path, overrides):
    with pytest.raises(UnreadableFileError):
        read_scan(one(tmp_path, **overrides))


def test_bad_number_text_in_a_needed_element_is_refused_and_elsewhere_ignored(tmp_path):
    path = one(tmp_path, PixelSpacing=["0.75", "0.55"], SliceThickness="3.5")
    content = path.read_bytes()

    path.write_bytes(content.replace(b"0.75\\0.55", b"0,75\\0,55"))
    with pytest.raises(UnreadableFileError, match="PixelSpacing"):
        read_scan(path)
    path.write_bytes(content.replace(b"3.5 ", b"3,5 "))
    assert any("SliceThickness" in note for note in read_scan(path).notes)


@pytest.mark.parametrize("keep", [140, 300, 700, -200, -1])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, keep):
    path = one(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(UnreadableFileError, match=r"truncated|missing|elements"):
        read_scan(path)


def test_trailing_bytes_are_noted(tmp_path):
    path = one(tmp_path)
    path.write_bytes(path.read_bytes() + b"rubbish!" * 4)

    assert any("32 bytes after" in note for note in read_scan(path).notes)


def compressed(tmp_path, frame: bytes, syntax: str, **overrides):
    ds = make_dataset(make_scan(), 0, **overrides)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].is_undefined_length = True
    return save_dataset(tmp_path / "packed.dcm", ds, syntax)


def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    ds = compress(make_dataset(make_scan((1, 64, 70)), 0), "1.2.840.10008.1.2.4.90")
    ds.Rows = 65

    with pytest.raises(UnreadableFileError, match="65 × 70 × 1, the compressed frame 64 × 70 × 1"):
        read_scan(save_dataset(tmp_path / "a.dcm", ds, "1.2.840.10008.1.2.4.90"))


def test_a_jpeg_2000_bomb_is_refused(tmp_path):
    size = struct.pack(">HHIIIIIIIIHBBB", 41, 0, 60000, 60000, 0, 0, 60000, 60000, 0, 0, 1, 15, 1, 1)
    frame = b"\xff\x4f\xff\x51" + size + b"\xff\xd9"

    with pytest.raises(UnreadableFileError, match=r"inflates|memory|hold"):
        read_scan(compressed(tmp_path, frame, "1.2.840.10008.1.2.4.90", Rows=60000, Columns=60000))


def test_rubbish_in_place_of_a_compressed_frame_is_refused(tmp_path):
    for syntax in (RLE, "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.50"):
        with pytest.raises(UnreadableFileError):
            read_scan(compressed(tmp_path, bytes(range(200)), syntax))


def test_compressed_pixels_without_their_closing_delimiter_are_refused(tmp_path):
    ds = compress(make_dataset(make_scan(), 0), RLE)
    path = save_dataset(tmp_path / "a.dcm", ds, RLE)
    path.write_bytes(path.read_bytes()[:-8])

    with pytest.raises(UnreadableFileError, match="closing delimiter"):
        read_scan(path)


def test_an_unknown_compression_is_named(tmp_path):
    with pytest.raises(UnreadableFileError, match="MPEG2"):
        read_scan(compressed(tmp_path, b"\0" * 64, "1.2.840.10008.1.2.4.100"))


def test_a_deflate_bomb_stops_at_the_limit(tmp_path):
    path = one(tmp_path, syntax=DEFLATED)
    content = path.read_bytes()
    start = 144 + struct.unpack("<I", content[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = b"".join([packer.compress(bytes(1 << 24)) for _ in range(20)] + [packer.flush()])
    path.write_bytes(content[:start] + body)

    with pytest.raises(UnreadableFileError, match="inflates beyond 256 MiB"):
        read_scan(path)


@pytest.mark.parametrize("depth", [70, 400, 20000])
@pytest.mark.parametrize("has_length", [True, False])
def test_sequences_nested_too_deep_are_refused(tmp_path, depth, has_length):
    path = one(tmp_path)
    content = path.read_bytes()
    inner = b""
    if has_length:
        for _ in range(min(depth, 4000)):  # each level adds 20 bytes around what is inside
            inner = (
                b"\x09\x00\x10\x10SQ\0\0"
                + struct.pack("<I", len(inner) + 8)
                + b"\xfe\xff\x00\xe0"
                + struct.pack("<I", len(inner))
                + inner
            )
    else:
        opening = b"\x09\x00\x10\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        closing = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
        inner = opening * depth + closing * depth
    at = content.index(b"\x10\x00\x10\x00PN")
    path.write_bytes(content[:at] + inner + content[at:])

    with pytest.raises(UnreadableFileError, match="nested deeper than 64"):
        read_scan(path)


def test_objects_without_an_image_say_what_they_are(tmp_path):
    path = one(tmp_path, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR", PixelData=None)

    with pytest.raises(HoldsNoImageError, match="Basic Text SR"):
        read_scan(path)


def test_a_file_that_changes_between_header_and_pixels_is_refused(tmp_path):
    path = one(tmp_path)
    (finding,) = read_path(path, Progress())
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ChangedWhileReadingError, match="changed while"):
        finding.scan.decode()

    path.unlink()
    with pytest.raises(ChangedWhileReadingError, match="vanished"):
        finding.scan.decode()


def test_messages_hold_no_identifier(tmp_path):
    from tests.builders import NAME, PATIENT_ID

    found = read_scan(one(tmp_path, StudyID="a very long study id of 40 letters......", RescaleType="OD"))
    text = " ".join(found.notes) + found.series_key

    assert found.notes
    assert NAME.split("^")[0] not in text
    assert PATIENT_ID not in text
    assert found.source.patient_name == NAME


@pytest.mark.parametrize(
    ("charset", "name"), [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 144", "Люкceмбypг"), ("ISO_IR 192", "山田^太郎")]
)
def test_names_are_decoded_with_their_character_set(tmp_path, charset, name):
    found = read_scan(one(tmp_path, SpecificCharacterSet=charset, PatientName=name))

    assert found.source.patient_name == name
    assert found.notes == ("One slice without thickness: 1 mm is assumed.",)


def test_an_undecodable_name_becomes_a_note(tmp_path):
    path = one(tmp_path, SpecificCharacterSet="ISO_IR 192", PatientName="abcd")
    path.write_bytes(path.read_bytes().replace(b"abcd", b"a\xff\xfed"))
    found = read_scan(path)

    assert "\ufffd" in found.source.patient_name
    assert any("character set" in note for note in found.notes)


def test_the_reader_agrees_with_pydicom(tmp_path):
    write_dicom_series(tmp_path, make_scan())
    found = read_scan(tmp_path)
    for z, path in enumerate(sorted(tmp_path.iterdir())):
        ds = dcmread(path)
        place = np.array(ds.ImagePositionPatient, dtype=float) * (-1, -1, 1)
        assert np.allclose(found.geometry.to_mm(np.array([z, 0, 0])), place)
        assert np.array_equal(found.stored[z], ds.pixel_array)


def test_ultrasound_is_as_large_as_its_region_says(tmp_path):
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # cm
    region.PhysicalDeltaX, region.PhysicalDeltaY, region.RegionSpatialFormat = 0.05, -0.04, 1
    scan = Scan(make_scan().stored, None, "US")
    path = one(tmp_path, scan, SequenceOfUltrasoundRegions=Sequence([region]))

    assert read_scan(path).pixel_spacing_mm == pytest.approx((0.4, 0.5))
    assert read_scan(one(tmp_path, scan)).pixel_spacing_mm is None
