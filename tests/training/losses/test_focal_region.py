"""The focal region loss equals its definition, region by region."""

import pytest
import torch

from medapp.training.losses.focal_region import focal_region_loss


def _by_definition(restored, reference, region_map, beta):
    """One region of one image after the other, as it is written down."""
    error = (restored - reference).abs()
    weight = torch.zeros(region_map.shape, dtype=error.dtype)
    for image in range(len(error)):
        for label in region_map[image].unique():
            inside = region_map[image] == label
            weight[image][inside] = error.detach()[image][:, inside].mean()
    weight = (weight / weight.max()).clamp(0, 1)
    return (error * (1 + beta * weight[:, None])).mean()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("beta", [1e-3, 1.0])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_value_and_gradient_equal_the_definition(channels, beta, dtype):
    generator = torch.Generator().manual_seed(channels)
    reference = torch.rand(3, channels, 12, 10, generator=generator, dtype=torch.float64)
    region_map = torch.randint(0, 7, (3, 12, 10), generator=generator) * 9  # labels need not be consecutive
    region_map[1] = 0
    fast = torch.rand(3, channels, 12, 10, generator=generator, dtype=torch.float64).requires_grad_()
    slow = fast.detach().clone().requires_grad_()

    ours = focal_region_loss(fast, reference, region_map.to(dtype), beta)
    theirs = _by_definition(slow, reference, region_map, beta)
    ours.backward()
    theirs.backward()

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    torch.testing.assert_close(fast.grad, slow.grad, rtol=0, atol=1e-10)


def test_the_worst_region_of_the_batch_counts_double_at_beta_one():
    reference = torch.zeros(2, 1, 2, 2)
    restored = torch.tensor([[[[1.0, 1.0], [2.0, 2.0]]], [[[4.0, 4.0], [0.0, 0.0]]]])
    region_map = torch.tensor([[[0, 0], [1, 1]], [[0, 0], [1, 1]]])

    loss = focal_region_loss(restored, reference, region_map, beta=1.0)

    expected = (2 * 1 * 1.25 + 2 * 2 * 1.5 + 2 * 4 * 2.0) / 8
    assert float(loss) == pytest.approx(expected)


def test_a_perfect_image_gives_zero_and_no_nan():
    image = torch.rand(1, 1, 4, 4, requires_grad=True)
    loss = focal_region_loss(image, image.detach(), torch.zeros(1, 4, 4))
    loss.backward()

    assert float(loss.detach()) == 0.0
    assert torch.isfinite(image.grad).all()


def test_shapes_that_do_not_fit_are_refused():
    image = torch.rand(1, 1, 4, 4)
    with pytest.raises(ValueError, match="differ in shape"):
        focal_region_loss(image, image[..., :2], torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="region map must have the shape"):
        focal_region_loss(image, image, torch.zeros(1, 1, 4, 4))
