from typing import Literal

import pytest
import torch

from geossl.geometry.pixels import in_image, pixel_grid, sample_at_pixels


def test_pixel_grid_is_column_then_row() -> None:
    grid = pixel_grid(2, 3)
    assert grid.tolist() == [[[0, 1, 2], [0, 1, 2]], [[0, 0, 0], [1, 1, 1]]]


def test_sample_at_pixels_halfway_is_the_mean() -> None:
    image = torch.tensor([[[[0.0, 10.0, 20.0]]]])
    at = torch.tensor([0.5, 0.0]).view(1, 2, 1, 1)
    assert sample_at_pixels(image, at).item() == pytest.approx(5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (5, 1), (6, 9), (37, 121)])
def test_sampling_every_pixel_is_the_identity(height: int, width: int) -> None:
    image = torch.rand(2, 3, height, width)
    grid = pixel_grid(height, width).expand(2, -1, -1, -1)
    assert torch.allclose(sample_at_pixels(image, grid), image, atol=1e-5)
    assert in_image(grid, height, width).all()


def test_sample_at_integer_shift_is_exact() -> None:
    image = torch.rand(1, 1, 5, 8)
    shifted = sample_at_pixels(image, pixel_grid(5, 8)[None] + torch.tensor([2.0, -1.0]).view(1, 2, 1, 1), "zeros")
    assert torch.allclose(shifted[..., 1:, :6], image[..., :-1, 2:], atol=1e-5)
    assert shifted[..., 0, :].abs().max() < 1e-5  # one row above the image: zeros


def test_sample_at_pixels_repeats_the_border() -> None:
    image = torch.arange(4.0).view(1, 1, 1, 4)
    far = torch.tensor([[-5.0, 9.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    assert sample_at_pixels(image, far).flatten().tolist() == [0, 3]


def test_sample_at_pixels_stays_float32_under_autocast() -> None:
    image, grid = torch.rand(1, 3, 4, 300), pixel_grid(4, 300)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sampled = sample_at_pixels(image, grid)
        halved = sample_at_pixels(image.bfloat16(), grid)
    assert sampled.dtype == halved.dtype == torch.float32
    assert torch.allclose(sampled, image, atol=1e-4)


def test_sample_at_pixels_gradients() -> None:
    image = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    pixels = (torch.rand(1, 2, 3, 3, dtype=torch.float64) * 2 + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(sample_at_pixels, (image, pixels))


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_coordinates_that_are_not_finite_are_survived(padding: Literal["border", "zeros"]) -> None:
    """NaN gives NaN, infinity what lies outside; the gradient pass of a diverging training must not crash."""
    image = torch.rand(1, 3, 5, 7, requires_grad=True)
    pixels = torch.rand(1, 2, 5, 7).mul(4).requires_grad_()
    broken = pixels.detach().clone()
    broken[0, 0, 0, 0], broken[0, 1, 1, 1], broken[0, 0, 2, 2] = torch.nan, torch.nan, torch.inf
    sampled = sample_at_pixels(image, pixels + (broken - pixels).detach(), padding)
    sampled.nansum().backward()
    assert sampled.isnan().nonzero()[:, 2:].tolist() == [[0, 0], [1, 1]] * 3
    expected = image[0, :, :, -1] if padding == "border" else torch.zeros(3, 5)
    v = float(broken[0, 1, 2, 2])
    low = int(v)
    assert torch.allclose(sampled[0, :, 2, 2], expected[:, low] * (1 - v + low) + expected[:, low + 1] * (v - low))
    assert image.grad is not None and image.grad.isfinite().all()
