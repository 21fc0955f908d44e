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
    assert metrics.flat_bias(reference + noise + 1.5, reference) == pytest.approx(1.5, abs=0.3)


def test_blurred_edges_are_wider():
    reference = ndi.gaussian_filter(_torso(), 0.7)
    blurred = ndi.gaussian_filter(reference, 2.0)
    assert metrics.edge_width_px(blurred, reference) > 1.3 * metrics.edge_width_px(reference, reference)


def test_the_interval_holds_the_mean_and_narrows_with_more_patients():
    few = metrics.bootstrap_interval([30.0, 31.0, 33.0])
    many = metrics.bootstrap_interval([30.0, 31.0, 33.0] * 20)
    assert few[0] < 31.33 < few[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert np.isnan(metrics.bootstrap_interval([])).all()
