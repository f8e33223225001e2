import pytest
import torch

from geossl.losses.robust import charbonnier, power_l1


def test_charbonnier_closed_forms() -> None:
    x = torch.tensor([-3.0, 0.0, 0.5], dtype=torch.float64)
    assert torch.allclose(charbonnier(x), (x**2 + 1e-6).sqrt())
    # UnFlow's brightness term at a difference of 0.5: (127.5^2 + 1e-6)^0.45
    assert charbonnier(x, 0.45, 1e-3, 255.0)[2].item() == pytest.approx(127.5**0.9)
    assert charbonnier(x, 0.45)[1].item() == pytest.approx(1e-6**0.45)


def test_power_l1_closed_forms() -> None:
    assert power_l1(torch.tensor([0.0, -0.99, 31.99])).tolist() == pytest.approx([0.01**0.4, 1.0, 4.0])


def test_robust_gradients_are_finite_at_zero_and_far_away() -> None:
    for robust in (charbonnier, lambda x: charbonnier(x, 0.45, scale=255.0), power_l1):
        x = torch.tensor([0.0, 1e-20, -1e10], requires_grad=True)
        robust(x).sum().backward()
        assert x.grad is not None and x.grad.isfinite().all() and x.grad[0] == 0


def test_robust_gradcheck() -> None:
    x = (torch.randn(3, 4, dtype=torch.float64) + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(charbonnier, x) and torch.autograd.gradcheck(power_l1, x)


def test_robust_is_not_touched_by_autocast() -> None:
    x = torch.full((4,), 0.3, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert power_l1(x).dtype == charbonnier(x).dtype == torch.float32
