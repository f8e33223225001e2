"""Pictures with their exact depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.cast import SKY, Hits, Rays, cast, image_rays, pixel_rays
from geossl.data.synthetic.columns import columns, put_columns
from geossl.data.synthetic.rig import Camera
from geossl.data.synthetic.shade import shade
from geossl.data.synthetic.world import Scene

SUBPIXELS = np.array([[0.32, -0.24], [-0.32, 0.24]], np.float32)  # beside the centre

STEP = np.float32(4 / 255)  # smaller steps of brightness are left as they are


@dataclass(frozen=True)
class Rendering:
    """What one camera sees.

    Attributes:
        image: (H, W, 3) float32 RGB in [0, 1], without sensor noise.
        depth: (H, W) float32 z-depth in metres through the pixel centres; 0 for the sky.
        objects: (H, W) uint16: 0 background, else the car's number.
    """

    image: NDArray[np.float32]
    depth: NDArray[np.float32]
    objects: NDArray[np.uint16]


def render_frame(
    scene: Scene, T_world_camera: NDArray[np.float64], camera: Camera, hits: Hits | None = None, smooth: bool = True
) -> Rendering:
    """Renders a scene.

    Args:
        scene: From `Street.at`.
        T_world_camera: (4, 4) pose of the camera.
        camera: Intrinsics and size.
        hits: What the rays through the pixel centres meet, where that is known already.
        smooth: Antialias silhouettes with three rays a pixel.
    """
    rays = image_rays(camera, T_world_camera)
    hits = cast(scene, rays) if hits is None else hits
    colours = shade(scene, rays, hits)
    if smooth:
        _smooth_edges(scene, rays, hits, camera, T_world_camera, colours)
    size = (camera.height, camera.width)
    return Rendering(
        np.ascontiguousarray(colours.T).reshape(*size, 3), depth_image(hits, size), object_map(scene, hits, size)
    )


def depth_image(hits: Hits, size: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) z-depth, 0 for the sky."""
    return np.where(hits.row == SKY, np.float32(0), hits.depth).reshape(size)


def object_map(scene: Scene, hits: Hits, size: tuple[int, int]) -> NDArray[np.uint16]:
    """(H, W) 0 for the background, else the car's number."""
    numbers = np.array([*(solid.car for solid in scene.solids), 0], np.uint16)
    return numbers[hits.solid].reshape(size)  # -1, ground and sky, reads the last


def _smooth_edges(
    scene: Scene,
    rays: Rays,
    hits: Hits,
    camera: Camera,
    T_world_camera: NDArray[np.float64],
    colours: NDArray[np.float32],
) -> None:
    """Replaces the colours of pixels at edges between faces by the mean of theirs and of two rays beside."""
    crown = np.array([*(solid.offset is None for solid in scene.solids), False])
    # the three faces of a crown are one surface
    row = np.where(crown[hits.solid], -2 - hits.solid, hits.row).reshape(camera.height, camera.width)
    green = colours[1].reshape(row.shape)
    edge = np.zeros(row.shape, bool)
    for a, b in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differs = (row[a] != row[b]) & (np.abs(green[a] - green[b]) > STEP)
        edge[a] |= differs
        edge[b] |= differs
    index = np.flatnonzero(edge)
    if index.size == 0:
        return
    pixels = (rays.pixels[:, index, None] + SUBPIXELS.T[:, None]).reshape(2, -1)
    fine = pixel_rays(camera.K, T_world_camera, np.ascontiguousarray(pixels))
    around = shade(scene, fine, cast(scene, fine), pixel=0.7).reshape(3, -1, len(SUBPIXELS)).sum(2)
    put_columns(colours, index, (columns(colours, index) + around) / (len(SUBPIXELS) + 1))
