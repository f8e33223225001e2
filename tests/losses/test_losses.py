import math

import numpy as np
import pytest
import torch

from geossl.losses.consistency import left_right_consistency
from geossl.losses.photometric import box_mean, l1_map, photometric_map, ssim_map
from geossl.losses.reduction import masked_mean
from geossl.losses.smoothness import edge_aware_smoothness, mean_of, second_order_smoothness


def ssim_by_loops(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(1 - SSIM) / 2 of two (H, W) images, 3x3 box windows, reflected border, from the definition."""
    a, b = np.pad(a, 1, "reflect"), np.pad(b, 1, "reflect")
    out = np.zeros((a.shape[0] - 2, a.shape[1] - 2))
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            p, q = a[y : y + 3, x : x + 3], b[y : y + 3, x : x + 3]
            covariance = ((p - p.mean()) * (q - q.mean())).mean()
            s = (2 * p.mean() * q.mean() + 0.01**2) * (2 * covariance + 0.03**2)
            s /= (p.mean() ** 2 + q.mean() ** 2 + 0.01**2) * (p.var() + q.var() + 0.03**2)
            out[y, x] = np.clip((1 - s) / 2, 0, 1)
    return out


@pytest.mark.parametrize("size", [(3, 3), (5, 8)])
def test_box_mean_equals_avg_pool_and_its_gradient(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(box_mean(x), torch.nn.functional.avg_pool2d(x, 3, stride=1))
    assert torch.autograd.gradcheck(box_mean, x)


def test_ssim_map_equals_the_definition() -> None:
    a, b = torch.rand(2, 1, 1, 6, 9, dtype=torch.float64)
    assert np.allclose(ssim_map(a, b)[0, 0].numpy(), ssim_by_loops(a[0, 0].numpy(), b[0, 0].numpy()))


def test_ssim_map_of_constants_closed_form() -> None:
    # Two constant images p, q: SSIM = (2pq + C1) / (p^2 + q^2 + C1).
    p, q = 0.2, 0.6
    expected = (1 - (2 * p * q + 1e-4) / (p * p + q * q + 1e-4)) / 2
    got = ssim_map(torch.full((1, 3, 5, 5), p), torch.full((1, 3, 5, 5), q))
    assert got.max().item() == pytest.approx(expected, rel=1e-4)
    assert got.min().item() == pytest.approx(expected, rel=1e-4)


def test_ssim_map_is_not_touched_by_autocast() -> None:
    # A bright patch of low texture: in bfloat16 the variance cancels and the loss is several times too large.
    a = 0.9 + 0.01 * torch.randn(1, 3, 16, 16)
    b = 0.9 + 0.01 * torch.randn(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ssim_map(a, b)
    assert torch.equal(inside, ssim_map(a, b))


def test_photometric_map_weights_and_identity() -> None:
    a, b = torch.rand(2, 2, 3, 6, 6)
    assert photometric_map(a, a).abs().max() < 1e-6
    expected = 0.85 * ssim_map(a, b).mean(1, keepdim=True) + 0.15 * (a - b).abs().mean(1, keepdim=True)
    assert torch.allclose(photometric_map(a, b), expected)
    assert torch.equal(photometric_map(a, b, 0.0), l1_map(a, b))
    apart = 0.4 * ssim_map(a, b).mean(1, keepdim=True) + 3 * l1_map(a, b)
    assert torch.allclose(photometric_map(a, b, 0.4, 3.0), apart)


def test_losses_gradcheck() -> None:
    a = (torch.rand(1, 3, 5, 6, dtype=torch.float64) * 0.5).requires_grad_()
    b = torch.rand(1, 3, 5, 6, dtype=torch.float64) * 0.5 + 0.5
    assert torch.autograd.gradcheck(lambda x: photometric_map(x, b), a)


def test_edge_aware_smoothness_of_a_ramp_closed_form() -> None:
    ramp = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 4, 6) * 0.5
    flat = torch.zeros(1, 3, 4, 6)
    along_x, along_y = edge_aware_smoothness(ramp, flat)
    assert torch.allclose(along_x, torch.full_like(along_x, 0.5)) and along_y.abs().max() == 0
    step = flat.clone()
    step[..., 3:] = 1.0  # an image edge of 1 between columns 2 and 3 discounts the slope there by exp(-1)
    along_x, _ = edge_aware_smoothness(ramp, step)
    assert along_x[0, 0, 0].tolist() == pytest.approx([0.5, 0.5, 0.5 * math.exp(-1), 0.5, 0.5])


def test_second_order_smoothness_of_a_parabola_closed_form() -> None:
    x = torch.arange(7.0).view(1, 1, 1, 7).expand(1, 1, 5, 7)
    xx, xy, yx, yy = second_order_smoothness(x**2)
    assert torch.allclose(xx, torch.full_like(xx, 2.0))
    assert max(xy.max(), yx.max(), yy.max()) == 0
    assert mean_of(second_order_smoothness(3 * x)).item() == 0  # planes are free


def test_left_right_consistency_of_a_plane_is_zero() -> None:
    disparity = torch.full((1, 1, 3, 20), 0.1)  # a tenth of the width: 2 px
    assert left_right_consistency(disparity, disparity, "left", 20).abs().max() < 1e-6


def test_left_right_consistency_looks_at_the_corresponding_pixel() -> None:
    right = torch.zeros(1, 1, 1, 10)
    right[..., 4] = 3.0
    left = torch.full((1, 1, 1, 10), 3.0)  # left column 7 corresponds to right column 4
    difference = left_right_consistency(left, right, "left")[0, 0, 0]
    assert difference[7].item() == pytest.approx(0, abs=1e-5) and difference[6].item() == pytest.approx(3)


def test_masked_mean_ignores_the_rest_even_if_not_finite() -> None:
    x = torch.tensor([[[[1.0, 3.0, torch.inf]]]], requires_grad=True)
    keep = torch.tensor([[[[True, True, False]]]])
    mean = masked_mean(x, keep)
    assert mean.item() == pytest.approx(2.0)
    mean.backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.bool)).item() == 0
