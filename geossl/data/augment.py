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

from geossl.appearance import jitter
from geossl.config import Augment
from geossl.data.sampler import keyed_generator
from geossl.geometry.transforms import flip_batch
from geossl.types import Batch, Frame

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
    drawn_factors = np.stack([drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue])[:, chosen]
    factors = torch.from_numpy(drawn_factors).float().to(device)

    def recolour(frame: Frame) -> Frame:
        return replace(frame, jittered=frame.image.index_copy(0, where, jitter(frame.image[where], factors)))

    return batch.map_frames(recolour)


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
