"""Resizing, cropping and flipping: images, intrinsics, motions, stereo roles and flow move together.

Resizing by s maps pixel u to (u + 0.5) s - 0.5, so f' = f s and c' = (c + 0.5) s - 0.5. Cropping subtracts the corner.
A horizontal flip maps u to W - 1 - u, so cx' = W - 1 - cx; in the mirrored world x points the other way, so a motion
becomes F T F with F = diag(-1, 1, 1, 1), and a left camera becomes a right one.

A worked number: W = 1242, cx = 609.56 resized to 640 gives 610.06 * 640/1242 - 0.5 = 313.86; flipped, 325.14.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.constants import vector_like
from geossl.kernels import cpu_kernels_run
from geossl.kernels import upsampling as fast
from geossl.types import Batch, Frame


def resize_K(K: Tensor, from_size: tuple[int, int], to_size: tuple[int, int]) -> Tensor:
    """(..., 3, 3) of an image of `from_size` (height, width) -> of the same image resized to `to_size`."""
    sy, sx = to_size[0] / from_size[0], to_size[1] / from_size[1]
    # Scaling about the corner at (-0.5, -0.5), where the first pixel begins.
    u, v, one = K.unbind(-2)
    return torch.stack([sx * u + (0.5 * sx - 0.5) * one, sy * v + (0.5 * sy - 0.5) * one, one], -2)


def resize_pixels(pixels: Tensor, from_size: tuple[int, int], to_size: tuple[int, int], dim: int = 1) -> Tensor:
    """Pixels (u, v) along `dim` of an image of `from_size` (height, width) -> of the same image resized to `to_size`.

    Convention: pixel 7.5 of 16 columns is pixel 1.5 of 4.
    """
    shape = [1] * pixels.ndim
    shape[dim] = 2
    scale = vector_like(pixels, to_size[1] / from_size[1], to_size[0] / from_size[0]).view(shape)
    return (pixels + 0.5) * scale - 0.5


def crop_K(K: Tensor, top: int, left: int) -> Tensor:
    """(..., 3, 3) after rows above `top` and columns before `left` are cut off."""
    u, v, one = K.unbind(-2)
    return torch.stack([u - left * one, v - top * one, one], -2)


def flip_K(K: Tensor, width: int) -> Tensor:
    """(..., 3, 3) of the mirrored image: cx' = W - 1 - cx, fx and skew-free form kept."""
    flipped = K.clone()
    flipped[..., 0, 2] = width - 1 - K[..., 0, 2]
    return flipped


def flip_T(T: Tensor) -> Tensor:
    """(..., 4, 4) motion as seen in the mirrored world: F T F."""
    mirror = vector_like(T, -1, 1, 1, 1)
    return mirror[:, None] * T * mirror


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) float -> (B, C, *size), bilinear with antialiasing, pixel areas aligned."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) map -> (B, C, *size), bilinear, pixel areas aligned; values keep their unit."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if x.is_contiguous() and cpu_kernels_run(x):
        return fast.upsample(x, size)
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 2, h, w) pixels -> (B, 2, *size) pixels of the new size; u and v scale by their own ratios."""
    h, w = flow.shape[-2:]
    scale = vector_like(flow, size[1] / w, size[0] / h).view(1, 2, 1, 1)
    return upsample(flow, size) * scale


def flip_flow(flow: Tensor) -> Tensor:
    """(B, 2, H, W) flow of the mirrored images: columns reversed, du negated."""
    return flow.flip(-1) * vector_like(flow, -1, 1).view(1, 2, 1, 1)


def resize_frame(frame: Frame, size: tuple[int, int]) -> Frame:
    """A frame at another size, with its intrinsics."""
    K = resize_K(frame.K, (frame.height, frame.width), size)
    return frame.with_images(lambda image: resize_image(image, size), K)


def area_reduced(frame: Frame, size: Sequence[int]) -> Frame:
    """The clean frame averaged down to (height, width): what a coarse scale of a network is compared with."""
    if (frame.height, frame.width) == tuple(size):
        return frame
    image = area_mean(frame.image, size)
    return Frame(image, image, resize_K(frame.K, (frame.height, frame.width), (size[0], size[1])))


def area_mean(image: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), means over the area of every pixel, as `F.adaptive_avg_pool2d`.

    Halving by adding slices takes a fifth of that function's time on a CPU, so it is used where it leads to the size.
    """
    height, width = size
    times = image.shape[-2] // height
    if times.bit_count() != 1 or image.shape[-2:] != (times * height, times * width):
        return F.adaptive_avg_pool2d(image, (height, width))
    for _ in range(times.bit_length() - 1):
        rows = image[..., ::2, :] + image[..., 1::2, :]
        image = (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)
    return image


def resize_batch(batch: Batch, size: tuple[int, int]) -> Batch:
    return batch.map_frames(lambda frame: resize_frame(frame, size))


def crop_batch(batch: Batch, top: int, left: int, size: tuple[int, int]) -> Batch:
    """Cuts the same window (rows top.., columns left..) out of every frame.

    Raises:
        ValueError: If the window reaches outside.
    """
    h, w = size
    frame = batch.target
    if top < 0 or left < 0 or top + h > frame.height or left + w > frame.width:
        raise ValueError(
            f"crop of {w}x{h} at column {left}, row {top} reaches outside the {frame.width}x{frame.height} image."
        )

    def crop(frame: Frame) -> Frame:
        K = crop_K(frame.K, top, left)
        return frame.with_images(lambda image: image[..., top : top + h, left : left + w], K)

    return batch.map_frames(crop)


def flip_batch(batch: Batch, where: Tensor | None = None) -> Batch:
    """Mirrors samples left to right.

    Every frame keeps its role, and the motion between the cameras is mirrored: the flipped left camera stands to the
    right of the flipped right one (`T_stereo_target`'s t_x changes sign), as it does in the picture.

    Args:
        where: (B,) bool, samples to flip; None flips all.
    """
    if where is None:
        where = torch.ones(len(batch), dtype=torch.bool, device=batch.target.image.device)

    def choose(flipped: Tensor, kept: Tensor) -> Tensor:
        return torch.where(where.view(-1, *[1] * (kept.dim() - 1)), flipped, kept)

    def flip(frame: Frame) -> Frame:
        K = choose(flip_K(frame.K, frame.width), frame.K)
        return frame.with_images(lambda image: choose(image.flip(-1), image), K)

    T = batch.T_stereo_target
    return replace(batch.map_frames(flip), T_stereo_target=None if T is None else choose(flip_T(T), T))
