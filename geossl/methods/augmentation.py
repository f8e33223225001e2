"""How a student's images are made harder than its teacher's: colours, blur, noise and erased rectangles.

Every draw is from torch's global generator, on the CPU, one for each sample; both images of a pair get the same unless
stated. Geometry is not changed: see `geossl.geometry.affine`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geossl.appearance import (
    add_noise,
    adjust_brightness,
    adjust_contrast,
    adjust_gamma,
    adjust_hue,
    adjust_saturation,
    blur,
)
from geossl.geometry.pixels import pixel_grid_like, size_of


@dataclass(frozen=True)
class AppearanceRange:
    """What `vary_appearance` draws from, uniformly.

    Attributes:
        brightness, contrast, saturation: Factors differ from 1 by at most this.
        hue: Greatest turn to either side, in full circles.
        gamma: Least and greatest exponent.
        blur_px: Greatest standard deviation of a Gaussian blur, which half of the samples get.
        noise: Greatest standard deviation of noise, of images in [0, 1].
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    blur_px: float = 0.0
    noise: float = 0.0


# Liu et al. (ARFlow), CVPR 2020, released configurations.
ARFLOW_KITTI_APPEARANCE = AppearanceRange(brightness=0.5, blur_px=3.0, noise=0.04)
ARFLOW_SINTEL_APPEARANCE = AppearanceRange(
    brightness=0.5, contrast=0.5, saturation=0.5, gamma=(0.7, 1.5), blur_px=3.0, noise=0.04
)
# Stone et al. (SMURF), CVPR 2021, released defaults; their brightness is added, here it is a factor.
SMURF_APPEARANCE = AppearanceRange(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.5 / 3.14)


def vary_appearance(images: Sequence[Tensor], limits: AppearanceRange) -> list[Tensor]:
    """Changes the look of images of the same scenes, alike in every image but for the noise.

    Args:
        images: (B, 3, H, W) each, in [0, 1].
        limits: What to draw from.

    Returns:
        Images of the same shapes, in [0, 1].
    """
    count = images[0].shape[0]
    share = torch.rand(8, count).to(images[0])
    swing = 2 * share - 1  # -1..1
    sigma_px = limits.blur_px * share[5] * (share[6] < 0.5)
    low, high = limits.gamma

    def change(image: Tensor) -> Tensor:
        image = adjust_brightness(image, 1 + limits.brightness * swing[0])
        if limits.contrast:
            image = adjust_contrast(image, 1 + limits.contrast * swing[1])
        if limits.saturation:
            image = adjust_saturation(image, 1 + limits.saturation * swing[2])
        if limits.hue:
            image = adjust_hue(image, limits.hue * swing[3])
        if low < high:
            image = adjust_gamma(image, low + (high - low) * share[4])
        if limits.blur_px:
            image = blur(image, sigma_px, radius=round(3 * limits.blur_px))
        return add_noise(image, limits.noise * share[7]) if limits.noise else image

    return [change(image) for image in images]


def draw_recolouring(batch_size: int, probability: float) -> Callable[[Tensor], Tensor]:
    """Draws a change of gamma, brightness and the colours' balance for some samples.

    Gamma is drawn in 0.8..1.2, the brightness' factor in 0.5..2, each channel's in 0.8..1.2.

    Args:
        batch_size: B. probability: That a sample is changed.

    Returns:
        The change of (B, 3, H, W) images in [0, 1], the same for every image it is applied to.

    Source: Godard et al., CVPR 2017, section 4 (Monodepth), whose values Hur and Roth, CVPR 2020, take.
    """
    share = torch.rand(6, batch_size)
    drawn = (share[0] < probability)[:, None, None, None]
    gamma, factor = 0.8 + 0.4 * share[1], ((0.5 + 1.5 * share[2]) * (0.8 + 0.4 * share[3:])).T[:, :, None, None]

    def recolour(image: Tensor) -> Tensor:
        changed = (adjust_gamma(image, gamma.to(image)) * factor.to(image)).clamp(0, 1)
        return torch.where(drawn.to(image.device), changed, image)

    return recolour


def vary_apart(images: Sequence[Tensor], limits: AppearanceRange, probability: float) -> list[Tensor]:
    """Changes the look of some samples, in every image by draws of its own: constancy of brightness is broken.

    Args:
        images: (B, 3, H, W) each, in [0, 1]. probability: That a sample is changed.

    Source: Stone et al. (SMURF), CVPR 2021, section 3 ("asymmetric").
    """
    drawn = torch.rand(images[0].shape[0]) < probability
    if not drawn.any():
        return list(images)
    changed = drawn.to(images[0].device).view(-1, 1, 1, 1)
    return [torch.where(changed, vary_appearance([image], limits)[0], image) for image in images]


def erase_rectangles(
    image: Tensor, probability: float = 0.5, sides_px: tuple[int, int] = (50, 100), most: int = 3
) -> Tensor:
    """Fills rectangles of some images with the image's mean colour: what was there can no longer be matched.

    Args:
        image: (B, 3, H, W). probability: That an image is changed, and of each rectangle after its first.
        sides_px: Least and greatest side. most: Rectangles at most.

    Returns:
        (B, 3, H, W).

    Source: Stone et al. (SMURF), CVPR 2021, section 3 and released code.
    """
    count, (h, w) = image.shape[0], size_of(image)
    share = torch.rand(5, most, count)
    corners = (share[:2] * torch.tensor([w, h]).view(2, 1, 1)).floor()  # (2, most, B) pixels (u, v)
    ends = corners + (sides_px[0] + (sides_px[1] - sides_px[0]) * share[2:4]).floor()
    drawn = share[4] < probability
    drawn[1:] &= drawn[0]
    corners, ends, drawn = corners.to(image), ends.to(image), drawn.to(image.device)
    grid = pixel_grid_like(image)[:, None, None]  # (2, 1, 1, H, W)
    inside = ((grid >= corners[..., None, None]) & (grid < ends[..., None, None])).all(0)  # (most, B, H, W)
    erased = (inside & drawn[..., None, None]).any(0)[:, None]  # (B, 1, H, W)
    return torch.where(erased, image.mean((2, 3), keepdim=True), image)
