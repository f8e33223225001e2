"""Colours of what rays hit: textures, road markings, light, shadows and sky.

Everything here is a function of the surface point (and of the pixel's footprint on it, over which it is averaged),
never of the viewing direction, so that two views of a point show one colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.cast import SKY, Hits, Rays
from geossl.data.synthetic.columns import columns, put_columns
from geossl.data.synthetic.textures import Texture
from geossl.data.synthetic.trajectory import LANE_M
from geossl.data.synthetic.world import BEHIND_M, CELL_M, GRASS, GROUND_ROWS, KERB, ROAD, Scene

Array32 = NDArray[np.float32]

HAZE_M = 900.0
BLOCK = 16384  # points at a time: what fits the cache is faster


def shade(scene: Scene, rays: Rays, hits: Hits, pixel: float = 1.0) -> Array32:
    """(3, N) colours in [0, 1] of hits; `pixel` is the width of the area that each ray stands for, in pixels."""
    colours = np.empty((3, hits.depth.size), np.float32)
    sky = np.flatnonzero(hits.row == SKY)
    put_columns(colours, sky, _sky(scene, columns(rays.directions, sky)))
    surface = np.flatnonzero(hits.row != SKY)
    faces = _used_faces(scene, rays, hits.row[surface])
    for start in range(0, surface.size, BLOCK):
        index = surface[start : start + BLOCK]
        put_columns(colours, index, _surfaces(scene, rays, hits, faces, index, pixel))
    return np.clip(colours, 0, 1)


@dataclass(frozen=True)
class _UsedFaces:
    """The rows of the face table that are seen, in single precision and relative to the camera."""

    place: NDArray[np.int64]
    texture: NDArray[np.int32]
    axes: Array32
    origin: Array32
    normal: Array32
    tint: Array32


def _used_faces(scene: Scene, rays: Rays, row: NDArray[np.int32]) -> _UsedFaces:
    faces = scene.faces
    seen = np.bincount(row, minlength=len(faces)) > 0
    used = np.flatnonzero(seen)
    axes = faces.axes[used]
    origin = faces.origin[used] + axes @ rays.origin
    return _UsedFaces(
        np.cumsum(seen) - 1,
        faces.texture[used],
        np.ascontiguousarray(axes.transpose(1, 2, 0)).astype(np.float32),  # (2, 3, M)
        (origin - np.floor(origin)).T.astype(np.float32),
        np.ascontiguousarray(faces.normal[used].T).astype(np.float32),
        np.ascontiguousarray(faces.tint[used].T).astype(np.float32),
    )


def _surfaces(
    scene: Scene, rays: Rays, hits: Hits, faces: _UsedFaces, index: NDArray[np.int64], pixel: float
) -> Array32:
    style, row = scene.street.style, hits.row[index]
    place = faces.place[row]
    t, directions = hits.depth[index], columns(rays.directions, index)
    offset = directions * t  # from the camera to the point, world axes
    normal = columns(faces.normal, place)
    _bend_normals(scene, rays, hits, index, offset, normal)
    # how the point moves on the surface when the pixel moves by one column or row
    across = _dot(normal, directions)
    across = np.where(np.abs(across) < 1e-3, np.copysign(np.float32(1e-3), across), across)
    steps = []
    for column in range(2):
        step = (rays.R_world_camera[:, column] * (pixel / rays.K[column, column])).astype(np.float32)
        along = _dot(normal, step) / across
        steps.append(t * (step[:, None] - directions * along))
    uv, jacobian = np.empty((2, index.size), np.float32), np.empty((2, 2, index.size), np.float32)
    for i in range(2):
        axis = columns(faces.axes[i], place)
        uv[i] = faces.origin[i][place] + _dot(axis, offset)
        jacobian[i, 0], jacobian[i, 1] = _dot(axis, steps[0]), _dot(axis, steps[1])
    ground = np.flatnonzero(row < GROUND_ROWS)
    road = columns(hits.road, index[ground])
    span = _road_steps(road, [columns(step, ground) for step in steps])
    _follow_road(row[ground], road, span, uv, jacobian, ground, offset, rays)
    texel = scene.street.textures.sample(faces.texture[place], uv, jacobian)
    colours = texel[:3] + texel[3] * columns(faces.tint, place)
    lit = np.clip(_dot(style.to_sun.astype(np.float32), normal), 0, 1)
    sky_light = np.ones_like(lit)
    if ground.size:
        on_ground = columns(offset, ground)
        position = on_ground + rays.origin.astype(np.float32)[:, None]
        painted = _paint_ground(scene, row[ground], road, span, position, columns(colours, ground))
        put_columns(colours, ground, painted)
        sky_light[ground] = _under_cars(scene, rays, on_ground)
        lit[ground] *= _sunlit(scene, road, span) * sky_light[ground]
    # walls see less of the sky than the ground, undersides least
    sky_light *= np.float32(0.86) + np.float32(0.14) * normal[2]
    light = style.ambient[:, None].astype(np.float32) * sky_light + style.sun[:, None].astype(np.float32) * lit
    haze = np.exp(t * np.float32(-1 / HAZE_M))
    return colours * light * haze + style.horizon.astype(np.float32)[:, None] * (1 - haze)


def _dot(a: Array32, b: Array32) -> Array32:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _bend_normals(
    scene: Scene, rays: Rays, hits: Hits, index: NDArray[np.int64], offset: Array32, normal: Array32
) -> None:
    """Writes the true normals of crowns and kerbs into `normal`."""
    solid, table = hits.solid[index], scene.table
    leafy = np.flatnonzero((solid >= 0) & (table.kind[solid] == 0))
    if leafy.size:
        crowns = table.crowns.T.astype(np.float32)
        crowns[9:] = (rays.origin[:, None] - table.crowns.T[9:]).astype(np.float32)
        crown = columns(crowns, table.place[solid[leafy]])
        point = columns(offset, leafy) + crown[9:]
        unit = [_dot(crown[3 * i : 3 * i + 3], point) for i in range(3)]
        bent = np.stack([crown[i] * unit[0] + crown[3 + i] * unit[1] + crown[6 + i] * unit[2] for i in range(3)])
        put_columns(normal, leafy, bent / np.sqrt(_dot(bent, bent)))
    kerb = np.flatnonzero(hits.row[index] == KERB)
    _, d, heading = columns(hits.road, index[kerb])
    side = np.sign(d)
    put_columns(normal, kerb, np.stack([side * np.sin(heading), -side * np.cos(heading), np.zeros_like(d)]))


def _road_steps(place: Array32, steps: list[Array32]) -> Array32:
    """(2, 2, N) change of (s, d) by one pixel column [:, 0] and row [:, 1]."""
    cos, sin = np.cos(place[2]), np.sin(place[2])
    along = np.stack([step[0] * cos + step[1] * sin for step in steps])
    return np.stack([along, np.stack([step[1] * cos - step[0] * sin for step in steps])])


def _follow_road(
    row: NDArray[np.int32],
    place: Array32,
    span: Array32,
    uv: Array32,
    jacobian: Array32,
    ground: NDArray[np.int64],
    offset: Array32,
    rays: Rays,
) -> None:
    """Lays paving stones, asphalt and kerbstones along the road instead of along the world's axes."""
    for kind, tile in ((ROAD, 8.0), (2, 5.12), (KERB, 5.0)):
        which = np.flatnonzero(row == kind)
        at = ground[which]
        scale = np.float32(1 / tile)
        uv[0, at] = place[0, which] * scale
        put_columns(jacobian[0], at, columns(span[0], which) * scale)
        if kind == KERB:
            uv[1, at] = (offset[2, at] + np.float32(rays.origin[2])) * scale
        else:
            uv[1, at] = place[1, which] * scale
            put_columns(jacobian[1], at, columns(span[1], which) * scale)


def _covered(x: Array32, low: Array32 | float, high: Array32 | float, width: Array32) -> Array32:
    """Share of [x - width/2, x + width/2] that lies in [low, high]."""
    return np.clip((np.minimum(x + width / 2, high) - np.maximum(x - width / 2, low)) / width, 0, 1)


def _covered_periodic(x: Array32, length: float, period: float, width: Array32) -> Array32:
    """As `_covered` for the intervals [k period, k period + length]."""

    def integral(at: Array32) -> Array32:
        whole = np.floor(at * np.float32(1 / period))
        return whole * np.float32(length) + np.minimum(at - whole * np.float32(period), np.float32(length))

    half = width * np.float32(0.5)
    covered: Array32 = (integral(x + half) - integral(x - half)) / width
    return covered


def _paint_ground(
    scene: Scene, row: NDArray[np.int32], place: Array32, span: Array32, position: Array32, colours: Array32
) -> Array32:
    """Markings, repairs, covers and wheel tracks on the road; large stains everywhere."""
    street, style = scene.street, scene.street.style
    s, d, _ = place
    # every filter is a box around the point, as wide as the pixel's footprint along s and d
    ws = np.abs(span[0]).sum(0) + np.float32(0.01)
    wd = np.abs(span[1]).sum(0) + np.float32(0.01)
    coarse = np.float32(1 / 47)
    wide = np.zeros((2, 2, s.size), np.float32)
    wide[0, 0] = wide[1, 1] = np.maximum(ws, wd) * coarse
    at = position[:2] * coarse + np.float32(0.3)
    stain = street.textures.sample(np.full(s.size, int(Texture.CLOUDS), np.int32), at, wide)[3]
    gain = 0.7 + 0.6 * stain
    kerb = style.kerb_m
    edge = np.abs(d)
    on_road = row == ROAD
    cell = np.floor((s + np.float32(BEHIND_M)) / 6).astype(np.int32)
    inside = s + np.float32(BEHIND_M) - 6 * cell.astype(np.float32)
    cell = np.clip(cell, 0, len(style.patches) - 1)
    p = style.patches[cell].T
    gain = gain * np.where(on_road, 1 + (p[4] - 1) * _covered(inside, p[0], p[1], ws) * _covered(d, p[2], p[3], wd), 1)
    c = style.covers[cell].T
    radius = np.sqrt((inside - c[0]) ** 2 + (d - c[1]) ** 2)
    cover = np.clip((0.33 - radius) / np.maximum(ws, wd) + 0.5, 0, 1)
    ring = cover - 0.6 * np.clip((0.27 - radius) / np.maximum(ws, wd) + 0.5, 0, 1)
    gain = gain * np.where(on_road, 1 - 0.6 * ring, 1)
    for track in (LANE_M / 2 - 0.75, LANE_M / 2 + 0.75):
        gain = gain * np.where(on_road, 1 - 0.11 * np.exp(-(((edge - track) / 0.28) ** 2)), 1)
    gutter = np.exp(-np.maximum(kerb - edge, 0) / 0.25) * on_road  # dirt
    colours = colours * (gain * (1 - 0.35 * gutter)).astype(np.float32)
    length, period = style.dash_m
    paint = _covered(d, -0.07, 0.07, wd) * _covered_periodic(s, length, period, ws)
    paint = paint + _covered(edge, LANE_M - 0.06, LANE_M + 0.06, wd)
    paint = paint + _covered(edge, LANE_M, kerb - 0.25, wd) * _covered_periodic(s + 3, 0.1, 6.0, ws)
    first, last = float(s.min()), float(s.max())
    for crossing in style.crossings[(style.crossings > first - 5) & (style.crossings < last + 2)]:
        on = _covered(s, float(crossing), float(crossing) + 3.2, ws) * _covered(edge, -1.0, kerb - 0.4, wd)
        zebra = on * _covered_periodic(d, 0.5, 1.0, wd)
        paint = np.where(on > 0, paint * (1 - on) + zebra, paint)
    worn = np.clip(0.55 + 0.9 * stain, 0.5, 0.95)
    paint = np.where(on_road, np.clip(paint, 0, 1) * worn, 0).astype(np.float32)
    colours = colours * (1 - paint) + np.float32(0.88) * paint
    stone = np.where((row != ROAD) & (row != GRASS), _covered(edge, kerb - 0.1, kerb + 0.16, wd), 0).astype(np.float32)
    joint = 1 - 0.45 * _covered_periodic(s, 0.03, 1.0, ws) * stone
    kerb_tint = street.tints["kerb"].astype(np.float32)[:, None]
    stone_colour = colours.mean(0) * np.float32(0.4) + kerb_tint * np.float32(0.36)
    return (colours * (1 - stone) + stone_colour * stone) * joint.astype(np.float32)


def _sunlit(scene: Scene, place: Array32, span: Array32) -> Array32:
    """(N,) share of direct sun on the ground beside the rows of houses."""
    style = scene.street.style
    s, d, heading = place
    to_sun = style.to_sun.astype(np.float32)
    across = to_sun[1] * np.cos(heading) - to_sun[0] * np.sin(heading)
    along = to_sun[0] * np.cos(heading) + to_sun[1] * np.sin(heading)
    left = across > 0
    width = np.abs(span).sum((0, 1)) + np.float32(0.25)
    across = np.where(np.abs(across) < 0.02, np.copysign(np.float32(0.02), across), across)
    front = style.kerb_m + 3.0
    way = np.maximum(np.where(left, front - d, front + d) / np.abs(across), 0)
    at = (s + way * along + np.float32(BEHIND_M)) / np.float32(CELL_M)
    last = style.shade_height.shape[1] - 2
    at = np.clip(at, 0, last)
    cell = at.astype(np.int32)
    part = at - cell
    profile = np.where(style.shade_front < 1e3, style.shade_height, 0)

    def read(row: int) -> Array32:
        return profile[row][cell] * (1 - part) + profile[row][cell + 1] * part

    height = np.where(left, read(0), read(1))
    shadow = np.clip((height - way * to_sun[2]) / (width * to_sun[2] / np.abs(across) + 0.1) + 0.5, 0, 1)
    return (1 - np.where(height > 0.1, shadow, 0)).astype(np.float32)


def _under_cars(scene: Scene, rays: Rays, offset: Array32) -> Array32:
    """(N,) share of the light that cars leave on the ground around them."""
    light = np.ones(offset.shape[1], np.float32)
    if offset.shape[1] == 0:
        return light
    for T in scene.car_poses:
        away = T[:3, 3] - rays.origin
        if np.hypot(away[0], away[1]) > 90 or away @ rays.R_world_camera[:, 2] < -4:
            continue
        x, y = offset[0] - np.float32(away[0]), offset[1] - np.float32(away[1])
        near = np.flatnonzero((np.abs(x) < 3.5) & (np.abs(y) < 3.5))
        if near.size == 0:
            continue
        cos, sin = np.float32(T[0, 0]), np.float32(T[1, 0])
        u, v = np.abs(x[near] * cos + y[near] * sin), np.abs(y[near] * cos - x[near] * sin)
        dark = np.clip((2.35 - u) / 0.5, 0, 1) * np.clip((1.15 - v) / 0.45, 0, 1)
        light[near] *= 1 - np.float32(0.8) * dark.astype(np.float32)
    return light


def _sky(scene: Scene, directions: Array32) -> Array32:
    """(3, N) colours at infinity: gradient, clouds and a line of distant woods and hills."""
    style, textures = scene.street.style, scene.street.textures
    level = np.sqrt(directions[0] ** 2 + directions[1] ** 2)
    up = directions[2] / level
    unit = directions[:2] / level
    part = np.clip(up * 2.2, 0, 1)[None] ** np.float32(0.7)
    colours = style.horizon.astype(np.float32)[:, None] * (1 - part) + style.sky.astype(np.float32)[:, None] * part
    plane = unit / (np.maximum(up, 0) + np.float32(0.12))
    texture = np.full(up.size, int(Texture.CLOUDS), np.int32)
    fine = np.zeros((2, 2, up.size), np.float32)
    fine[0, 0] = fine[1, 1] = 0.004
    cloud = textures.sample(texture, plane * np.float32(0.11), fine)[0]
    cloud = np.clip((cloud - 0.42) * 3.2, 0, 1) * np.float32(style.clouds) * np.clip(up * 14, 0, 1)
    white = np.float32(0.97) - np.float32(0.12) * np.clip(up, 0, 1)
    colours = colours * (1 - cloud) + white * cloud
    azimuth = np.arctan2(unit[1], unit[0])
    fine *= 0.25
    ridge = textures.sample(texture, np.stack([azimuth * np.float32(0.35), np.full_like(azimuth, 0.2)]), fine)
    top = 0.015 + 0.07 * (ridge[0] - 0.3) + 0.02 * (ridge[3] - 0.5)
    hill = np.clip((top - up) * 500 + 0.5, 0, 1)
    shade = textures.sample(texture, np.stack([azimuth * 2, up * 2]).astype(np.float32), fine)[3]
    leaf, air = (colour.astype(np.float32)[:, None] for colour in (style.leaf * 0.45, style.horizon * 0.38))
    wood: Array32 = leaf * (0.55 + 0.9 * shade) + air
    return colours * (1 - hill) + wood * hill
