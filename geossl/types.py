"""The few types every part of geossl speaks: frames, batches, objectives and what a method can predict.

A sample is a `Batch` of one; `collate` concatenates samples along the batch dimension. A batch carries images
and cameras only, never ground truth: a method cannot see labels, so it cannot train on them by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class MissingInput(ValueError):  # noqa: N818 - it reads as what it says
    """A method was given a batch (or a model a source) that lacks an input it needs."""


@dataclass(frozen=True)
class Frame:
    """One image of every sample of a batch, with its camera.

    Attributes:
        image: (B, 3, H, W) RGB. uint8 as loaded; float32 in [0, 1] after `augment`. Losses compare this one.
        jittered: (B, 3, H, W) the same picture with colour augmentation. Networks see this one.
        K: (B, 3, 3) intrinsics in pixels of this H x W.
    """

    image: Tensor
    jittered: Tensor
    K: Tensor

    @property
    def height(self) -> int:
        return self.image.shape[-2]

    @property
    def width(self) -> int:
        return self.image.shape[-1]

    def map(self, function: Callable[[Tensor], Tensor]) -> Frame:
        """Applies `function` to every tensor."""
        return self.with_images(function, function(self.K))

    def with_images(self, function: Callable[[Tensor], Tensor], K: Tensor) -> Frame:
        """`function` of both images and a new K; an un-jittered frame keeps sharing one tensor for both."""
        image = function(self.image)
        jittered = image if self.jittered is self.image else function(self.jittered)
        return Frame(image, jittered, K)


@dataclass(frozen=True)
class Batch:
    """Frames of B samples, all of one size.

    Attributes:
        target: The view whose depth (and motion to the others) is learned.
        sources: Views of the same camera at other times, in the order of `source_offsets`.
        source_offsets: Time steps from the target, e.g. (-1, 1).
        stereo: The other camera at the target's time.
        T_stereo_target: (B, 4, 4) maps target-camera points to the stereo camera, metres.
        stereo_sources: The other camera at the sources' times.
        index: (B,) int64, each sample's index in its data set; keys its random numbers.
        names: Each sample's name, for messages and files.
    """

    target: Frame
    sources: tuple[Frame, ...] = ()
    source_offsets: tuple[int, ...] = ()
    stereo: Frame | None = None
    T_stereo_target: Tensor | None = None
    stereo_sources: tuple[Frame, ...] = ()
    index: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))
    names: tuple[str, ...] = ("",)

    def __len__(self) -> int:
        return self.target.image.shape[0]

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Every frame present: target, sources, stereo, stereo sources."""
        stereo = () if self.stereo is None else (self.stereo,)
        return (self.target, *self.sources, *stereo, *self.stereo_sources)

    def map_frames(self, function: Callable[[Frame], Frame]) -> Batch:
        return replace(
            self,
            target=function(self.target),
            sources=tuple(function(f) for f in self.sources),
            stereo=None if self.stereo is None else function(self.stereo),
            stereo_sources=tuple(function(f) for f in self.stereo_sources),
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Applies `function` to every tensor of the batch."""
        T = self.T_stereo_target
        moved = self.map_frames(lambda frame: frame.map(function))
        return replace(moved, T_stereo_target=None if T is None else function(T), index=function(self.index))

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        return self.map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self.map(Tensor.pin_memory)


def collate(samples: Sequence[Batch]) -> Batch:
    """Concatenates batches (usually of one sample each) along the batch dimension.

    Raises:
        ValueError: If the samples differ in size or in the frames they carry.
    """
    first = samples[0]
    for sample in samples[1:]:
        if signature(sample) != signature(first):
            raise ValueError(
                f"samples {first.names[0]} and {sample.names[0]} cannot share a batch: "
                f"{signature(first)} against {signature(sample)}. Draw each batch from samples of one kind."
            )
    stereo = [s.stereo for s in samples if s.stereo is not None]
    motions = [s.T_stereo_target for s in samples if s.T_stereo_target is not None]
    return Batch(
        target=cat_frames([s.target for s in samples]),
        sources=tuple(cat_frames(f) for f in zip(*(s.sources for s in samples), strict=True)),
        source_offsets=first.source_offsets,
        stereo=cat_frames(stereo) if stereo else None,
        T_stereo_target=torch.cat(motions) if motions else None,
        stereo_sources=tuple(cat_frames(f) for f in zip(*(s.stereo_sources for s in samples), strict=True)),
        index=torch.cat([s.index for s in samples]),
        names=tuple(name for s in samples for name in s.names),
    )


def cat_frames(frames: Sequence[Frame]) -> Frame:
    """Frames of one size, one after the other along the batch."""
    image = torch.cat([f.image for f in frames])
    shared = all(f.jittered is f.image for f in frames)
    jittered = image if shared else torch.cat([f.jittered for f in frames])
    return Frame(image, jittered, torch.cat([f.K for f in frames]))


def signature(batch: Batch) -> str:
    """What a batch carries, in words: its size and its frames. Samples of one signature can share a batch."""
    parts = [f"{batch.target.width}x{batch.target.height}"]
    if batch.sources:
        parts.append("sources " + ",".join(f"{o:+d}" for o in batch.source_offsets))
    if batch.stereo is not None:
        parts.append("stereo")
    if batch.stereo_sources:
        parts.append("stereo sources")
    return " ".join(parts)


@dataclass(frozen=True)
class Objective:
    """What a method returns for a batch.

    Attributes:
        terms: Weighted scalar losses by name; training minimises their sum.
        maps: Detached pictures to show, (B, C, H, W), by name.
        health: Detached scalars that tell whether training is sound (share auto-masked, median depth, ...).
    """

    terms: Mapping[str, Tensor]
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    health: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        return torch.stack([term.float() for term in self.terms.values()]).sum()


@runtime_checkable
class PredictsDepth(Protocol):
    """A model that maps images to z-depth."""

    is_metric: bool

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] and (B, 3, 3) pixels -> (B, 1, H, W) z-depth, metres if `is_metric`."""
        ...


@runtime_checkable
class PredictsMotion(Protocol):
    """A model that maps a window of images to the camera's motions from its target to the others.

    `pose_offsets` are the time steps of the other images from the target: (1,) for a pairwise model.
    """

    is_metric: bool
    pose_offsets: tuple[int, ...]

    def predict_motions(self, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1], one source for each of `pose_offsets` -> (B, S, 4, 4) T_source_target."""
        ...


@runtime_checkable
class PredictsFlow(Protocol):
    """A model that maps a window of images to the optical flow from its target to the others.

    `flow_offsets` are the time steps of the other images from the target: (1,) for a pairwise model, (-1, 1) for one
    that sees three frames.
    """

    flow_offsets: tuple[int, ...]

    def predict_flows(self, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] of any size, one source for each of `flow_offsets` -> (B, S, 2, H, W) pixels."""
        ...


@runtime_checkable
class PredictsSceneFlow(Protocol):
    """A model that maps two images of one camera to the depth and the 3-D motion of what the first shows.

    The second image's depth, seen from the first's pixels, is `depth + scene_flow[:, 2:]`; the optical flow is
    `geossl.geometry.conversion.scene_flow_to_flow`.
    """

    is_metric: bool

    def predict_scene_flow(
        self, target: Tensor, source: Tensor, K: Tensor, K_source: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predicts from two images, the source one time step after the target.

        Args:
            target, source: (B, 3, H, W) RGB in [0, 1], of any size.
            K: (B, 3, 3) pixels, of the target. K_source: of the source, if different.

        Returns:
            depth: (B, 1, H, W) z-depth of the target, metres if `is_metric`.
            scene_flow: (B, 3, H, W) in the target's camera, in the unit of depth: where each point is in the
                source's camera coordinates, minus where it was in the target's.
        """
        ...


def tensors_of(objective: Objective) -> dict[str, Tensor]:
    """Every scalar of an objective by its log name: `loss`, `loss/<term>` and `health/<name>`."""
    scalars = {"loss": objective.total.detach()}
    scalars.update({f"loss/{name}": term.detach() for name, term in objective.terms.items()})
    scalars.update({f"health/{name}": value.detach() for name, value in objective.health.items()})
    return scalars
