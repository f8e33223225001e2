"""Samples: which images belong together, with their cameras; made from clips, decoded later.

Every kind of data is a function `samples(source, data) -> list[Sample]`. It lists its recordings as `Clip`s, one a
camera, and `clip_samples` combines their frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geossl.config import Data, Source
from geossl.data.images import ImageRef
from geossl.formats.truth import FlowTruth, SceneFlowTruth, Truth

NARROWEST_DEG, WIDEST_DEG = 5.0, 170.0  # horizontal field of view that a pinhole camera is believed to have


class DataError(ValueError):
    """Data that cannot be used; the message names the file or option, the reason and the remedy."""


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera's intrinsics and image size.

    Attributes:
        K: (3, 3) float64 in pixels of the files.
        size: (width, height) of the files in pixels.
        known: False where K is only a guess, for prediction from images without calibration.
    """

    K: np.ndarray
    size: tuple[int, int]
    known: bool = True


@dataclass(frozen=True, eq=False)
class View:
    """One image of one camera.

    Attributes:
        image: The file.
        camera: Its intrinsics and size.
        recording: The recording it belongs to, the same for all cameras, e.g. `2011_09_26_drive_0001`.
        frame: Its number in the recording.
    """

    image: ImageRef
    camera: Camera
    recording: str
    frame: int


@dataclass(frozen=True, eq=False)
class Sample:
    """The images that are loaded together.

    Attributes:
        name: Relative path without suffix, e.g. `sequences/06/image_0/000012`.
        clip: The recording and camera it comes from, e.g. `sequences/06/image_0`.
        frame: The target's number in the clip.
        target, sources, source_offsets, stereo, T_stereo_target, stereo_sources: As in `Batch`; T is (4, 4) float64.
        truth: Where the target's depth or disparity lies, if it is known. Batches never hold labels.
        flow_truth: Where the flow from the target to the next image (offset +1) lies, if it is known.
        scene_flow_truth: Where the scene flow to the next image lies, if it is known.
        near: Further views of the clip by time step from the target, where they exist; batches do not hold them.
        group: Which source it came from; a batch holds samples of one group.
    """

    name: str
    clip: str
    frame: int
    target: View
    sources: tuple[View, ...] = ()
    source_offsets: tuple[int, ...] = ()
    stereo: View | None = None
    T_stereo_target: np.ndarray | None = None
    stereo_sources: tuple[View, ...] = ()
    truth: Truth | None = None
    flow_truth: FlowTruth | None = None
    scene_flow_truth: SceneFlowTruth | None = None
    near: Mapping[int, View] = field(default_factory=dict)
    group: int = 0

    @property
    def views(self) -> tuple[View, ...]:
        """Every view: target, sources, stereo, stereo sources."""
        stereo = () if self.stereo is None else (self.stereo,)
        return (self.target, *self.sources, *stereo, *self.stereo_sources)


@dataclass(frozen=True)
class Wanted:
    """The views that a source's samples should have.

    Attributes:
        offsets: Time steps of the source views; a frame without one of them gives no sample.
        stereo: Whether to have the other camera.
        stereo_sources: Whether to have it at the sources' times too.
        near: Time steps of views to have where they exist.
    """

    offsets: tuple[int, ...] = ()
    stereo: bool = False
    stereo_sources: bool = False
    near: tuple[int, ...] = ()

    @staticmethod
    def of(source: Source, data: Data | Wanted) -> Wanted:
        """What is wanted, or, of a data section, what it says where the source says nothing itself."""
        if isinstance(data, Wanted):
            return data
        offsets = data.source_offsets if source.source_offsets is None else source.source_offsets
        if 0 in offsets or len(set(offsets)) != len(offsets):
            raise DataError(f"source_offsets {list(offsets)} should be distinct and not 0, e.g. [-1, 1].")
        stereo = data.stereo if source.stereo is None else source.stereo
        return Wanted(offsets, stereo, data.stereo_sources and stereo and bool(offsets))


ALONE = Wanted()  # a target without other views


@dataclass(eq=False)
class Clip:
    """The images of one camera of one recording, by frame number.

    Attributes:
        name: See `Sample.clip`.
        images: Frame number -> (name of the sample, image); the frames that exist.
        camera: Intrinsics and size.
        recording: See `View`.
        first_frame: Number in the recording of the clip's frame 0.
        expect: Frame number -> (name, image) for frames that do not exist, so that a message can name the file.
        partner: The other camera's clip.
        T_partner_this: (4, 4) maps this camera's points to the partner, metres.
        truth: Frame number -> ground truth of depth or disparity.
        flow_truth: Frame number -> ground truth of the flow to the next frame.
        scene_flow_truth: Frame number -> ground truth of the scene flow to the next frame.
        remedy: What to do where the partner is missing.
    """

    name: str
    images: Mapping[int, tuple[str, ImageRef]]
    camera: Camera
    recording: str
    first_frame: int = 0
    expect: Callable[[int], tuple[str, ImageRef]] | None = None
    partner: Clip | None = None
    T_partner_this: np.ndarray | None = None
    truth: Callable[[int], Truth | None] = lambda frame: None
    flow_truth: Callable[[int], FlowTruth | None] = lambda frame: None
    scene_flow_truth: Callable[[int], SceneFlowTruth | None] = lambda frame: None
    remedy: str = "Set stereo: false for this source."
    _views: dict[int, View] = field(default_factory=dict)

    def view(self, frame: int) -> View:
        """The view of a frame; one object for each, however many samples use it."""
        if frame not in self._views:
            image = self.entry(frame)[1]
            self._views[frame] = View(image, self.camera, self.recording, self.first_frame + frame)
        return self._views[frame]

    def entry(self, frame: int) -> tuple[str, ImageRef]:
        if frame in self.images:
            return self.images[frame]
        if self.expect is None:
            raise DataError(f"{self.name} has no frame {frame}.")
        return self.expect(frame)


def clip_samples(clip: Clip, wanted: Wanted, frames: Iterable[int] | None = None) -> list[Sample]:
    """The samples of a clip.

    Args:
        clip: Where the images come from.
        wanted: Which views a sample has.
        frames: The targets, all of which become samples, so that a missing image is reported when it is looked for;
            None takes every frame whose views all exist (so a clip's ends, which lack a neighbour, are left out).

    Raises:
        DataError: If stereo is wanted and there is no other camera.
    """
    if wanted.stereo and clip.partner is None:
        raise DataError(f"{clip.name} has no other camera, and stereo: true asks for it. {clip.remedy}")
    partner = clip.partner if wanted.stereo else None

    def complete(frame: int) -> bool:
        own = all(frame + offset in clip.images for offset in wanted.offsets)
        other = (0, *wanted.offsets) if wanted.stereo_sources else (0,)
        return own and (partner is None or all(frame + offset in partner.images for offset in other))

    chosen = [frame for frame in sorted(clip.images) if complete(frame)] if frames is None else list(frames)
    samples = []
    for frame in chosen:
        at_sources = [frame + offset for offset in wanted.offsets]
        samples.append(
            Sample(
                name=clip.entry(frame)[0],
                clip=clip.name,
                frame=frame,
                target=clip.view(frame),
                sources=tuple(clip.view(f) for f in at_sources),
                source_offsets=wanted.offsets,
                stereo=None if partner is None else partner.view(frame),
                T_stereo_target=None if partner is None else clip.T_partner_this,
                stereo_sources=tuple(partner.view(f) for f in at_sources) if partner and wanted.stereo_sources else (),
                truth=clip.truth(frame),
                flow_truth=clip.flow_truth(frame),
                scene_flow_truth=clip.scene_flow_truth(frame),
                near={step: clip.view(frame + step) for step in wanted.near if frame + step in clip.images},
            )
        )
    return samples


def make_camera(K: np.ndarray, size: tuple[int, int], where: str, known: bool = True) -> Camera:
    """A camera, after a look at whether its K can belong to images of that size.

    Raises:
        DataError: If K is no pinhole matrix, its principal point lies outside the image, or its focal length would
            mean a field of view below 5 or above 170 degrees.
    """
    K = np.array(K, np.float64)
    width, height = size
    shown = f"fx {K[0, 0]:.6g}, fy {K[1, 1]:.6g}, cx {K[0, 2]:.6g}, cy {K[1, 2]:.6g}" if K.shape == (3, 3) else str(K)
    problem = None
    if K.shape != (3, 3) or not np.isfinite(K).all() or not np.allclose(K[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1]):
        problem = "it is not of the form [[fx, s, cx], [0, fy, cy], [0, 0, 1]]"
    elif K[0, 0] <= 0 or K[1, 1] <= 0:
        problem = "its focal lengths should be positive"
    elif not (0 <= K[0, 2] <= width - 1 and 0 <= K[1, 2] <= height - 1):
        problem = "its principal point lies outside the image"
    else:
        for focal, extent, axis in ((K[0, 0], width, "horizontal"), (K[1, 1], height, "vertical")):
            angle = float(np.degrees(2 * np.arctan(extent / (2 * focal))))
            if not NARROWEST_DEG * min(1.0, extent / width) <= angle <= WIDEST_DEG:
                problem = f"it would mean a {axis} field of view of {angle:.3g} degrees"
    if problem:
        raise DataError(
            f"{where}: K ({shown}) does not fit images of {width}x{height}: {problem}. Give fx, fy, cx, cy in pixels "
            "of the image files (neither normalised nor of another size)."
        )
    if not (0.2 < K[0, 2] / width < 0.8 and 0.2 < K[1, 2] / height < 0.8):
        warnings.warn(
            f"{where}: the principal point ({K[0, 2]:.6g}, {K[1, 2]:.6g}) is far from the middle of {width}x{height} "
            "images. If K belongs to another image size, every depth and motion will be wrong.",
            stacklevel=2,
        )
    K.setflags(write=False)
    return Camera(K, (int(width), int(height)), known)


def nominal_K(size: tuple[int, int]) -> np.ndarray:
    """Monodepth2's K for all of KITTI: (0.58 W, 1.92 H, W / 2, H / 2). Off by up to 19 pixels in cx, 15 in cy."""
    width, height = size
    return np.array([[0.58 * width, 0, 0.5 * width], [0, 1.92 * height, 0.5 * height], [0, 0, 1]])


def require_samples(samples: list[Sample], source: Any, found: str) -> list[Sample]:
    """The samples, if there are any.

    Raises:
        DataError: If there are none; says what was found instead.
    """
    if samples:
        return samples
    raise DataError(f"{source.kind} source {source.root} gives no samples: {found}")
