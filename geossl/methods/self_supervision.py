"""What methods that teach themselves share: a teacher, what makes the student's task harder, and when it begins.

A teacher's flow of the easy images is the student's label for the hard ones: cropped, or with superpixels hidden under
noise. How images are recoloured is in `geossl.methods.augmentation`, how they are bent in `geossl.geometry.affine`.
All draws are from torch's global generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import resize_image
from geossl.networks.moving_average import follow
from geossl.networks.weights import load_named

SEGMENTS = (100, 300)  # superpixels of an image: few and large, or many and small
SLIC_REDUCTION = 2  # superpixels are found in an image this much smaller, in a quarter of the time


def ramp(progress: float, start: float, length: float = 0.0) -> float:
    """A weight that is 0 before `start` and rises to 1 within `length`, all of them shares of the training.

    A worked number: start 0.4 and length 0.2 give 0 at 0.4, 0.5 at 0.5 and 1 from 0.6; length 0 gives 1 from 0.4.
    """
    if length <= 0:
        return float(progress >= start)
    return min(1.0, max(0.0, (progress - start) / length))


# --- teachers --------------------------------------------------------------------------------------------------------


class Teacher(nn.Module):
    """A copy of a network that no gradient reaches: frozen as it is, unless it is told to follow the student.

    Its weights are part of the method's state, so that a training resumes without the file they came from. Where the
    student itself is the teacher, no copy is needed: call it under `torch.no_grad()`.

    Args:
        student: What is copied.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = deepcopy(student).requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode: a teacher's batch norm neither learns nor depends on the batch."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        return self.network(*inputs)

    def load(self, state: Mapping[str, Tensor], where: str) -> None:
        """Takes weights by the network's own names; raises ValueError, naming `where`, if they do not fit."""
        load_named(self.network, state, where)

    def follow(self, student: nn.Module, decay: float) -> None:
        """As `moving_average.follow`."""
        follow(self.network, student, decay)


# --- crops -----------------------------------------------------------------------------------------------------------


def draw_origins(batch_size: int, size: tuple[int, int], crop_size: tuple[int, int]) -> Tensor:
    """The top-left pixel of a crop of each sample, anywhere inside the image.

    Args:
        batch_size: B. size, crop_size: (height, width).

    Returns:
        (B, 2) int64 (u, v) on the CPU, as `crop_at` and `geometry.warping.warp_by_flow` take.

    Raises:
        ValueError: If the crop is larger than the image.
    """
    room = [full - part for full, part in zip(size, crop_size, strict=True)]
    if min(room) < 0:
        raise ValueError(f"crop of {crop_size[1]}x{crop_size[0]} is larger than the image, {size[1]}x{size[0]}.")
    v, u = (torch.randint(room_there + 1, (batch_size,)) for room_there in room)
    return torch.stack([u, v], dim=1)


def crop_at(x: Tensor, origins: Tensor, crop_size: tuple[int, int]) -> Tensor:
    """Cuts a window out of each sample: images, visibility, and flow, which a crop of both images does not change.

    Args:
        x: (n B, C, H, W): n stacks of the same B samples, e.g. both directions of flow.
        origins: (B, 2) int64 (u, v) on the CPU.
        crop_size: (height, width).

    Returns:
        (n B, C, *crop_size).
    """
    h, w = crop_size
    corners = origins.tolist() * (len(x) // len(origins))
    return torch.stack([one[:, v : v + h, u : u + w] for one, (u, v) in zip(x, corners, strict=True)])


# --- hidden superpixels ----------------------------------------------------------------------------------------------


@torch.no_grad()
def superpixels(image: Tensor, segments: int) -> Tensor:
    """Splits an image into connected regions of like colour, by SLIC.

    Args:
        image: (3, H, W) RGB in [0, 1].
        segments: About how many.

    Returns:
        (H, W) int64 numbers from 0 on, on the CPU.

    Raises:
        ModuleNotFoundError: If scikit-image is missing.

    Source: Achanta et al., TPAMI 2012, as in scikit-image.
    """
    try:
        from skimage.segmentation import slic
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "hiding superpixels needs scikit-image, which is not installed: pip install 'geossl[superpixels]'."
        ) from error
    h, w = size_of(image)
    reduced = resize_image(image[None].float(), (max(1, h // SLIC_REDUCTION), max(1, w // SLIC_REDUCTION)))
    pixels = reduced[0].permute(1, 2, 0).cpu().numpy().astype(np.float64)
    labels = torch.from_numpy(slic(pixels, n_segments=segments, start_label=0, channel_axis=-1))
    rows = torch.div(torch.arange(h) * labels.shape[0], h, rounding_mode="floor")
    columns = torch.div(torch.arange(w) * labels.shape[1], w, rounding_mode="floor")
    return labels.long()[rows[:, None], columns]


@torch.no_grad()
def some_superpixels(image: Tensor, share: float, segments: tuple[int, int] = SEGMENTS) -> Tensor:
    """Marks random superpixels, whose number and size differ from image to image.

    Args:
        image: (B, 3, H, W) RGB in [0, 1].
        share: Probability that a superpixel is marked.
        segments: Least and greatest number of superpixels of an image.

    Returns:
        (B, 1, H, W) bool, True inside the marked ones.

    Source: Liu et al. (SelFlow), CVPR 2019, section 3.4.
    """
    marks = []
    for one in image:
        labels = superpixels(one, int(torch.randint(segments[0], segments[1] + 1, ())))
        marked = torch.rand(int(labels.max()) + 1) < share
        marks.append(marked[labels])
    return torch.stack(marks)[:, None].to(image.device)


@torch.no_grad()
def hide_superpixels(
    versions: Sequence[Tensor], share: float, segments: tuple[int, int] = SEGMENTS
) -> tuple[list[Tensor], Tensor]:
    """Puts random superpixels under noise: what was there can no longer be matched, and has a natural outline.

    Args:
        versions: (B, 3, H, W) RGB in [0, 1] each, versions of the same images, e.g. clean and recoloured. All get the
            same noise in the same superpixels, which are the first one's.
        share, segments: As `some_superpixels` takes.

    Returns:
        images: As `versions`, with every hidden value drawn uniformly from [0, 1].
        hidden: (B, 1, H, W) bool, True under the noise.

    Source: Liu et al. (SelFlow), CVPR 2019, section 3.4.
    """
    hidden = some_superpixels(versions[0], share, segments)
    noise = torch.rand_like(versions[0])
    return [torch.where(hidden, noise, image) for image in versions], hidden
