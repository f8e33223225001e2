"""Exact ray casting: the first surface that each ray of a camera meets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.columns import columns, put_columns
from geossl.data.synthetic.rig import Camera
from geossl.data.synthetic.solids import intersect
from geossl.data.synthetic.world import BEHIND_M, CELL_M, GRASS, KERB, KERB_HEIGHT_M, PAVEMENT, ROAD, Scene

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]

BINS = 96
LARGE = 1500  # rays in a solid's box from which on it is cast by itself
NEAR_M = 0.05
GROUND_RANGE_M = 450.0
SOLID_RANGE_M = 330.0
SKY = -1
_EDGES = np.array([[0, 1], [0, 2], [0, 4], [1, 3], [1, 5], [2, 3], [2, 6], [3, 7], [4, 5], [4, 6], [5, 7], [6, 7]])


@dataclass(frozen=True)
class Rays:
    """Rays of one camera.

    Attributes:
        origin: (3,) the camera's position in the world.
        R_world_camera: (3, 3).
        K: (3, 3) pixels.
        pixels: (2, N) column and row.
        directions: (3, N) in the world, of length 1 along the camera's axis: a ray's parameter is its z-depth.
        grid: (height, width) where the pixels are all those of an image in order, else None.
    """

    origin: Array
    R_world_camera: Array
    K: Array
    pixels: Array32
    directions: Array32
    grid: tuple[int, int] | None


@dataclass(frozen=True)
class Hits:
    """What N rays meet.

    Attributes:
        depth: (N,) z-depth in metres, inf for the sky.
        row: (N,) int32 row of the face table, SKY for the sky.
        solid: (N,) int32 index of the solid, -1 for ground and sky.
        road: (3, N) s, d and heading of the road at hits on the ground, 0 elsewhere.
    """

    depth: Array32
    row: NDArray[np.int32]
    solid: NDArray[np.int32]
    road: Array32


def image_rays(camera: Camera, T_world_camera: Array) -> Rays:
    """The rays through all pixel centres."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float32)
    return pixel_rays(camera.K, T_world_camera, np.stack([u.ravel(), v.ravel()]), (camera.height, camera.width))


def pixel_rays(K: Array, T_world_camera: Array, pixels: Array32, grid: tuple[int, int] | None = None) -> Rays:
    """Rays through any (2, N) image positions."""
    x = (pixels[0] - np.float32(K[0, 2])) * np.float32(1 / K[0, 0])
    y = (pixels[1] - np.float32(K[1, 2])) * np.float32(1 / K[1, 1])
    R = T_world_camera[:3, :3].astype(np.float32)
    directions = np.stack([R[i, 0] * x + R[i, 1] * y + R[i, 2] for i in range(3)])
    return Rays(T_world_camera[:3, 3], T_world_camera[:3, :3], K, pixels, directions, grid)


def cast(scene: Scene, rays: Rays, limit: Array32 | None = None) -> Hits:
    """Finds the nearest surface along every ray: solids from near to far, then the ground.

    Args:
        scene: What there is.
        rays: N rays.
        limit: (N,) depth at which each ray ends; one that meets nothing before has that depth and the row SKY.
    """
    count = rays.pixels.shape[1]
    depth = np.full(count, np.inf, np.float32) if limit is None else limit.copy()
    row = np.full(count, SKY, np.int32)
    hit = np.full(count, -1, np.int32)
    solids, boxes, nearest = _visible_solids(scene, rays)
    spans = _spans_in_boxes(rays, boxes)
    counts = np.bincount(spans.box, spans.length, len(solids)).astype(np.int64)
    for i in np.flatnonzero(counts > LARGE):
        _, index = spans.rays(spans.box == i)
        index = index[depth[index] > nearest[i]]
        t, face = intersect(scene.solids[solids[i]], rays.origin, columns(rays.directions, index))
        closer = np.flatnonzero(t < depth[index])
        index = index[closer]
        depth[index] = t[closer]
        row[index] = scene.first_face[solids[i]] + face[closer]
        hit[index] = solids[i]
    # the many small ones at once: a call for each would cost more than its few rays
    which, ray = spans.rays(counts[spans.box] <= LARGE)
    few = np.flatnonzero(depth[ray] > nearest.astype(np.float32)[which])
    solid, index = solids[which[few]], ray[few]
    t, face = scene.table.intersect(solid, rays.origin, columns(rays.directions, index))
    closer = np.flatnonzero(t < depth[index])
    closer = closer[np.argsort(-t[closer], kind="stable")]  # the nearest is written last
    solid, index = solid[closer], index[closer]
    depth[index], hit[index] = t[closer], solid
    row[index] = scene.first_face[solid] + face[closer]
    road = _cast_ground(scene, rays, depth, row, hit)
    return Hits(depth, row, hit, road)


@dataclass(frozen=True)
class _Spans:
    """Runs of rays that lie inside boxes: run i holds the rays order[begin : begin + length] of box box[i]."""

    box: NDArray[np.int64]
    begin: NDArray[np.int64]
    length: NDArray[np.int64]
    order: NDArray[np.int64] | None

    def rays(self, of: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(P,) boxes and (P,) rays of the chosen runs."""
        which, position = _ragged(self.begin[of], self.length[of])
        return self.box[of][which], position if self.order is None else self.order[position]


def _spans_in_boxes(rays: Rays, boxes: Array) -> _Spans:
    """The rays whose pixels are inside boxes (left, top, right, bottom), and for scattered rays some beside them."""
    if rays.grid:
        height, width = rays.grid
        low = np.clip(np.ceil(boxes[:, :2]), 0, None).astype(np.int64)
        high = np.minimum(np.floor(boxes[:, 2:]), [width - 1, height - 1]).astype(np.int64)
        box, row = _ragged(low[:, 1], np.maximum(high[:, 1] + 1 - low[:, 1], 0))
        return _Spans(box, row * width + low[box, 0], np.maximum(high[box, 0] + 1 - low[box, 0], 0), None)
    # scattered rays are sorted into a coarse grid, whose rows of cells then hold runs of rays
    first = rays.pixels.min(1)[:, None]
    scale = np.float32(BINS * 0.9999) / np.maximum(rays.pixels.max(1)[:, None] - first, np.float32(1e-6))
    column, line = ((rays.pixels - first) * scale).astype(np.int16)
    cell = line * np.int16(BINS) + column
    order = np.argsort(cell, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=BINS * BINS))])
    corners = np.clip((boxes.reshape(-1, 2, 2) - first[:, 0]) * scale[:, 0], 0, BINS - 1).astype(np.int64)
    low, high = corners[:, 0], corners[:, 1]
    box, row = _ragged(low[:, 1], high[:, 1] + 1 - low[:, 1])
    begin = start[row * BINS + low[box, 0]]
    return _Spans(box, begin, start[row * BINS + high[box, 0] + 1] - begin, order)


def _ragged(start: NDArray[np.int64], length: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ranges start[i] .. start[i] + length[i] - 1 one after another: (P,) i and (P,) the numbers."""
    which = np.repeat(np.arange(len(start)), length)
    return which, np.arange(len(which)) + (start - np.cumsum(length) + length)[which]


def _visible_solids(scene: Scene, rays: Rays) -> tuple[NDArray[np.int64], Array, Array]:
    """Solids that may be seen, near ones first, with the boxes of pixels and the least depth they can have."""
    R = rays.R_world_camera
    points = (scene.corners - rays.origin) @ R  # (S, 8, 3) in the camera
    z = points[..., 2]
    seen = np.flatnonzero((z.max(1) > NEAR_M) & (z.min(1) < SOLID_RANGE_M))
    points, z = points[seen], z[seen]
    # a box that reaches behind the camera is clipped: its edges' crossings of the near plane join its corners
    a, b = points[:, _EDGES[:, 0]], points[:, _EDGES[:, 1]]
    za, zb = a[..., 2], b[..., 2]
    crosses = (za < NEAR_M) != (zb < NEAR_M)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(crosses, (NEAR_M - za) / (zb - za), 0.0)
    cut = a + share[..., None] * (b - a)
    points = np.concatenate([points, cut], 1)
    valid = np.concatenate([z >= NEAR_M, crosses], 1)
    depth = np.where(valid, points[..., 2], 1.0)
    u = rays.K[0, 0] * points[..., 0] / depth + rays.K[0, 2]
    v = rays.K[1, 1] * points[..., 1] / depth + rays.K[1, 2]
    low = [np.where(valid, x, np.inf).min(1) - 0.01 for x in (u, v)]
    high = [np.where(valid, x, -np.inf).max(1) + 0.01 for x in (u, v)]
    first, last = rays.pixels.min(1), rays.pixels.max(1)
    inside = (high[0] >= first[0]) & (low[0] <= last[0]) & (high[1] >= first[1]) & (low[1] <= last[1])
    nearest = np.where(valid, points[..., 2], np.inf).min(1)
    order = np.flatnonzero(inside)
    order = order[np.argsort(nearest[order], kind="stable")]
    boxes = np.clip(np.stack([low[0], low[1], high[0], high[1]], 1)[order], -1e6, 1e6)
    return seen[order], boxes, nearest[order]


def _cast_ground(scene: Scene, rays: Rays, depth: Array32, row: NDArray[np.int32], hit: NDArray[np.int32]) -> Array32:
    """Adds road, kerbs, pavements and grass to the hits, in place; returns the road coordinates."""
    street, kerb = scene.street, np.float32(scene.street.style.kerb_m)
    height = float(rays.origin[2])
    road = np.zeros((3, depth.size), np.float32)
    down = -rays.directions[2]
    level = np.sqrt(rays.directions[0] ** 2 + rays.directions[1] ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        high = np.float32(height - KERB_HEIGHT_M) / down
        index = np.flatnonzero((down > 0) & (high < depth) & (high * level < GROUND_RANGE_M))
    high, low = high[index], np.float32(height) / down[index]
    direction, origin = rays.directions[:2, index], rays.origin.astype(np.float32)

    def locate(which: NDArray[np.int64], t: Array32) -> Array32:
        x, y = origin[0] + direction[0, which] * t, origin[1] + direction[1, which] * t
        return np.stack(street.road.locate(x, y))

    everything = np.arange(index.size)
    place = locate(everything, high)
    t = high.copy()
    kind = np.where(np.abs(place[1]) < _paved(scene, place), np.int32(PAVEMENT), np.int32(GRASS))
    inner = np.flatnonzero(np.abs(place[1]) < kerb)  # passes below the kerb's top over the road
    ground = locate(inner, low[inner])
    place_high = place[1, inner]
    put_columns(place, inner, ground)
    t[inner], kind[inner] = low[inner], ROAD
    behind = np.abs(ground[1]) > kerb
    beyond = inner[behind]
    if beyond.size:  # meets the kerb's face between the two levels: find where |d| = kerb by false position
        side = np.sign(ground[1, behind])
        t0, t1 = high[beyond], low[beyond]
        f0, f1 = side * place_high[behind] - kerb, side * ground[1, behind] - kerb
        for _ in range(4):
            middle = t0 - f0 * (t1 - t0) / (f1 - f0)
            at = locate(beyond, middle)
            f = side * at[1] - kerb
            inside = f < 0
            t0, f0 = np.where(inside, middle, t0), np.where(inside, f, f0)
            t1, f1 = np.where(inside, t1, middle), np.where(inside, f1, f)
            f1 = np.where(f1 - f0 <= 0, f0 + np.float32(1e-6), f1)
        put_columns(place, beyond, at)
        t[beyond], kind[beyond] = middle, KERB
    visible = t < depth[index]
    index = index[visible]
    depth[index], row[index], hit[index] = t[visible], kind[visible], -1
    put_columns(road, index, place[:, visible])
    return road


def _paved(scene: Scene, place: Array32) -> Array32:
    """Distance from the centre line up to which the ground is paved, at (3, N) road coordinates."""
    paved = scene.street.style.paved
    cell = np.clip((place[0] + np.float32(BEHIND_M)) / np.float32(CELL_M), 0, paved.shape[1] - 1).astype(np.int32)
    return np.where(place[1] > 0, paved[0][cell], paved[1][cell])
