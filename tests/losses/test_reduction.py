import pytest
import torch

from geossl.losses.reduction import (
    masked_mean,
    mean_over_all,
    sequence_weights,
    share_of,
    sum_over_twice_kept,
    unless_hidden,
)

ERRORS = torch.tensor([1.0, 3.0, 5.0, 7.0]).view(1, 1, 1, 4)
FIRST_TWO = torch.tensor([True, True, False, False]).view(1, 1, 1, 4)


def test_normalisers_worked_number() -> None:
    assert masked_mean(ERRORS, FIRST_TWO).item() == pytest.approx(2.0)
    assert mean_over_all(ERRORS, FIRST_TWO).item() == pytest.approx(1.0)
    assert sum_over_twice_kept(ERRORS, FIRST_TWO).item() == pytest.approx(1.0)


def test_normalisers_of_two_channels() -> None:
    both = ERRORS.expand(1, 2, 1, 4)
    assert masked_mean(both, FIRST_TWO).item() == pytest.approx(2.0)
    assert mean_over_all(both, FIRST_TWO).item() == pytest.approx(1.0)
    assert sum_over_twice_kept(both, FIRST_TWO).item() == pytest.approx(2.0)  # counts pixels, not values


def test_normalisers_weigh_by_soft_visibility() -> None:
    soft = torch.tensor([1.0, 0.5, 0.0, 0.0]).view(1, 1, 1, 4)
    assert masked_mean(ERRORS, soft).item() == pytest.approx(2.5 / 1.5)
    assert mean_over_all(ERRORS, soft).item() == pytest.approx(2.5 / 4)
    assert sum_over_twice_kept(ERRORS, soft).item() == pytest.approx(2.5 / 3)


@pytest.mark.parametrize("normaliser", [masked_mean, mean_over_all, sum_over_twice_kept])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_normalisers_of_nothing_are_zero_with_finite_gradient(normaliser, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    x = torch.tensor([torch.inf, torch.nan, 1.0, 2.0]).view(1, 1, 1, 4).expand(3, 2, 5, 4).clone().requires_grad_()
    mean = normaliser(x, torch.zeros(3, 1, 5, 4, dtype=dtype))
    mean.backward()
    assert mean.item() == 0 and x.grad is not None and x.grad.abs().max() == 0


@pytest.mark.parametrize("normaliser", [masked_mean, mean_over_all, sum_over_twice_kept])
def test_normalisers_refuse_a_keep_that_would_broadcast(normaliser) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"keep has shape \(3, 4, 5\) for a map of \(3, 3, 4, 5\)"):
        normaliser(torch.rand(3, 3, 4, 5), torch.ones(3, 4, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="Add a channel axis"):
        normaliser(torch.rand(3, 4, 5), torch.ones(3, 4, 5, dtype=torch.bool))


def test_share_of_is_a_detached_share() -> None:
    assert share_of(FIRST_TWO).item() == 0.5
    soft = torch.full((1, 1, 2, 3), 0.25, requires_grad=True)
    assert share_of(soft).item() == 0.25 and not share_of(soft).requires_grad


@pytest.mark.parametrize(("pixels", "kept"), [(0, False), (1, False), (2, True), (100, True)])
def test_unless_hidden_skips_a_term_below_two_percent(pixels: int, kept: bool) -> None:
    x = torch.ones(1, 1, 10, 10, requires_grad=True)
    visible = (torch.arange(100) < pixels).view(1, 1, 10, 10)
    term = unless_hidden(masked_mean(x, visible), visible)
    term.backward()
    assert x.grad is not None and (term.item() > 0) is kept and bool(x.grad.abs().max() > 0) is kept


def test_sequence_weights_end_at_one() -> None:
    assert sequence_weights(3) == pytest.approx((0.64, 0.8, 1.0))
    assert sequence_weights(1, 0.5) == (1.0,)
