"""The comparison of simulated and real noise tells like from unlike."""

import numpy as np
import pytest
from scipy import ndimage

from medapp.benchmarks.degradations import ct_rows, matte_rows, mr_rows
from medapp.benchmarks.noise_texture import flat_places, texture_of
from medapp.benchmarks.real_noise import denoising_rows
from medapp.restoration.kspace import zero_filled
from medapp.training.degradations.ct import Scanner, noise_fields
from tests.training.places import picture, save_manifest, save_nifti


def _pieces(smoothing_px=0.0, count=20, sigma=5.0, slope=0.0):
    random = np.random.default_rng(0)
    pieces = []
    for _ in range(count):
        noise = random.standard_normal((48, 48))
        noise = ndimage.gaussian_filter(noise, smoothing_px) if smoothing_px else noise
        pieces.append((noise / noise.std() * sigma)[12:36, 12:36] + slope * np.arange(24))
    return pieces


def test_white_noise_is_known_by_strength_grain_and_frequency():
    texture = texture_of(_pieces())
    assert texture.sigma == pytest.approx(5.0, rel=0.05)
    assert texture.mean_frequency == pytest.approx(0.33, abs=0.02)
    assert texture.grain_px < 0.7
    assert texture_of(_pieces(slope=3.0)).sigma == pytest.approx(5.0, rel=0.05)  # shading is no noise


def test_smoother_noise_has_coarser_grain_and_power_elsewhere():
    white, smooth, same = texture_of(_pieces()), texture_of(_pieces(1.5)), texture_of(_pieces(1.5, sigma=50.0))
    assert smooth.grain_px > 2 * white.grain_px
    assert smooth.mean_frequency < 0.6 * white.mean_frequency
    assert white.distance(smooth) > 0.4
    assert smooth.distance(same) < 0.01
    with pytest.raises(ValueError, match="flat"):
        texture_of([])


def test_flat_windows_lie_in_flat_places_and_do_not_overlap():
    is_flat = np.zeros((100, 120), bool)
    is_flat[10:70, 20:110] = True
    places = flat_places(is_flat)
    covered = np.zeros(is_flat.shape, int)
    for place in places:
        covered[place] += 1
    assert 3 <= len(places) <= 6
    assert covered.max() == 1
    assert not covered[~is_flat].any()
    assert len(flat_places(is_flat, most=2)) == 2


def test_noise_of_a_sharp_kernel_is_recognised(tmp_path):
    y, x = np.mgrid[:160, :160] - 79.5
    disc = np.where(y**2 + x**2 < 66**2, 40.0, -1000.0)
    slices = [disc + noise_fields(disc, 1.0, (0.5,), Scanner(120, "ramp"), str(n))[0] for n in range(2)]
    save_nifti(tmp_path / "ct/p_ct.nii.gz", slices)
    save_manifest(tmp_path, [("ct/p_ct.nii.gz", "CT", "train", "phantom, kernel SHARP, kVp 120")])

    (row,) = ct_rows(tmp_path)
    assert row["compared"] == "CT noise, SHARP"
    assert row["nearest_filter"] in ("ramp", "hann and 0.8 ramp")
    assert row["power_elsewhere"]["ramp"] < 0.15 < row["power_elsewhere"]["hann"]


def test_an_interpolated_mr_scan_is_told_from_a_full_one(tmp_path):
    random = np.random.default_rng(1)
    full = [picture(n, 96) + 8 * random.standard_normal((96, 104)) for n in range(2)]
    save_nifti(tmp_path / "mri/full/a_t1.nii.gz", full)
    save_nifti(tmp_path / "mri/filled/b_t1.nii.gz", [zero_filled(one, 2) for one in full])
    save_manifest(tmp_path, [(f"mri/{name}_t1.nii.gz", "MR T1", "train") for name in ("full/a", "filled/b")])

    filled, whole = mr_rows(tmp_path)
    assert (filled["compared"], whole["compared"]) == ("MR k-space, filled", "MR k-space, full")
    assert filled["ends_at"] <= 0.6 < whole["ends_at"]
    assert filled["lost_contrast_percent"]["x2"] < 0.5 < whole["lost_contrast_percent"]["x2"]


def test_without_observers_there_is_nothing_to_compare(tmp_path):
    assert list(matte_rows(tmp_path)) == []


def test_noise_left_by_a_filter_is_told_for_real_and_simulated_noise(tmp_path, monkeypatch):
    y, x = np.mgrid[:128, :128] - 63.5
    disc = np.where(y**2 + x**2 < 54**2, 40.0, -1000.0)
    random = np.random.default_rng(0)
    slices = [disc + ndimage.gaussian_filter(random.standard_normal(disc.shape), 0.6) * 40 for _ in range(8)]
    save_nifti(tmp_path / "ct/sts/p_ct.nii.gz", slices)
    save_manifest(tmp_path, [("ct/sts/p_ct.nii.gz", "CT", "train", "low-dose CT with real noise")])
    monkeypatch.setattr("medapp.paths.shipped_models_dir", lambda: tmp_path / "none")

    (row,) = denoising_rows(tmp_path)
    assert row["compared"] == "noise left by non-local means"
    assert row["real_sigma_hu"][0] == pytest.approx(row["simulated_sigma_hu"][0], rel=0.1)
    assert 0 < row["real_left"] < 0.8
    assert 0 < row["simulated_left"] < 0.8
