"""The solids a street is built of: convex polyhedra and leafy ellipsoids, with linear texture coordinates.

A solid is described in its own frame (x forward, y left, z up, origin on the ground) and moved into the world.
`Faces` says how each of its faces is painted; a hit names a face by its row in the street's face table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.columns import columns

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]

LEAF_WAVES = 5
LEAF_THRESHOLD = -0.6  # of a sum of waves with standard deviation 1: about a quarter of a crown are gaps


@dataclass(frozen=True)
class Faces:
    """M faces: a point's texture coordinates are `axes @ point + origin`, its colour `base + paint * tint`.

    Attributes:
        texture: (M,) rows of the texture set.
        axes: (M, 2, 3) tiles a metre.
        origin: (M, 2) tiles.
        normal: (M, 3) outward unit normals; of an ellipsoid's three rows, the axis whose plane carries the texture.
        tint: (M, 3) colour of the painted part.
    """

    texture: NDArray[np.int32]
    axes: Array
    origin: Array
    normal: Array
    tint: Array

    def __len__(self) -> int:
        return len(self.texture)

    def moved(self, T_b_a: Array) -> Faces:
        """The same faces in frame b."""
        R, t = T_b_a[:3, :3], T_b_a[:3, 3]
        axes = self.axes @ R.T
        return replace(self, axes=axes, origin=self.origin - axes @ t, normal=self.normal @ R.T)

    @staticmethod
    def concatenate(faces: Sequence[Faces]) -> Faces:
        names = ("texture", "axes", "origin", "normal", "tint")
        return Faces(*(np.concatenate([getattr(f, name) for f in faces]) for name in names))


@dataclass(frozen=True)
class Solid:
    """One convex solid in some frame.

    Attributes:
        faces: Its surface.
        offset: (F,) each face's plane is normal @ p = offset; None for an ellipsoid.
        centre: (3,) of the bounding box.
        corners: (8, 3) of the bounding box.
        to_unit: (3, 3) maps offsets from the centre into the unit sphere; used for an ellipsoid.
        leaves: (LEAF_WAVES, 4) wave vectors and phases, in the unit sphere, of the gaps between an ellipsoid's leaves.
        car: 0, or the car's number in object maps.
    """

    faces: Faces
    offset: Array | None
    centre: Array
    corners: Array
    to_unit: Array
    leaves: Array32 | None = None
    car: int = 0

    def moved(self, T_b_a: Array) -> Solid:
        """The same solid in frame b."""
        R, t = T_b_a[:3, :3], T_b_a[:3, 3]
        faces = self.faces.moved(T_b_a)
        return replace(
            self,
            faces=faces,
            offset=None if self.offset is None else self.offset + faces.normal @ t,
            centre=R @ self.centre + t,
            corners=self.corners @ R.T + t,
            to_unit=self.to_unit @ R.T,
        )


def intersect(solid: Solid, origin: Array, directions: Array32) -> tuple[Array32, NDArray[np.int32]]:
    """Where rays first meet a solid, from outside of it.

    Args:
        solid: In the rays' frame.
        origin: (3,) common start of the rays.
        directions: (3, N); distances count in their lengths.

    Returns:
        t: (N,) distance along the direction, inf where the ray misses.
        face: (N,) index of the face among the solid's; meaningless where the ray misses.
    """
    if solid.offset is None:
        return _intersect_ellipsoid(solid, origin, directions)
    normal = solid.faces.normal.astype(np.float32)
    distance = solid.offset - solid.faces.normal @ origin  # negative: the origin is on the face's outer side
    # a ray enters through all the faces that the origin is outside of before it leaves through one of the others
    entry = np.zeros(directions.shape[1], np.float32)
    face = np.zeros(directions.shape[1], np.int32)
    for i in np.flatnonzero(distance < 0):
        along = _dot(normal[i], directions)
        with np.errstate(divide="ignore"):
            t = np.where(along < 0, np.float32(distance[i]) / along, np.float32(np.inf))
        face[t > entry] = i
        np.maximum(entry, t, out=entry)
    hit = np.flatnonzero((entry > 0) & np.isfinite(entry))
    inside, entered = columns(directions, hit), entry[hit]
    stays = np.ones(hit.size, bool)
    for i in np.flatnonzero(distance >= 0):
        stays &= _dot(normal[i], inside) * entered < np.float32(distance[i])
    t = np.full(directions.shape[1], np.inf, np.float32)
    t[hit[stays]] = entered[stays]
    return t, face


def _dot(a: Array32, b: Array32) -> Array32:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _longest(q: Array32) -> NDArray[np.int32]:
    """(N,) which of the three components is largest in size."""
    x, y, z = np.abs(q)
    return np.where((x >= y) & (x >= z), 0, np.where(y >= z, 1, 2)).astype(np.int32)


def _intersect_ellipsoid(solid: Solid, origin: Array, directions: Array32) -> tuple[Array32, NDArray[np.int32]]:
    start = (solid.to_unit @ (origin - solid.centre)).astype(np.float32)
    m = solid.to_unit.astype(np.float32)
    d = np.stack([_dot(row, directions) for row in m])
    a, b = _dot(d, d), _dot(start, d)
    discriminant = b * b - a * np.float32(start @ start - 1)
    t = np.full(a.shape, np.inf, np.float32)
    face = np.zeros(a.shape, np.int32)
    index = np.flatnonzero((discriminant > 0) & (b < 0))
    root = np.sqrt(discriminant[index])
    for sign in (-1, 1):  # the back of the crown shows through the gaps of its front
        distance = (sign * root - b[index]) / a[index]
        q = start[:, None] + columns(d, index) * distance
        leaf = distance > 0
        if solid.leaves is not None:
            leaf &= leaf_density(solid.leaves, q) > LEAF_THRESHOLD
        at = index[leaf]
        t[at], face[at] = distance[leaf], _longest(columns(q, np.flatnonzero(leaf)))
        index, root = index[~leaf], root[~leaf]
    return t, face


def leaf_density(leaves: Array32, q: Array32) -> Array32:
    """(N,) a smooth random field with standard deviation 1 on points (3, N) of the unit sphere.

    `leaves` is (waves, 4), or (waves, 4, N) with a field of its own for each point.
    """
    total = np.zeros(q.shape[1], np.float32)
    for x, y, z, phase in leaves:
        total += np.sin(x * q[0] + y * q[1] + z * q[2] + phase)
    return total * np.float32((2 / len(leaves)) ** 0.5)


@dataclass(frozen=True)
class SolidTable:
    """Many solids' shapes in arrays, grouped by their number of faces (0: crowns), for rays met by different ones.

    Attributes:
        place: (S,) each solid's row in its group.
        kind: (S,) each solid's number of planes, 0 for a crown.
        planes: For each number F of planes, (n, F, 4) normals and offsets.
        crowns: (n, 12) to_unit by rows, then the centre.
        leaves: (LEAF_WAVES, 4, n).
    """

    place: NDArray[np.int64]
    kind: NDArray[np.int64]
    planes: dict[int, Array]
    crowns: Array
    leaves: Array32

    @staticmethod
    def of(solids: Sequence[Solid]) -> SolidTable:
        planes: dict[int, list[Array]] = {}
        crowns: list[Array] = []
        leaves: list[Array32] = [np.zeros((LEAF_WAVES, 4), np.float32)]  # so that there is a shape without any
        place, kind = [], []
        for solid in solids:
            if solid.offset is None:
                kind.append(0)
                place.append(len(crowns))
                crowns.append(np.concatenate([solid.to_unit.ravel(), solid.centre]))
                leaves.append(np.zeros((LEAF_WAVES, 4), np.float32) if solid.leaves is None else solid.leaves)
            else:
                kind.append(len(solid.offset))
                group = planes.setdefault(len(solid.offset), [])
                place.append(len(group))
                group.append(np.concatenate([solid.faces.normal, solid.offset[:, None]], 1))
        return SolidTable(
            np.array(place, np.int64),
            np.array(kind, np.int64),
            {count: np.stack(group) for count, group in planes.items()},
            np.array(crowns).reshape(-1, 12),
            np.ascontiguousarray(np.stack(leaves)[1:].transpose(1, 2, 0)),
        )

    def joined(self, other: SolidTable) -> SolidTable:
        """The solids of both."""
        planes = dict(self.planes)
        place = other.place.copy()
        place[other.kind == 0] += len(self.crowns)
        for count, group in other.planes.items():
            place[other.kind == count] += len(planes.get(count, ()))
            planes[count] = np.concatenate([planes[count], group]) if count in planes else group
        return SolidTable(
            np.concatenate([self.place, place]),
            np.concatenate([self.kind, other.kind]),
            planes,
            np.concatenate([self.crowns, other.crowns]),
            np.concatenate([self.leaves, other.leaves], 2),
        )

    def intersect(
        self, solid: NDArray[np.int64], origin: Array, directions: Array32
    ) -> tuple[Array32, NDArray[np.int32]]:
        """As the function `intersect`, for rays (3, N) that are each tried against a solid (N,) of their own."""
        t = np.full(solid.size, np.inf, np.float32)
        face = np.zeros(solid.size, np.int32)
        kind, place = self.kind[solid], self.place[solid]
        for count in np.unique(kind):
            at = np.flatnonzero(kind == count)
            d = columns(directions, at)
            if count == 0:
                t[at], face[at] = self._crowns(place[at], origin, d)
            else:
                t[at], face[at] = self._planes(self.planes[int(count)], place[at], origin, d)
        return t, face

    @staticmethod
    def _planes(
        planes: Array, place: NDArray[np.int64], origin: Array, d: Array32
    ) -> tuple[Array32, NDArray[np.int32]]:
        distances = (planes[..., 3] - planes[..., :3] @ origin).T.astype(np.float32)  # (F, n)
        normals = np.ascontiguousarray(planes[..., :3].transpose(1, 2, 0).astype(np.float32))  # (F, 3, n)
        entry = np.zeros(place.size, np.float32)
        face = np.zeros(place.size, np.int32)
        for i in range(len(distances)):
            distance = distances[i][place]
            at = np.flatnonzero(distance < 0)
            along = _dot(columns(normals[i], place[at]), columns(d, at))
            with np.errstate(divide="ignore"):
                t = np.where(along < 0, distance[at] / along, np.float32(np.inf))
            later = t > entry[at]
            entry[at[later]], face[at[later]] = t[later], i
        hit = np.flatnonzero((entry > 0) & np.isfinite(entry))
        for i in range(len(distances)):
            distance = distances[i][place[hit]]
            inside = (distance < 0) | (_dot(columns(normals[i], place[hit]), columns(d, hit)) * entry[hit] < distance)
            hit = hit[inside]
        t = np.full(place.size, np.inf, np.float32)
        t[hit] = entry[hit]
        return t, face

    def _crowns(self, place: NDArray[np.int64], origin: Array, d: Array32) -> tuple[Array32, NDArray[np.int32]]:
        form = self.crowns[:, :9].reshape(-1, 3, 3)
        starts = np.einsum("nij,nj->in", form, origin - self.crowns[:, 9:]).astype(np.float32)
        rows = np.ascontiguousarray(form.transpose(1, 2, 0).astype(np.float32))
        start = columns(starts, place)
        d = np.stack([_dot(columns(row, place), d) for row in rows])
        a, b = _dot(d, d), _dot(start, d)
        discriminant = b * b - a * (_dot(start, start) - 1)
        t = np.full(a.shape, np.inf, np.float32)
        face = np.zeros(a.shape, np.int32)
        index = np.flatnonzero((discriminant > 0) & (b < 0))
        root = np.sqrt(discriminant[index])
        for sign in (-1, 1):
            distance = (sign * root - b[index]) / a[index]
            q = columns(start, index) + columns(d, index) * distance
            leaf = (distance > 0) & (leaf_density(np.take(self.leaves, place[index], axis=2), q) > LEAF_THRESHOLD)
            at = index[leaf]
            t[at], face[at] = distance[leaf], _longest(columns(q, np.flatnonzero(leaf)))
            index, root = index[~leaf], root[~leaf]
        return t, face


def polyhedron(
    normals: Array,
    offsets: Array,
    low: Array,
    high: Array,
    paint: Sequence[tuple[int, Array, Array, Array]],
    car: int = 0,
) -> Solid:
    """A convex solid from its planes `normals @ p <= offsets`.

    Args:
        normals: (F, 3), of any length.
        offsets: (F,).
        low: (3,) lower corner of its bounding box.
        high: (3,) upper corner.
        paint: For each face its texture, axes (2, 3), origin (2,) and tint (3,); see `Faces`.
        car: Number in object maps.
    """
    length = np.linalg.norm(normals, axis=1)
    texture, axes, origin, tint = zip(*paint, strict=True)
    faces = Faces(
        np.array(texture, np.int32), np.stack(axes), np.stack(origin), normals / length[:, None], np.stack(tint)
    )
    return Solid(faces, offsets / length, 0.5 * (low + high), _box_corners(low, high), np.eye(3), car=car)


def ellipsoid(centre: Array, radii: Array, texture: int, tile_m: float, tint: Array, leaves: Array32 | None) -> Solid:
    """A crown: an ellipsoid, painted along its three axes, with gaps between the leaves."""
    axes = np.stack([np.eye(3)[[1, 2]], np.eye(3)[[0, 2]], np.eye(3)[[0, 1]]]) / tile_m
    faces = Faces(np.full(3, texture, np.int32), axes, np.full((3, 2), 0.37), np.eye(3), np.tile(tint, (3, 1)))
    return Solid(faces, None, centre, _box_corners(centre - radii, centre + radii), np.diag(1 / radii), leaves)


def _box_corners(low: Array, high: Array) -> Array:
    return np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])


BOX_NORMALS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float64)


def face_axes(normal: Array, tile_m: float) -> Array:
    """(2, 3) texture axes of a face: rows run down the wall, or across a roof."""
    if abs(normal[2]) > 0.7:
        return np.array([[1.0, 0, 0], [0, 1.0, 0]]) / tile_m
    across = np.array([-normal[1], normal[0], 0.0])
    return np.stack([across / np.linalg.norm(across), np.array([0, 0, -1.0])]) / tile_m


def box(
    low: Array,
    high: Array,
    side: int,
    top: int,
    tint: Array,
    tile_m: float = 10.24,
    top_tint: Array | None = None,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Solid:
    """A box whose walls carry the texture `side` and whose roof carries `top`."""
    offsets = np.concatenate([[high[0], -low[0]], [high[1], -low[1]], [high[2], -low[2]]])
    roof = tint if top_tint is None else top_tint
    paint = [
        (top if abs(n[2]) > 0.7 else side, face_axes(n, tile_m), np.array(shift), roof if abs(n[2]) > 0.7 else tint)
        for n in BOX_NORMALS
    ]
    return polyhedron(BOX_NORMALS, offsets, low, high, paint)


def prism(x: float, y: float, radius: float, low: float, high: float, texture: int, tint: Array) -> Solid:
    """An upright octagonal post."""
    angle = np.arange(8) * np.pi / 4 + np.pi / 8
    normals = np.concatenate([np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1), BOX_NORMALS[4:]])
    offsets = np.concatenate([radius + normals[:8] @ np.array([x, y, 0.0]), [high, -low]])
    paint = [(texture, face_axes(n, 2.56), np.zeros(2), tint) for n in normals]
    reach = radius / np.cos(np.pi / 8)
    return polyhedron(
        normals, offsets, np.array([x - reach, y - reach, low]), np.array([x + reach, y + reach, high]), paint
    )
