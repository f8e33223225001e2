"""Pairs of frames with their correspondence, pairs of views of them, and which samples are false negatives."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch
from torch import Tensor

from geossl.geometry.motion import invert
from geossl.geometry.precision import float32_island
from geossl.methods.method import Method
from geossl.pretrain.correspond import from_depth_and_motion, from_flow, from_warp, identity
from geossl.pretrain.views import View, Views, draw_view
from geossl.types import Batch, MissingInput, PredictsDepth, PredictsFlow, PredictsMotion

CAMERA_FOLDER = re.compile(r"^(image_\w+|left|right)$")  # the cameras of a rig see the same at the same time


@dataclass(frozen=True)
class FramePair:
    """Two frames of every sample, and where each pixel of the first lies in the second (`correspond`)."""

    first: Tensor
    second: Tensor
    xy: Tensor
    valid: Tensor


@dataclass(frozen=True)
class ViewPair:
    """Two views of a pair of frames, and where each pixel of the first view lies in the second."""

    first: View
    second: View
    xy: Tensor
    valid: Tensor


def view_pair(frames: FramePair, limits: Views) -> ViewPair:
    """A view of each frame, drawn apart, with the correspondence between them."""
    first, second = draw_view(frames.first, limits), draw_view(frames.second, limits)
    return ViewPair(first, second, *from_warp(frames.xy, frames.valid, first.A, second.A))


def self_pair(batch: Batch) -> FramePair:
    """The target with itself."""
    image = batch.target.image
    return FramePair(image, image, *identity(image))


@torch.no_grad()
def stereo_pair(batch: Batch, teacher: Method) -> FramePair:
    """The target and the other camera, by the teacher's depth of both.

    The motion between the cameras is the batch's, which the data's augmentation mirrors with the images.

    Raises:
        MissingInput: If the batch has no stereo, or the teacher no depth in metres.
    """
    if batch.stereo is None or batch.T_stereo_target is None:
        raise MissingInput(f"pairs: stereo needs batch.stereo, but {batch.names[0]} has none; set data.stereo: true.")
    if not isinstance(teacher, PredictsDepth) or not teacher.is_metric:
        raise MissingInput(
            f"pairs: stereo needs a teacher that predicts depth in metres, and {type(teacher).__name__} does not: "
            "give one that was trained with stereo."
        )
    target, stereo = batch.target, batch.stereo
    depth, depth_b = (teacher.predict_depth(frame.image, frame.K) for frame in (target, stereo))
    found = from_depth_and_motion(depth, target.K, batch.T_stereo_target, stereo.K, depth_b)
    return FramePair(target.image, stereo.image, *found)


@torch.no_grad()
def temporal_pair(batch: Batch, teacher: Method, least_motion_px: float) -> FramePair:
    """The target and its first source, by the teacher's flow both ways, or its depth and motion.

    Args:
        least_motion_px: Samples of which the pixels move less on average teach nothing new: nothing of them is valid.

    Raises:
        MissingInput: If the batch has no source, or the teacher predicts neither flow nor depth and motion.
    """
    if not batch.sources:
        raise MissingInput(
            f"pairs: temporal needs batch.sources, but {batch.names[0]} has none; set data.source_offsets, e.g. [1]."
        )
    target, source = batch.target, batch.sources[0]
    if isinstance(teacher, PredictsFlow) and len(teacher.flow_offsets) == 1:
        xy, valid = from_flow(
            teacher.predict_flows(target.image, [source.image])[:, 0],
            teacher.predict_flows(source.image, [target.image])[:, 0],
        )
    elif isinstance(teacher, PredictsDepth) and isinstance(teacher, PredictsMotion) and teacher.pose_offsets == (1,):
        depth, depth_b = (teacher.predict_depth(frame.image, frame.K) for frame in (target, source))
        forward = batch.source_offsets[0] > 0  # motion networks see the earlier image first
        earlier, later = (target.image, source.image) if forward else (source.image, target.image)
        T = teacher.predict_motions(earlier, [later])[:, 0]
        xy, valid = from_depth_and_motion(depth, target.K, T if forward else invert(T), source.K, depth_b)
    else:
        raise MissingInput(
            f"pairs: temporal needs a teacher of flow, or of depth and motion, between two images; "
            f"{type(teacher).__name__} is neither."
        )
    return FramePair(target.image, source.image, xy, valid & moves(xy, valid, least_motion_px))


@float32_island
def moves(xy: Tensor, valid: Tensor, least_px: float) -> Tensor:
    """(B, 1, 1, 1) bool, whether the valid pixels of a sample move by `least_px` on average; False where none is."""
    # On CPUs `norm` over channels takes hundreds of times as long.
    length = torch.hypot(*(xy - identity(xy)[0]).split(1, dim=1)).where(valid, xy.new_zeros(()))
    mean = length.sum((1, 2, 3)) / valid.sum((1, 2, 3)).clamp_min(1)
    return (mean >= least_px).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Moments:
    """When samples were recorded.

    Attributes:
        recording: (N,) int64, a number for each recording, the same for all its cameras.
        frame: (N,) int64, frame number in it.
    """

    recording: Tensor
    frame: Tensor

    def near(self, other: Moments, frames: int) -> Tensor:
        """(N, M) bool, whether sample n shows, within so many frames, what the other's sample m shows."""
        same = self.recording[:, None] == other.recording
        return same & ((self.frame[:, None] - other.frame).abs() <= frames)


def moments(names: Sequence[str], device: torch.device) -> Moments:
    """When samples were recorded, from their names: folders without the camera's, and the last number.

    Convention: `drive/image_02/data/0000000005` and `drive/image_03/data/0000000007` are of one recording, 2 frames
    apart.
    """
    found = []
    for name in names:
        *folders, stem = PurePosixPath(name).parts or ("",)
        number = re.search(r"\d*$", stem)
        assert number is not None
        recording = [part for part in folders if not CAMERA_FOLDER.match(part)] + [stem[: number.start()]]
        found.append((zlib.crc32("/".join(recording).encode()), int(number.group() or 0)))
    recordings, frames = torch.tensor(found, dtype=torch.int64).T.to(device)
    return Moments(recordings, frames)
