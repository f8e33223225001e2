"""Flip and colour jitter of a whole batch, on its device.

Every frame of a sample gets the same flip and the same jitter: the pose network must see one camera, and a right image
must look like its left one. Losses compare the clean images.

Differs: Monodepth2 applies the four colour operations in a random order; here it is always brightness, contrast,
saturation, hue. Each operation is torchvision's, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from geossl.config import Augment
from geossl.data.sampler import keyed_generator
from geossl.geometry.transforms import flip_batch
from geossl.types import Batch, Frame

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, as torchvision's rgb_to_grayscale
_AUGMENT_STREAM = 1 << 32  # keeps a sample's draws apart from the sampler's


@dataclass(frozen=True)
class Draws:
    """What is drawn for each sample of a batch; arrays of (B,).

    Attributes:
        flip: Whether it is mirrored.
        jitter: Whether its colours are changed.
        brightness, contrast, saturation: Factors about 1.
        hue: Turn of the hue, in full circles.
    """

    flip: np.ndarray
    jitter: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray


def augment(batch: Batch, options: Augment, seed: int, epoch: int) -> Batch:
    """A uint8 batch as float32 in [0, 1], flipped and jittered.

    The same (seed, epoch, batch.index) gives the same result whatever batch a sample is in.

    Args:
        batch: As loaded, on the device.
        options: Probabilities and ranges.
        seed, epoch: Key of the random numbers.

    Returns:
        The batch with clean `image` and `jittered`, one tensor where no sample is jittered.
    """
    drawn = draw(batch.index.tolist(), options, seed, epoch)
    device = batch.target.image.device
    if drawn.flip.any():
        batch = flip_batch(batch, torch.from_numpy(drawn.flip).to(device))
    batch = to_float(batch)
    chosen = np.flatnonzero(drawn.jitter)
    if not len(chosen):
        return batch
    where = torch.from_numpy(chosen).to(device)
    factors = np.stack([drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue])[:, chosen]
    brightness, contrast, saturation, hue = torch.from_numpy(factors).float().to(device)

    def jitter(frame: Frame) -> Frame:
        image = frame.image[where]
        image = adjust_brightness(image, brightness)
        image = adjust_contrast(image, contrast)
        image = adjust_saturation(image, saturation)
        image = adjust_hue(image, hue)
        return replace(frame, jittered=frame.image.index_copy(0, where, image))

    return batch.map_frames(jitter)


def to_float(batch: Batch) -> Batch:
    """A uint8 batch as float32 in [0, 1], nothing else changed."""

    def convert(frame: Frame) -> Frame:
        if frame.image.dtype != torch.uint8:
            raise TypeError(f"images have type {frame.image.dtype}; expected uint8, as loaded. Augment a batch once.")
        image = frame.image.float().div_(255)
        return Frame(image, image, frame.K)

    return batch.map_frames(convert)


def draw(indices: Sequence[int], options: Augment, seed: int, epoch: int) -> Draws:
    """The random numbers of each sample, keyed by (seed, epoch, index)."""
    uniform = np.array([keyed_generator(seed, epoch, _AUGMENT_STREAM + i).random(6) for i in indices]).reshape(-1, 6).T
    flip, jitter, brightness, contrast, saturation, hue = uniform

    def factor(u: np.ndarray, spread: float) -> np.ndarray:
        low = max(0.0, 1 - spread)
        return low + u * (1 + spread - low)

    return Draws(
        flip=flip < options.flip,
        jitter=jitter < options.jitter,
        brightness=factor(brightness, options.brightness),
        contrast=factor(contrast, options.contrast),
        saturation=factor(saturation, options.saturation),
        hue=(2 * hue - 1) * options.hue,
    )


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
    offsets = sixths.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    k = (sixths + offsets).remainder(6)
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


def grey(image: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W) luma."""
    red, green, blue = image.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
