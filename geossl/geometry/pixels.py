"""Pixel coordinates, and the one place where images are sampled at them.

Convention: pixel (u, v) is (column, row); integers are pixel centres; the top-left centre is (0, 0). For W = 4 the
columns 0..3 are centres and the image spans -0.5..3.5.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.constants import vector_like
from geossl.geometry.precision import float32_island


def pixel_grid(
    height: int, width: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(2, H, W) coordinates (u, v) of every pixel centre."""
    v = torch.arange(height, device=device, dtype=dtype)
    u = torch.arange(width, device=device, dtype=dtype)
    return torch.stack([u[None, :].expand(height, width), v[:, None].expand(height, width)])


def pixel_grid_like(x: Tensor) -> Tensor:
    """(2, H, W) coordinates of the pixel centres of a (..., H, W) map, on its device and in its dtype."""
    return pixel_grid(x.shape[-2], x.shape[-1], x.device, x.dtype)


def size_of(x: Tensor) -> tuple[int, int]:
    """(height, width) of a (..., H, W) map."""
    return x.shape[-2], x.shape[-1]


@float32_island
def sample_at_pixels(image: Tensor, pixels: Tensor, padding: Literal["border", "zeros"] = "border") -> Tensor:
    """Samples an image bilinearly at pixel coordinates.

    Args:
        image: (B, C, H, W).
        pixels: (B, 2, h, w) coordinates (u, v) in pixels of `image`.
        padding: What lies outside the image: its border repeated, or zeros.

    Returns:
        (B, C, h, w), NaN where a coordinate is.

    Convention: an image of one row [0, 10, 20] sampled at u = 0.5 gives 5.
    """
    h, w = image.shape[-2:]
    # grid_sample's [-1, 1] spans the outermost pixel centres under align_corners=True; a single row or column
    # has no span, and any finite scale will do.
    scale = vector_like(pixels, 2 / max(w - 1, 1), 2 / max(h - 1, 1))
    grid = (pixels.permute(0, 2, 3, 1) * scale - 1).to(image.dtype)  # (B, h, w, 2)
    unknown = None
    if grid.device.type == "cpu" and not grid.isfinite().all():
        unknown = grid.isnan().any(-1)[:, None]
        grid = grid.nan_to_num(0.0, 2.0, -2.0)  # PyTorch's CPU gradient writes outside its memory there
    sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode=padding, align_corners=True)
    return sampled if unknown is None else sampled.masked_fill(unknown, torch.nan)


def in_image(pixels: Tensor, height: int, width: int) -> Tensor:
    """(B, 1, h, w) bool, True where (B, 2, h, w) pixel coordinates lie within the outermost pixel centres.

    The tolerance of 1e-3 pixel keeps float32 rounding from excluding the border of an identity warp.
    """
    u, v = pixels[:, :1], pixels[:, 1:]
    return (u >= -1e-3) & (u <= width - 1 + 1e-3) & (v >= -1e-3) & (v <= height - 1 + 1e-3)
