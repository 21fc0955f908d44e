"""Classical super-resolution: exact where it must be, and better than zeros where it can be."""

import numpy as np
import pytest
from scipy import ndimage

from medapp.restoration.interpolation import bicubic_kernel, interpolated, lanczos_kernel, resolvers
from medapp.restoration.kspace import is_measured, zero_filled


def _head():
    y, x = np.mgrid[:72, :80]
    head = np.hypot(y - 36, x - 40) < 26
    return (np.where(head, 500.0, 0.0) + 300.0 * (np.hypot(y - 30, x - 44) < 9)).astype(np.float32)


@pytest.mark.parametrize("kernel", [bicubic_kernel, lanczos_kernel])
def test_smooth_slices_come_back_from_the_coarse_grid(kernel):
    smooth = ndimage.gaussian_filter(_head(), 8, mode="wrap")
    made = interpolated(zero_filled(smooth, 2), 2, kernel)
    assert np.abs(made - smooth).max() < 0.01 * smooth.max()
    assert interpolated(np.full((40, 50), 7.0, np.float32), 4, kernel) == pytest.approx(7.0, abs=1e-4)


@pytest.mark.parametrize("factor", [2, 4])
def test_kept_frequencies_are_the_measured_ones_and_turns_of_a_filter_gain(factor):
    reference = _head()
    degraded = zero_filled(reference, factor)
    inside = is_measured(reference.shape, factor)
    errors = {}
    for method in resolvers(factor):
        made = method.run(degraded, factor)
        errors[method.name, method.keeps_measured] = float(np.square(made - reference).mean())
        if method.keeps_measured:
            change = np.fft.rfft2(made) - np.fft.rfft2(reference)
            assert np.abs(change[inside]).max() < 1e-3 * np.abs(np.fft.rfft2(reference)).max()
    zeros = float(np.square(degraded - reference).mean())
    assert errors["non-local means", True] < 0.9 * zeros
    assert errors["total variation", True] < 0.9 * zeros


def test_a_flat_slice_stays_flat():
    flat = np.full((64, 64), 3.0, np.float32)
    for method in resolvers(2):
        assert method.run(flat, 2) == pytest.approx(3.0, abs=1e-4)
