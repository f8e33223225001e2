"""LiDAR scans of the street: 64 beams against the exact surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.cast import SKY, cast, pixel_rays
from geossl.data.synthetic.world import Scene

RANGE_M = 100.0
FIELD_DEG = 100.0
STEP_DEG = 0.18
# like an HDL-64E: the upper 32 beams a third, the lower 32 half a degree apart
BEAMS_DEG = np.concatenate([2.0 - np.arange(32) / 3, -8.83 - np.arange(32) / 2])
# the beams' axes (x forward, y left, z up) as a camera (x right, y down, z forward)
_VELO_FROM_CAMERA = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def scan(
    scene: Scene, T_world_velo: NDArray[np.float64], noise_m: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(N, 4) x, y, z in metres and reflectance of the returns in the LiDAR's frame.

    The scan covers FIELD_DEG degrees ahead, what the cameras see and more, at the instant of the image. Beams into
    the sky or beyond RANGE_M return nothing.

    Args:
        scene: From `Street.at`.
        T_world_velo: (4, 4) pose of the LiDAR.
        noise_m: Standard deviation of the range; 0 for exact points.
        rng: Draws the noise.
    """
    azimuth = np.radians(np.arange(-FIELD_DEG / 2, FIELD_DEG / 2, STEP_DEG))
    elevation, azimuth = (a.ravel() for a in np.meshgrid(np.radians(BEAMS_DEG), azimuth, indexing="ij"))
    pixels = np.stack([-np.tan(azimuth), -np.tan(elevation) / np.cos(azimuth)]).astype(np.float32)
    directions = np.stack([np.ones_like(pixels[0]), -pixels[0], -pixels[1]])
    length = np.sqrt((directions * directions).sum(0))
    rays = pixel_rays(np.eye(3), T_world_velo @ _VELO_FROM_CAMERA, pixels)
    hits = cast(scene, rays, limit=np.float32(RANGE_M) / length)
    returned = hits.row != SKY
    points = directions[:, returned].astype(np.float64) * hits.depth[returned]
    if noise_m > 0:
        distance = length[returned] * hits.depth[returned]
        points = points * (1 + rng.normal(0, noise_m, distance.size) / distance)
    reflectance = scene.faces.tint.mean(1)[hits.row[returned]]
    return np.concatenate([points, reflectance[None]]).T.astype(np.float32)
