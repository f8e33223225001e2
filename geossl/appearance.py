"""How images look: brightness, contrast, saturation, hue, gamma, blur and noise, for a whole batch on its device.

Functions of tensors without random numbers, noise excepted; who draws, and how much, is said where they are used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.constants import vector_like
from geossl.geometry.precision import float32_island
from geossl.kernels import cpu_kernels_read
from geossl.kernels.appearance import jittered

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, as torchvision's rgb_to_grayscale


def jitter(image: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, one after the other.

    Args:
        image: (B, 3, H, W) in [0, 1].
        factors: (4, B) as the four functions below take them.
    """
    if cpu_kernels_read(image):
        return jittered(image, factors)
    brightness, contrast, saturation, hue = factors
    image = adjust_saturation(adjust_contrast(adjust_brightness(image, brightness), contrast), saturation)
    return adjust_hue(image, hue)


def adjust_brightness(image: Tensor, factor: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] times (B,), clamped."""
    return (image * _per_image(factor)).clamp_(0, 1)


def adjust_contrast(image: Tensor, factor: Tensor) -> Tensor:
    """Moves (B, 3, H, W) in [0, 1] away from each image's mean grey by (B,), clamped."""
    mean = grey(image).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, image, _per_image(factor)).clamp_(0, 1)


def adjust_saturation(image: Tensor, factor: Tensor) -> Tensor:
    """Moves (B, 3, H, W) in [0, 1] away from each pixel's grey by (B,), clamped."""
    return torch.lerp(grey(image), image, _per_image(factor)).clamp_(0, 1)


def adjust_hue(image: Tensor, turn: Tensor) -> Tensor:
    """Turns the HSV hue of (B, 3, H, W) in [0, 1] by (B,) full circles; value and saturation stay.

    With V = max, C = max - min and hue h in sixths of the circle, every channel is
    V - C clamp(min(k, 4 - k), 0, 1), k = (n + h) mod 6 with n = 5, 3, 1 for red, green, blue: no HSV image is built.
    Source: Smith 1978; closed form as in https://en.wikipedia.org/wiki/HSL_and_HSV (HSV to RGB alternative).
    """
    red, green, blue = image.split(1, dim=1)  # (B, 1, H, W) each
    value, low = image.amax(dim=1, keepdim=True), image.amin(dim=1, keepdim=True)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixths = sixths + 6 * _per_image(turn)
    offsets = vector_like(sixths, 5, 3, 1).view(1, 3, 1, 1)
    k = (sixths + offsets).remainder(6)
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


def grey(image: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W) luma."""
    red, green, blue = image.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def adjust_gamma(image: Tensor, gamma: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] to the power of (B,): above 1 is darker."""
    return image.pow(_per_image(gamma))


@float32_island
def blur(image: Tensor, sigma_px: Tensor, radius: int) -> Tensor:
    """Gaussian blur, each image its own.

    Args:
        image: (B, C, H, W), its border repeated outside.
        sigma_px: (B,) standard deviation in pixels; 0 leaves an image as it is.
        radius: Pixels after which the weights end.

    Returns:
        (B, C, H, W).
    """
    b, c, h, w = image.shape
    distance = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    exponents = -0.5 * (distance / sigma_px.to(image)[:, None].clamp_min(1e-3)).square()
    kernels = exponents.softmax(1).repeat_interleave(c, 0)  # (B * C, 2 radius + 1)
    flat = F.pad(image.reshape(1, b * c, h, w), (radius,) * 4, mode="replicate")
    rows = F.conv2d(flat, kernels[:, None, None, :], groups=b * c)
    return F.conv2d(rows, kernels[:, None, :, None], groups=b * c).view(b, c, h, w)


def add_noise(image: Tensor, deviation: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] plus normal noise of (B,) standard deviation, another for each pixel; clamped.

    Draws from torch's global generator.
    """
    return (image + torch.randn_like(image) * _per_image(deviation)).clamp_(0, 1)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
