"""Padding keeps what there is where it is, and a flow survives padding and un-padding at every level."""

from __future__ import annotations

import pytest
import torch

from geossl.geometry.pixels import pixel_grid
from geossl.networks.padding import pad_to_multiple, unpad, unpad_flow


@pytest.mark.parametrize(("height", "width", "minimum", "padded"), [(5, 9, 1, (8, 16)), (1, 1, 24, (24, 24))])
def test_pad_to_multiple_repeats_the_last_row_and_column(
    height: int, width: int, minimum: int, padded: tuple[int, int]
) -> None:
    image = torch.rand(3, 2, height, width)
    result = pad_to_multiple(image, 8, minimum)
    assert tuple(result.shape) == (3, 2, *padded)
    rows = torch.arange(padded[0]).clamp(max=height - 1)
    columns = torch.arange(padded[1]).clamp(max=width - 1)
    assert torch.equal(result, image[:, :, rows][..., columns])


def test_pad_to_multiple_leaves_what_fits() -> None:
    image = torch.rand(1, 3, 8, 24)
    assert pad_to_multiple(image, 8) is image


@pytest.mark.parametrize("size", [(96, 72), (40, 65), (33, 128)])
@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16, 32])
def test_unpad_flow_of_a_linear_flow_is_that_flow(size: tuple[int, int], factor: int) -> None:
    """A flow du = 0.1 u + 3, dv = -0.2 v of the full image, as every map on either grid must say it."""
    h, w = size
    full_h, full_w = (-(-n // 64) * 64 for n in size)

    def linear(rows: int, columns: int, span_h: float, span_w: float) -> torch.Tensor:
        """In pixels of a map whose pixels are span / count full-size pixels large."""
        ratio = torch.tensor([span_w / columns, span_h / rows], dtype=torch.float64).view(2, 1, 1)
        place = (pixel_grid(rows, columns, dtype=torch.float64) + 0.5) * ratio - 0.5
        return (torch.stack([0.1 * place[0] + 3, -0.2 * place[1]]) / ratio)[None]

    flow = linear(full_h // factor, full_w // factor, full_h, full_w)
    result = unpad_flow(flow, (full_h, full_w), size)
    kept = (-(-h // factor), -(-w // factor))
    assert tuple(result.shape) == (1, 2, *kept)
    expected = linear(*kept, h, w)
    inside = (slice(None), slice(None), slice(1, None), slice(1, None))  # the first centre may lie outside the old one
    torch.testing.assert_close(result[inside], expected[inside])


def test_unpad_flow_cuts_where_the_level_divides_the_size() -> None:
    flow = torch.randn(2, 2, 16, 32)
    assert torch.equal(unpad_flow(flow, (64, 128), (48, 100)), flow[..., :12, :25])


@pytest.mark.parametrize("factor", [1, 8, 32])
def test_unpad_of_a_map_linear_in_the_image_is_that_map(factor: int) -> None:
    """Three channels 0.1 u, v and 5 of the full image keep their values at every level."""
    size, padded = (40, 100), (64, 128)

    def linear(rows: int, columns: int, span: tuple[int, int]) -> torch.Tensor:
        ratio = torch.tensor([span[1] / columns, span[0] / rows], dtype=torch.float64).view(2, 1, 1)
        u, v = (pixel_grid(rows, columns, dtype=torch.float64) + 0.5) * ratio - 0.5
        return torch.stack([0.1 * u, v, torch.full_like(u, 5)])[None]

    result = unpad(linear(64 // factor, 128 // factor, padded), padded, size)
    expected = linear(-(-40 // factor), -(-100 // factor), size)
    inside = (slice(None), slice(None), slice(1, None), slice(1, None))
    torch.testing.assert_close(result[inside], expected[inside])


def test_unpad_flow_at_a_32nd_as_documented() -> None:
    flow = torch.ones(1, 2, 2, 4)
    result = unpad_flow(flow, (64, 128), (64, 100))
    torch.testing.assert_close(result[:, 0], torch.full((1, 2, 4), 32 / 25))
    torch.testing.assert_close(result[:, 1], torch.ones(1, 2, 4))
