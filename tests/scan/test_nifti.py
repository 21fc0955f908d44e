"""NIfTI against nibabel, and every rule about what it says of its own geometry."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from medapp.errors import UnreadableFileError
from medapp.scan.reading import read_all, read_scan
from tests.builders import make_values

AFFINE = np.array([[-0.7, 0.1, 0, 40], [0.1, 0.7, 0, -30], [0, 0, 2.5, 11], [0, 0, 0, 1]])
SHAPE = (6, 5, 4)  # x, y, z


def data(dtype=np.int16) -> np.ndarray:
    return make_values(SHAPE[::-1]).transpose(2, 1, 0).astype(dtype)


def save(path, values, affine=AFFINE, kind=nib.Nifti1Image, **header):
    image = kind(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def patched(path, offset: int, content: bytes):
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(content)] = content
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
def test_values_and_place_are_those_of_nibabel(tmp_path, kind, name, dtype):
    values = data(np.int16) % 100
    path = save(tmp_path / name, values.astype(dtype), kind=kind)
    image, found = nib.load(path), read_scan(path)

    assert np.array_equal(found.values().transpose(2, 1, 0), image.get_fdata().astype(np.float32))
    assert np.allclose(found.geometry.affine_xyz, image.affine, atol=1e-5)
    assert found.spacing_mm == pytest.approx(image.header.get_zooms()[::-1], abs=1e-5)
    assert found.notes == ()


def test_a_pair_of_header_and_image_is_one_scan(tmp_path):
    image = nib.Nifti1Pair(data(), AFFINE)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "pair.hdr")

    assert np.array_equal(read_scan(tmp_path).stored.transpose(2, 1, 0), data())
    (tmp_path / "pair.img").unlink()
    with pytest.raises(UnreadableFileError, match=r"pair\.img is not beside"):
        read_scan(tmp_path / "pair.hdr")


def test_scaling_is_applied_and_the_slope_0_means_none(tmp_path):
    path = save(tmp_path / "a.nii", data())
    patched(path, 112, struct.pack("<ff", 2.0, -5.0))
    assert np.array_equal(read_scan(path).values().transpose(2, 1, 0), data() * 2.0 - 5)

    patched(path, 112, struct.pack("<ff", 0.0, 50.0))
    assert np.array_equal(read_scan(path).values().transpose(2, 1, 0), data())
    patched(path, 112, struct.pack("<ff", float("nan"), 0.0))
    assert any("scaling" in note for note in read_scan(path).notes)


def test_a_flipped_byte_in_the_compressed_voxels_is_noticed(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (40, 40, 20)).astype(np.int16))
    whole = bytearray(path.read_bytes())
    whole[-2000] ^= 0x10
    path.write_bytes(whole)

    with pytest.raises(UnreadableFileError, match="damaged"):
        read_scan(path)


def test_bytes_after_the_complete_member_are_noted(tmp_path):
    path = save(tmp_path / "a.nii.gz", data())
    path.write_bytes(path.read_bytes() + b"rubbish" * 50)

    assert any("after the end" in note for note in read_scan(path).notes)


def test_a_gzip_bomb_behind_a_small_header_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", data())
    path.with_suffix(".nii.gz").write_bytes(gzip.compress(path.read_bytes() + bytes(1 << 24)))

    with pytest.raises(UnreadableFileError, match="inflates beyond"):
        read_scan(path.with_suffix(".nii.gz"))


def test_four_dimensions_are_one_scan_per_volume(tmp_path):
    values = np.stack([data(), data() + 1, data() + 2], axis=-1)
    for name in ("a.nii", "a.nii.gz"):
        found = read_all(save(tmp_path / name, values))
        assert [int((scan.stored.transpose(2, 1, 0) - data()).max()) for scan in found] == [0, 1, 2]
        assert len({scan.series_key for scan in found}) == 3
        assert all("four dimensions" in scan.notes[0] for scan in found)


def test_axes_of_size_one_are_dropped_and_two_dimensions_get_a_slice(tmp_path):
    assert read_scan(save(tmp_path / "a.nii", data()[..., None, None])).shape == SHAPE[::-1]
    assert read_scan(save(tmp_path / "b.nii", data()[..., 0])).shape == (1, 5, 6)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.zeros((3, 3, 3, 2, 2), np.int16), "5 dimensions"),
        (np.zeros((3, 3, 3, 1, 3), np.float32), "vectors"),
        (np.zeros((3, 3, 3), np.complex64), "complex"),
    ],
)
def test_vectors_complex_numbers_and_more_dimensions_are_refused(tmp_path, values, word):
    with pytest.raises(UnreadableFileError, match=word):
        read_scan(save(tmp_path / "a.nii", values))


def test_colours_are_kept_with_a_note(tmp_path):
    colour = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    values = np.zeros((4, 3, 2), dtype=colour)
    values["R"], values["B"] = 200, 30
    found = read_scan(save(tmp_path / "a.nii", values))

    assert found.shape == (2, 3, 4, 3)
    assert found.stored[0, 0, 0].tolist() == [200, 0, 30]
    assert any("colours" in note for note in found.notes)


def test_voxels_that_are_no_numbers_are_masked_and_counted(tmp_path):
    values = data(np.float32)
    values[0, 0, 0], values[1, 0, 0], values[2, 0, 0] = np.nan, np.inf, -np.inf
    found = read_scan(save(tmp_path / "a.nii", values))

    assert found.padding.sum() == 3
    assert np.isfinite(found.stored).all()
    assert (found.stored[found.padding] == np.min(found.stored)).all()
    assert any("3 voxels" in note for note in found.notes)
    with pytest.raises(UnreadableFileError, match="finite"):
        read_scan(save(tmp_path / "b.nii", np.full(SHAPE, np.nan, np.float32)))


# ------------------------------------------------------------------------------------------------------- orientation


def forms(path, sform=None, qform=None):
    image = nib.Nifti1Image(data(), None)
    image.header.set_xyzt_units("mm")
    image.header.set_zooms((0.5, 0.5, 2.0))
    image.set_sform(sform, code=0 if sform is None else 1)
    image.set_qform(qform, code=0 if qform is None else 1)
    image.header["sform_code"], image.header["qform_code"] = int(sform is not None), int(qform is not None)
    nib.save(image, path)
    whole = bytearray(path.read_bytes())
    whole[252:256] = struct.pack("<hh", int(qform is not None), int(sform is not None))
    path.write_bytes(whole)
    return path


Q = np.array([[0, -0.5, 0, 4], [0.5, 0, 0, 5], [0, 0, 2, 6], [0, 0, 0, 1]])


def test_the_sform_wins_and_a_disagreement_is_noted(tmp_path):
    moved = Q.copy()
    moved[0, 3] += 1
    found = read_scan(forms(tmp_path / "a.nii", sform=moved, qform=Q))

    assert np.allclose(found.geometry.affine_xyz, moved)
    assert any("disagree" in note for note in found.notes)
    assert read_scan(forms(tmp_path / "b.nii", sform=Q, qform=Q)).notes == ()


def test_the_qform_is_used_when_it_is_alone(tmp_path):
    assert np.allclose(read_scan(forms(tmp_path / "a.nii", qform=Q)).geometry.affine_xyz, Q, atol=1e-6)


def test_without_codes_left_and_right_are_unknown(tmp_path):
    found = read_scan(forms(tmp_path / "a.nii"))

    assert found.geometry is None
    assert found.spacing_mm == pytest.approx((2.0, 0.5, 0.5))
    assert any("left and right are unknown" in note for note in found.notes)


def test_a_singular_sform_gives_way_to_the_qform(tmp_path):
    path = forms(tmp_path / "a.nii", sform=Q, qform=Q)
    patched(path, 280, struct.pack("<4f", 0, 0, 0, 0))
    found = read_scan(path)

    assert np.allclose(found.geometry.affine_xyz, Q, atol=1e-6)
    assert any("sform is not usable" in note for note in found.notes)


def test_a_form_that_is_not_finite_leaves_the_index_space(tmp_path):
    path = forms(tmp_path / "a.nii", sform=Q)
    patched(path, 280, struct.pack("<4f", float("nan"), 0, 0, 0))

    found = read_scan(path)
    assert found.geometry is None
    assert found.spacing_mm == pytest.approx((2.0, 0.5, 0.5))


def test_a_shear_is_kept_and_flagged(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 2] = 0.8
    found = read_scan(forms(tmp_path / "a.nii", sform=sheared))

    assert np.allclose(found.geometry.affine_xyz, sheared, atol=1e-6)
    assert found.geometry.is_sheared
    assert any("shear" in note for note in found.notes)


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_lengths_are_millimetres_whatever_the_unit(tmp_path, unit, scale):
    image = nib.Nifti1Image(data(), Q)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    found = read_scan(tmp_path / "a.nii")

    assert found.spacing_mm == pytest.approx((2 * scale, 0.5 * scale, 0.5 * scale))
    assert any("unit of length" in note for note in found.notes) == (unit == "unknown")


def test_a_voxel_size_of_0_is_taken_from_the_affine(tmp_path):
    path = patched(forms(tmp_path / "a.nii", sform=Q), 80, struct.pack("<3f", 0, -1, float("nan")))

    found = read_scan(path)
    assert found.spacing_mm == pytest.approx((2.0, 0.5, 0.5))
    assert any("voxel size" in note for note in found.notes)


@pytest.mark.parametrize(
    ("offset", "content"),
    [
        (40, struct.pack("<h", 9)),  # dim[0]
        (42, struct.pack("<h", 0)),  # dim[1]
        (42, struct.pack("<h", -4)),
        (42, struct.pack("<h", 32767)),  # more than the file holds
        (70, struct.pack("<h", 1)),  # a type that is not ours
        (72, struct.pack("<h", 8)),  # bits that do not fit it
        (108, struct.pack("<f", float("inf"))),  # where the voxels begin
        (108, struct.pack("<f", -8)),
        (108, struct.pack("<f", 1e9)),
    ],
)
def test_an_impossible_header_is_refused(tmp_path, offset, content):
    path = patched(save(tmp_path / "a.nii", data()), offset, content)

    with pytest.raises(UnreadableFileError):
        read_scan(path)


def test_the_modality_is_the_one_that_the_user_says(tmp_path):
    path = save(tmp_path / "a.nii", data())

    assert (read_scan(path).modality, read_scan(path).unit) == (None, "arbitrary")
    assert (read_scan(path, modality="CT").modality, read_scan(path, modality="CT").unit) == ("CT", "HU")
