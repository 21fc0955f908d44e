"""Simulated low dose behaves like a scanner."""

import numpy as np
import pytest

from medapp.training.degradations.ct import (
    WATER_PER_MM,
    Scanner,
    back_project,
    forward_project,
    low_dose,
    mixed_low_dose,
    noise_fields,
    pixel_seed,
)

QUICK = Scanner(views=90)


def _disc(side=96, radius=36):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.where(y**2 + x**2 < radius**2, 0.0, -1000.0).astype(np.float32)


def test_a_ray_through_water_is_attenuated_by_its_length():
    paths = forward_project(_disc(), spacing_mm=2.0, views=30)
    assert paths.max() == pytest.approx(72 * 2.0 * WATER_PER_MM, rel=0.03)
    assert paths[:, :3].max() == 0.0


@pytest.mark.parametrize("kernel", ["ramp", "hann"])
def test_projection_and_reconstruction_give_water_back(kernel):
    disc = _disc()
    paths = forward_project(disc, 2.0, 180).astype(np.float32)
    attenuation = back_project(paths[None], disc.shape, 2.0, kernel)[0]
    assert attenuation[40:56, 40:56].mean() == pytest.approx(WATER_PER_MM, rel=0.05)
    assert abs(attenuation[:8, :8].mean()) < 0.05 * WATER_PER_MM


def test_the_same_pixels_get_the_same_noise_and_others_do_not():
    disc = _disc()
    first = low_dose(disc, 1.5, 0.25, QUICK)
    np.testing.assert_array_equal(low_dose(disc.copy(), 1.5, 0.25, QUICK), first)
    assert not np.array_equal(low_dose(disc, 1.5, 0.25, QUICK, tag="other"), first)
    disc[0, 0] += 1
    assert pixel_seed(disc) != pixel_seed(_disc())


def test_noise_grows_with_the_root_of_the_dose_reduction_and_with_thickness():
    body = _disc() > -500
    quarter, tenth = (field[body].std() for field in noise_fields(_disc(), 1.0, (0.25, 0.1), QUICK))
    assert tenth / quarter == pytest.approx(np.sqrt(2.5), rel=0.1)
    thick = noise_fields(_disc(), 3.0, (0.25,), QUICK)[0][body].std()
    assert thick > 2 * quarter * (1.0 / 3.0)  # coarser pixels alone would lower it


def test_noise_shifts_no_values():
    noise = noise_fields(_disc(), 2.0, (0.25,), QUICK)[0]
    assert abs(noise[_disc() > -500].mean()) < 1.0


def test_the_soft_kernel_is_calmer_than_the_sharp_one():
    soft, sharp = (noise_fields(_disc(), 2.0, (0.25,), Scanner(90, kernel))[0].std() for kernel in ("hann", "ramp"))
    assert soft < 0.6 * sharp


def test_starved_rays_stay_finite():
    assert np.isfinite(low_dose(np.full((64, 64), 3000.0), 8.0, 0.01, QUICK)).all()


def test_a_kernel_that_ends_earlier_is_calmer_still_and_one_that_ends_late_is_the_same():
    plain, early, late = (
        noise_fields(_disc(), 1.0, (0.25,), Scanner(90, "hann", cutoff))[0] for cutoff in (None, 0.25, 9.0)
    )
    np.testing.assert_array_equal(plain, late)
    assert early.std() < 0.8 * plain.std()

    def fine(noise):
        return np.abs(np.fft.rfft2(noise))[30:66].mean()  # rows beyond 0.3 per mm

    assert fine(early) < 0.2 * fine(plain)


def test_mixed_kernels_see_the_same_photons():
    disc = _disc()
    sharp, soft = (low_dose(disc, 2.0, 0.25, Scanner(90, kernel)) for kernel in ("ramp", "hann"))
    half = mixed_low_dose(disc, 2.0, 0.25, 0.5, QUICK)
    np.testing.assert_allclose(half, (sharp + soft) / 2, atol=0.01)
    np.testing.assert_allclose(mixed_low_dose(disc, 2.0, 0.25, 0.0, QUICK), soft, atol=0.01)
