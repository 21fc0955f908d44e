"""The figures mean what their names say."""

import numpy as np
import pytest
from scipy import ndimage as ndi
from skimage.metrics import structural_similarity

from medapp.restoration import metrics


def _torso():
    y, x = np.mgrid[:160, :200]
    values = np.full((160, 200), -1000.0, np.float32)
    values[((y - 80) / 60) ** 2 + ((x - 100) / 80) ** 2 < 1] = 40.0
    values[((y - 80) / 30) ** 2 + ((x - 60) / 20) ** 2 < 1] = -850.0  # a lung
    values[150:152, 20:180] = 100.0  # the table
    return values


def test_psnr_of_a_known_error():
    reference = np.zeros((20, 20))
    assert metrics.psnr_db(reference + 4.0, reference, (-160, 240)) == pytest.approx(40.0)
    assert metrics.psnr_db(reference, reference, (-160, 240)) == float("inf")


def test_errors_outside_of_the_window_or_the_mask_do_not_count():
    reference = np.zeros((20, 20))
    restored = reference.copy()
    restored[0, 0] = 50.0
    reference[1, 1], restored[1, 1] = 1000.0, 2000.0
    mask = np.ones((20, 20), bool)
    mask[0, 0] = False
    assert metrics.rmse(restored, reference, (-160, 240), mask) == 0.0


def test_ssim_agrees_with_scikit_image():
    random = np.random.default_rng(0)
    reference = ndi.gaussian_filter(random.normal(size=(80, 90)), 3) * 500
    restored = reference + random.normal(size=reference.shape) * 20
    ours = metrics.ssim(restored, reference, (-1000, 1000))
    theirs = structural_similarity(
        restored, reference, data_range=2000, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1].mean()
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_the_body_includes_the_lungs_and_leaves_the_table_out():
    body = metrics.body_mask(_torso())
    assert body[80, 60]
    assert body[80, 120]
    assert not body[151, 100]
    assert not body[5, 5]
    assert not metrics.body_mask(np.full((50, 50), -1000.0)).any()


@pytest.mark.parametrize("sigma", [3.0, 20.0])
def test_noise_is_measured_beside_edges(sigma):
    noisy = _torso() + np.random.default_rng(0).normal(0, sigma, (160, 200))
    assert metrics.slice_noise(noisy) == pytest.approx(sigma, rel=0.1)


def test_a_shift_in_flat_tissue_is_bias_and_noise_is_not():
    reference = _torso()
    noise = np.random.default_rng(0).normal(0, 10, reference.shape)
    assert metrics.flat_bias(reference + noise + 1.5, reference, metrics.soft_tissue(reference)) == pytest.approx(
        1.5, abs=0.3
    )


def test_blurred_edges_are_wider():
    reference = ndi.gaussian_filter(_torso(), 0.7)
    blurred = ndi.gaussian_filter(reference, 2.0)
    assert metrics.edge_width_px(blurred, reference) > 1.3 * metrics.edge_width_px(reference, reference)


def test_noise_power_is_the_variance_in_flat_regions_and_its_frequency_tells_grain_from_blotches():
    reference = _torso()
    judging = metrics.judging_of(reference, "CT")
    grain = np.random.default_rng(0).normal(0, 10, reference.shape)
    blotches = ndi.gaussian_filter(grain, 2)
    assert metrics.noise_power(reference + grain, judging.flat) == pytest.approx(100, rel=0.1)
    fine, coarse = (metrics.noise_frequency(reference + noise, judging.flat) for noise in (grain, blotches))
    assert 0.3 < fine < 0.45  # white noise: the mean distance from the middle of the spectrum
    assert coarse < 0.5 * fine


def test_images_without_a_unit_are_judged_in_percent_of_their_own_range():
    y, x = np.mgrid[:100, :100]
    reference = np.where(np.hypot(y - 50, x - 50) < 35, 800.0, 0.0)
    judging = metrics.judging_of(reference, "MR")
    assert judging.limits == (0.0, 800.0)
    assert judging.unit != "HU"
    assert judging.per_native == pytest.approx(100 / 800)
    assert judging.body[50, 50]
    assert not judging.body[5, 5]
    assert judging.flat.sum() < judging.body.sum()
    assert metrics.judging_of(_torso(), "CT").limits == metrics.CT_DISPLAY_WINDOW


def test_off_the_border_is_the_body_without_its_cut():
    reference = np.pad(np.full((60, 80), 500.0), ((20, 0), (0, 0)))  # the body goes on below and beside the slice
    judging = metrics.judging_of(reference, "MR")
    assert judging.body[79, 40]
    assert not judging.inner[79, 40]
    assert judging.inner[40, 40]
    small = metrics.judging_of(np.pad(np.full((10, 20), 500.0), 3), "MR")
    assert small.inner.any()


def test_pet_is_judged_in_suv_where_there_is_uptake():
    limb = np.zeros((30, 34), np.float32)
    limb[8:22, 8:26] = 0.5
    limb[12:16, 12:16] = 7.0
    judging = metrics.judging_of(limb, "PT")
    assert judging.unit == "SUV"
    assert judging.limits == (0.0, 7.0)
    assert judging.body[14, 14]
    assert judging.body[10, 20]
    assert not judging.body[2, 2]
    assert metrics.judging_of(limb / 100, "PT").body.all()  # next to no uptake: there is nothing to leave out
