"""Forward-backward consistency; the left-right form is in test_losses.py."""

import torch

from geossl.losses.consistency import forward_backward_residual


def shift(du: float, dv: float, batch: int = 3, height: int = 5, width: int = 8) -> torch.Tensor:
    return torch.tensor([du, dv], dtype=torch.float64).view(1, 2, 1, 1).repeat(batch, 1, height, width)


def test_forward_backward_residual_of_opposite_shifts_is_zero() -> None:
    residual, in_view = forward_backward_residual(shift(2.5, -1), shift(-2.5, 1))
    assert residual.abs().max() < 1e-9
    assert torch.equal(in_view[0, 0].any(0), torch.arange(8) + 2.5 <= 7)
    assert not in_view[:, :, 0].any() and in_view[:, :, 1:, :5].all()


def test_forward_backward_residual_looks_at_the_corresponding_pixel() -> None:
    backward = shift(-2, 0, batch=1)
    backward[:, :, :, 6] = torch.tensor([-1.5, 0.25], dtype=torch.float64).view(1, 2, 1)
    residual, _ = forward_backward_residual(shift(2, 0, batch=1), backward)
    at_four = residual[0, :, 2, 4]  # column 4 leads to column 6
    assert torch.allclose(at_four, torch.tensor([0.5, 0.25], dtype=torch.float64))
    assert residual[..., :4].abs().max() < 1e-9


def test_forward_backward_residual_gradients_to_both_flows() -> None:
    flow = (torch.rand(1, 2, 4, 5, dtype=torch.float64) * 0.4 + 0.3).requires_grad_()
    backward = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, b: forward_backward_residual(f, b)[0], (flow, backward))
