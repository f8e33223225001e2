"""Views: an image as two looks at one scene see it, cropped, zoomed, turned and recoloured, with the exact map.

All draws are from torch's global generator, on the CPU, one for each sample. Nothing is mirrored here: the data's
augmentation flips whole samples, both cameras and the motion between them alike. Nothing is turned by quarters or
upside down: in driving, up is up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from geossl.appearance import grey
from geossl.config import Strict
from geossl.geometry.affine import affine_image, similarity
from geossl.methods.augmentation import AppearanceRange, vary_appearance


class Views(Strict):
    """What views are drawn from; the colours are SimCLR's at half of its strength, as for small images."""

    zoom: tuple[float, float] = Field((1.0, 2.0), description="Least and greatest magnification of a crop.")
    rotation_deg: float = Field(5.0, ge=0, le=45, description="Greatest turn to either side.")
    brightness: float = Field(0.4, ge=0, le=1)
    contrast: float = Field(0.4, ge=0, le=1)
    saturation: float = Field(0.4, ge=0, le=1)
    hue: float = Field(0.1, ge=0, le=0.5)
    grey: float = Field(0.2, ge=0, le=1, description="Probability that a view loses its colour.")
    blur_px: float = Field(2.0, ge=0, description="Greatest deviation of a blur, which half of the views get.")


@dataclass(frozen=True)
class View:
    """A look at every sample of a batch.

    Attributes:
        image: (B, 3, H, W) RGB in [0, 1].
        A: (B, 3, 3), pixels of the image that was looked at to pixels of the view.
    """

    image: Tensor
    A: Tensor


def draw_view(image: Tensor, limits: Views) -> View:
    """A view of every image, of the same size, each with draws of its own.

    Args:
        image: (B, 3, H, W) RGB in [0, 1].
        limits: What to draw from.
    """
    count, size = len(image), (image.shape[-2], image.shape[-1])
    A = draw_crop(count, size, limits.zoom, math.radians(limits.rotation_deg)).to(image.device)
    return View(recoloured(affine_image(image, A)[0], limits), A)


def draw_crop(batch_size: int, size: tuple[int, int], zoom: tuple[float, float], rotation: float) -> Tensor:
    """Draws, for every sample, a window that is enlarged to the image's size and then turned about its centre.

    Args:
        batch_size: B. size: (height, width).
        zoom: Least and greatest magnification, uniform in its logarithm; the window of a magnification of at least 1
            lies inside the image, anywhere.
        rotation: Greatest angle to either side, radians; it may turn corners from outside the image into the view.

    Returns:
        (B, 3, 3) float32 on the CPU, pixels of the image to pixels of the view.
    """
    share = torch.rand(4, batch_size, dtype=torch.float64)
    scale = (math.log(zoom[0]) + math.log(zoom[1] / zoom[0]) * share[0]).exp()
    room = (scale - 1).clamp_min(0) / 2 * torch.tensor([[size[1] - 1.0], [size[0] - 1.0]])  # (2, B) pixels
    shift = (2 * share[1:3] - 1) * room
    return similarity(scale, scale, rotation * (2 * share[3] - 1), shift.T, size).float()


def recoloured(image: Tensor, limits: Views) -> Tensor:
    """(B, 3, H, W) in [0, 1] with brightness, contrast, saturation, hue, blur and loss of colour drawn anew."""
    looks = AppearanceRange(
        brightness=limits.brightness,
        contrast=limits.contrast,
        saturation=limits.saturation,
        hue=limits.hue,
        blur_px=limits.blur_px,
    )
    changed = vary_appearance([image], looks)[0].clamp(0, 1)
    colourless = (torch.rand(len(image)) < limits.grey).to(image.device).view(-1, 1, 1, 1)
    return torch.where(colourless, grey(changed).expand_as(changed), changed)
