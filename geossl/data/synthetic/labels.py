"""Exact labels of a frame of the synthetic street, from the world they show.

A street is rigid except for its cars, so depth, object map, visibility and rigid motions say everything; the file that
holds them, and what follows from them, is `geossl.formats.street`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.cast import SKY, Hits, cast, image_rays, pixel_rays
from geossl.data.synthetic.render import depth_image, object_map
from geossl.data.synthetic.rig import LEFT, RIGHT
from geossl.data.synthetic.world import Scene, Street
from geossl.formats.street import FrameLabels, move, project

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

EDGE_PX = 1e-3  # rounding must not lose the image's first and last rows


def motions(
    street: Street,
    frame: int,
    to_frame: int,
    numbers: NDArray[np.uint16],
    camera: int = LEFT,
    to_camera: int = LEFT,
) -> tuple[Array, Array]:
    """(4, 4) T_b_a of what stands still and (N, 4, 4) of the cars, from a camera at a frame to one at another."""
    T_world_a = street.T_world_camera(frame, camera)
    T_b_world = np.linalg.inv(street.T_world_camera(to_frame, to_camera))
    still = T_b_world @ T_world_a
    cars = np.tile(still, (len(numbers), 1, 1))
    for i, number in enumerate(numbers):
        if street.is_moving(int(number)) and frame != to_frame:
            T_b_car = T_b_world @ street.T_world_car(int(number), to_frame)
            cars[i] = T_b_car @ np.linalg.inv(street.T_world_car(int(number), frame)) @ T_world_a
    return still, cars


def visible_in(
    scene: Scene, points: Array, rows: NDArray[np.int32], T_world_camera: Array, K: Array, hits: Hits
) -> Bools:
    """Where another camera sees the surface points of this one: inside its image and nothing before.

    A point is seen where each of the four pixels around its projection shows its own face or something behind it,
    and hidden where all show one other face before it; the rest is decided by a ray to the point itself.

    Args:
        scene: At the other camera's time.
        points: (3, H, W) in the other camera's frame.
        rows: (H, W) each point's row of the face table.
        T_world_camera: (4, 4) pose of the other camera.
        K: (3, 3) of both.
        hits: What the other camera's pixels show.

    Returns:
        (H, W) bool; False in the sky.
    """
    h, w = rows.shape
    pixels = project(points, K)
    last = np.array([w - 1, h - 1])[:, None, None]
    with np.errstate(invalid="ignore"):
        inside = ((pixels >= -EDGE_PX) & (pixels <= last + EDGE_PX)).all(0) & (rows != SKY)
    (u, v), z, row = pixels[:, inside], points[2][inside], rows[inside]
    if row.size == 0:
        return inside
    corner = np.clip(v.astype(np.int64), 0, h - 2) * w + np.clip(u.astype(np.int64), 0, w - 2)
    limit = (z * 0.998 - 0.01).astype(np.float32)
    crown = np.zeros(len(scene.faces), bool)
    for first in scene.first_face[scene.table.kind == 0]:
        crown[first : first + 3] = True
    # a crown is not flat, and has gaps
    leafy, near = crown[row], np.where(crown[row], limit - np.float32(0.2), limit)
    there = hits.row[corner]
    seen, hidden = np.ones(row.size, bool), (there != row) & (there != SKY) & ~crown[there]
    for pixel in (corner, corner + 1, corner + w, corner + w + 1):
        shown, depth = hits.row.take(pixel), hits.depth.take(pixel)
        same = shown == row
        seen &= (same & ~leafy) | (depth >= limit) | (same & (depth >= near))
        hidden &= (shown == there) & (depth < limit)
    unclear = np.flatnonzero(~(seen | hidden))
    if unclear.size:
        rays = pixel_rays(K, T_world_camera, np.stack([u[unclear], v[unclear]]).astype(np.float32))
        seen[unclear] = cast(scene, rays, limit[unclear]).row == SKY
    visible = np.zeros((h, w), bool)
    visible[inside] = seen
    return visible


def survey(street: Street, frame: int, camera: int) -> Hits:
    """What the pixels of a camera show at a frame."""
    return cast(street.at(frame), image_rays(street.camera, street.T_world_camera(frame, camera)))


def make_labels(street: Street, frame: int, hits_of: Callable[[Street, int, int], Hits] = survey) -> FrameLabels:
    """The labels of a left image; `hits_of` may keep what it found for other frames."""
    K, size = street.camera.K, (street.camera.height, street.camera.width)
    hits = hits_of(street, frame, LEFT)
    depth, objects = depth_image(hits, size), object_map(street.at(frame), hits, size)
    rows = hits.row.reshape(size)
    numbers = np.unique(objects[objects > 0])
    seen: dict[str, Bools] = {}
    transforms: dict[str, tuple[Array, Array]] = {}
    others = (("next", frame + 1, LEFT), ("previous", frame - 1, LEFT), ("right", frame, RIGHT))
    for name, to_frame, to_camera in others:
        still, cars = transforms[name] = motions(street, frame, to_frame, numbers, LEFT, to_camera)
        points = move(depth, objects, K, still, dict(zip(numbers, cars, strict=True)))
        there = street.T_world_camera(to_frame, to_camera)
        seen[name] = visible_in(street.at(to_frame), points, rows, there, K, hits_of(street, to_frame, to_camera))
    return FrameLabels(
        depth,
        objects,
        seen["next"],
        seen["previous"],
        seen["right"],
        K,
        transforms["right"][0],
        transforms["next"][0],
        transforms["previous"][0],
        np.linalg.inv(street.T_world_camera(0)) @ street.T_world_camera(frame),
        numbers,
        np.array([street.is_moving(int(n)) for n in numbers], bool),
        transforms["next"][1],
        transforms["previous"][1],
    )
