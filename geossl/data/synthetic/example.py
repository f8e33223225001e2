"""A small batch of the street with its truth, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.labels import motions, survey, visible_in
from geossl.data.synthetic.options import StreetOptions
from geossl.data.synthetic.render import Rendering, render_frame
from geossl.data.synthetic.rig import LEFT, RIGHT
from geossl.data.synthetic.world import Street, make_street
from geossl.formats.street import move, project

if TYPE_CHECKING:
    from torch import Tensor

    from geossl.types import Batch

SKY_DEPTH_M = 1e4


@dataclass(frozen=True)
class StreetExample:
    """A batch of one sample and what is true of it. Sources are the frames before and after, in that order.

    Attributes:
        batch: Float images in [0, 1]: target (left camera), two sources, stereo (right camera), stereo sources.
        depth: (1, 1, H, W) z-depth of the target in metres; SKY_DEPTH_M in the sky, so that it can be warped.
        stereo_depth: (1, 1, H, W) z-depth of the stereo image, likewise.
        source_depths: (1, 1, H, W) z-depth of each source, likewise.
        valid: (1, 1, H, W) bool, False in the target's sky.
        static: (1, 1, H, W) bool, False on cars with their own motion.
        T_source_target: (1, 4, 4) for each source, metres.
        T_stereo_target: (1, 4, 4) metres.
        flow: (1, 2, H, W) from the target to each source, pixels; the cars' own motion included.
        disparity_px: (1, 1, H, W) of the target, 0 in the sky.
        visible: (1, 1, H, W) bool for each source, True where the target's surface point is seen in that source.
        visible_stereo: (1, 1, H, W) bool, likewise in the stereo image.
    """

    batch: Batch
    depth: Tensor
    stereo_depth: Tensor
    source_depths: tuple[Tensor, Tensor]
    valid: Tensor
    static: Tensor
    T_source_target: tuple[Tensor, Tensor]
    T_stereo_target: Tensor
    flow: tuple[Tensor, Tensor]
    disparity_px: Tensor
    visible: tuple[Tensor, Tensor]
    visible_stereo: Tensor


@lru_cache(maxsize=4)
def _street(options: StreetOptions) -> Street:
    return make_street(options, sequence=0)


def street_example(
    width: int = 160,
    height: int = 64,
    seed: int = 0,
    frame: int = 5,
    noise: float = 0.0,
    moving_cars: int = 0,
    curves: float = 1.0,
) -> StreetExample:
    """Renders a target with two sources and stereo, and everything true of them.

    Args:
        width: Pixels.
        height: Pixels.
        seed: Another street for each.
        frame: Target's frame of a drive at 10 Hz.
        noise: Standard deviation of the sensor noise in 8-bit levels.
        moving_cars: Cars with their own motion.
        curves: Strength of the road's curves.
    """
    import torch

    from geossl.types import Batch, Frame

    options = StreetOptions(
        sequences=1,
        frames=max(frame + 1, 40),
        width=width,
        height=height,
        seed=seed,
        noise=noise,
        moving_cars=moving_cars,
        standing=0.0,
        curves=curves,
    )
    street = _street(options)
    K = street.camera.K
    places = [(f, camera) for f in (frame - 1, frame, frame + 1) for camera in (LEFT, RIGHT)]
    hits = {place: survey(street, *place) for place in places}
    views = {
        (f, camera): render_frame(street.at(f), street.T_world_camera(f, camera), street.camera, hits[f, camera])
        for f, camera in places
    }
    target = views[frame, LEFT]
    rng = np.random.default_rng((seed, frame, 6))

    def image(view: Rendering) -> Frame:
        pixels = view.image
        if noise > 0:
            pixels = np.clip(pixels + rng.normal(0, noise / 255, pixels.shape), 0, 1).astype(np.float32)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
        return Frame(tensor, tensor, torch.from_numpy(K.astype(np.float32))[None])

    def tensor(array: NDArray[np.generic]) -> Tensor:
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        array = array[None] if array.ndim == 2 else array
        return torch.from_numpy(np.ascontiguousarray(array))[None]

    def matrix(T: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(T.astype(np.float32))[None]

    def depth(view: Rendering) -> Tensor:
        return tensor(np.where(view.depth > 0, view.depth, np.float32(SKY_DEPTH_M)))

    numbers = np.unique(target.objects[target.objects > 0])
    h, w = target.depth.shape
    rows = hits[frame, LEFT].row.reshape(h, w)
    v, u = np.mgrid[0:h, 0:w]
    here = np.stack([u, v])
    transforms, flows, seen = [], [], []
    for f, camera in ((frame - 1, LEFT), (frame + 1, LEFT), (frame, RIGHT)):
        T, T_cars = motions(street, frame, f, numbers, LEFT, camera)
        points = move(target.depth, target.objects, K, T, dict(zip(numbers, T_cars, strict=True)))
        transforms.append(matrix(T))
        flows.append(tensor(project(points, K) - here))
        there = street.T_world_camera(f, camera)
        seen.append(tensor(visible_in(street.at(f), points, rows, there, K, hits[f, camera])))
    moving = [n for n in numbers if street.is_moving(int(n))]
    batch = Batch(
        target=image(target),
        sources=(image(views[frame - 1, LEFT]), image(views[frame + 1, LEFT])),
        source_offsets=(-1, 1),
        stereo=image(views[frame, RIGHT]),
        T_stereo_target=transforms[2],
        stereo_sources=(image(views[frame - 1, RIGHT]), image(views[frame + 1, RIGHT])),
        names=(f"street/{seed}/{frame:010d}",),
    )
    valid = target.depth > 0
    return StreetExample(
        batch=batch,
        depth=depth(target),
        stereo_depth=depth(views[frame, RIGHT]),
        source_depths=(depth(views[frame - 1, LEFT]), depth(views[frame + 1, LEFT])),
        valid=tensor(valid),
        static=tensor(~np.isin(target.objects, moving)),
        T_source_target=(transforms[0], transforms[1]),
        T_stereo_target=transforms[2],
        flow=(flows[0], flows[1]),
        disparity_px=tensor(np.where(valid, -flows[2][0, 0].numpy(), 0)),
        visible=(seen[0], seen[1]),
        visible_stereo=seen[2],
    )
