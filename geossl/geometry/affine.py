"""Affine maps of the image plane, applied to images, flow and visibility together.

A map A (B, 3, 3) takes pixels of an image to pixels of the mapped image of the same size: x' = A x, last row
(0, 0, 1). With `A_first` and `A_second` for the two images of a pair, the flow of the mapped pair is
f'(x') = A_second (x + f(x)) - x' at x = A_first^-1 x'.

A worked number: both images zoomed by 2 about pixel (10, 0), flow (3, 0): the mapped flow is (6, 0); the second moved
1 px to the right besides: (7, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geossl.geometry.pixels import in_image, pixel_grid_like, sample_at_pixels
from geossl.geometry.precision import float32_island


@dataclass(frozen=True)
class AffineRange:
    """What `draw_affine` draws from, uniformly.

    Attributes:
        zoom: Least and greatest magnification about the image's centre.
        translation: Greatest shift to either side, as a share of the width and of the height.
        rotation: Greatest turn to either side about the centre, radians.
        squeeze: Least and greatest factor that widens the image, while its height is divided by it.
    """

    zoom: tuple[float, float] = (1.0, 1.0)
    translation: float = 0.0
    rotation: float = 0.0
    squeeze: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class AffinePairRange:
    """Ranges of the map of both images of a pair, and of one that is applied to the second image after it."""

    both: AffineRange
    second: AffineRange


# Liu et al. (ARFlow), CVPR 2020, released configurations, whose translations are quarters of the size: halves of
# coordinates from -1 to 1.
ARFLOW_KITTI = AffinePairRange(
    both=AffineRange(zoom=(1.0, 1.4), translation=0.01, rotation=0.01),
    second=AffineRange(zoom=(0.99, 1.01), translation=0.00125, rotation=0.01),
)
ARFLOW_SINTEL = AffinePairRange(
    both=AffineRange(zoom=(1.0, 1.5), translation=0.05, rotation=0.2, squeeze=(0.86, 1.16)),
    second=AffineRange(zoom=(0.985, 1.015), translation=0.00375, rotation=0.015),
)


def draw_affine(
    batch_size: int, size: tuple[int, int], limits: AffineRange, generator: torch.Generator | None = None
) -> Tensor:
    """Draws a map for every sample.

    Args:
        batch_size: B. size: (height, width) of the images.
        limits: What to draw from.
        generator: On the CPU; None is torch's global one.

    Returns:
        (B, 3, 3) float32 on the CPU.

    Differs: ARFlow redraws until the view lies inside the image; here what lies outside is marked as hidden, so that
        no draw waits for the device.
    """
    share = torch.rand(5, batch_size, generator=generator, dtype=torch.float64)
    zoom = limits.zoom[0] + (limits.zoom[1] - limits.zoom[0]) * share[0]
    squeeze = limits.squeeze[0] + (limits.squeeze[1] - limits.squeeze[0]) * share[1]
    rotation = limits.rotation * (2 * share[2] - 1)
    shift = limits.translation * (2 * share[3:] - 1) * torch.tensor([[size[1]], [size[0]]])  # (2, B) pixels
    return similarity(zoom * squeeze, zoom / squeeze, rotation, shift.T, size).float()


@float32_island
def draw_affine_pair(
    batch_size: int, size: tuple[int, int], limits: AffinePairRange, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """`draw_affine` for the first and the second images of pairs, the second's being the first's and more."""
    A_first = draw_affine(batch_size, size, limits.both, generator)
    return A_first, draw_affine(batch_size, size, limits.second, generator) @ A_first


def draw_zoom(batch_size: int, size: tuple[int, int], most: float, generator: torch.Generator | None = None) -> Tensor:
    """Draws a map for every sample that enlarges a window of the image, all of it inside, to the image's size.

    The window's side is a share s in [1 - most, 1] of the image's, its corner anywhere. Both are as if s were uniform
    and the middle's shift uniform in +-most / 2 of each side, drawn again until the window is inside: s then has a
    density that grows as (1 - s)^2, and needs no second draw.

    Args:
        batch_size: B. size: (height, width) of the images. most: Of the side that is cut away; 0 changes nothing.
        generator: On the CPU; None is torch's global one.

    Returns:
        (B, 3, 3) float32 on the CPU, pixels of an image to pixels of the window's.

    Source: Hur and Roth, CVPR 2020, released code (most = 0.07).
    """
    share = torch.rand(3, batch_size, generator=generator, dtype=torch.float64)
    zoom = 1 / (1 - most * share[0].pow(1 / 3))
    spans = torch.tensor([[size[1] - 1], [size[0] - 1]], dtype=torch.float64)
    shift = (zoom - 1) * spans * (share[1:] - 0.5)  # (2, B) pixels
    return similarity(zoom, zoom, torch.zeros_like(zoom), shift.T, size).float()


def similarity(scale_x: Tensor, scale_y: Tensor, rotation: Tensor, shift: Tensor, size: tuple[int, int]) -> Tensor:
    """The map that scales, then turns about the image's centre, then shifts.

    Args:
        scale_x, scale_y: (B,) magnifications. rotation: (B,) radians, from the u axis (right) towards the v axis
            (down). shift: (B, 2) pixels. size: (height, width).

    Returns:
        (B, 3, 3).
    """
    centre = shift.new_tensor([(size[1] - 1) / 2, (size[0] - 1) / 2])
    cos, sin = rotation.cos(), rotation.sin()
    linear = torch.stack([cos * scale_x, -sin * scale_y, sin * scale_x, cos * scale_y], dim=1).view(-1, 2, 2)
    offset = centre + shift - linear @ centre  # (B, 2)
    last = shift.new_tensor([0.0, 0.0, 1.0]).expand(len(shift), 1, 3)
    return torch.cat([torch.cat([linear, offset[:, :, None]], dim=2), last], dim=1)


@float32_island
def affine_image(image: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """The image under the map.

    Args:
        image: (B, C, H, W). A: (B, 3, 3), pixels of `image` to pixels of the result.

    Returns:
        image: (B, C, H, W), border repeated outside.
        inside: (B, 1, H, W) bool, True where the result shows a place inside the image.

    Raises:
        ValueError: If A is not (B, 3, 3).
    """
    pixels = affine_pixels(_inverse(A, image), image)
    return sample_at_pixels(image, pixels), in_image(pixels, *image.shape[-2:])


@float32_island
def affine_K(K: Tensor, A: Tensor) -> Tensor:
    """(B, 3, 3) of an image -> of the image under a map that does not turn it: a turn would need a skew."""
    return A @ K


@float32_island
def affine_flow(flow: Tensor, A_first: Tensor, A_second: Tensor) -> Tensor:
    """The flow between a pair's mapped images.

    Args:
        flow: (B, 2, H, W) pixels, first to second.
        A_first, A_second: (B, 3, 3), the maps of the first and the second image.

    Returns:
        (B, 2, H, W) pixels, first mapped to second mapped; only meaningful where `affine_image` of the first is
        inside.
    """
    origins = affine_pixels(_inverse(A_first, flow), flow)
    targets = origins + sample_at_pixels(flow, origins)
    _check(A_second, flow)
    return _apply(A_second, targets) - pixel_grid_like(flow)


@torch.no_grad()
@float32_island
def affine_visible(visible: Tensor, A: Tensor) -> Tensor:
    """The visibility of the mapped image.

    Args:
        visible: (B, 1, H, W) bool. A: (B, 3, 3), the map of the image that it belongs to.

    Returns:
        (B, 1, H, W) bool, True where the place is inside the image and all pixels it is sampled from are visible.
    """
    hidden, inside = affine_image(1 - visible.float(), A)
    # Bilinear weights are exact to 1e-4 of a pixel, the precision of float32 coordinates.
    return inside & (hidden < 1e-3)


def affine_pixels(A: Tensor, like: Tensor) -> Tensor:
    """(B, 2, H, W) where the map takes every pixel of a (B, C, H, W) map."""
    _check(A, like)
    return _apply(A, pixel_grid_like(like)[None])


def _apply(A: Tensor, pixels: Tensor) -> Tensor:
    """(B, 3, 3) and (B or 1, 2, H, W) coordinates -> (B, 2, H, W) coordinates."""
    A = A.to(pixels)
    u, v = pixels[:, 0], pixels[:, 1]  # (B or 1, H, W)
    a = A[:, :2, :, None, None]  # (B, 2, 3, 1, 1)
    return a[:, :, 0] * u[:, None] + a[:, :, 1] * v[:, None] + a[:, :, 2]


def _inverse(A: Tensor, like: Tensor) -> Tensor:
    """Closed form, in float64: a solver would wait for the device, and float32 would move the identity."""
    _check(A, like)
    (a, b, u), (c, d, v) = (row.unbind(1) for row in A.double()[:, :2].unbind(1))
    determinant = a * d - b * c
    linear = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / determinant[:, None, None]
    offset = -linear @ torch.stack([u, v], dim=1)[:, :, None]
    return torch.cat([torch.cat([linear, offset], dim=2), A[:, 2:].double()], dim=1)


def _check(A: Tensor, like: Tensor) -> None:
    if A.shape != (like.shape[0], 3, 3):
        raise ValueError(f"A has shape {tuple(A.shape)}; expected ({like.shape[0]}, 3, 3), a map for each sample.")
