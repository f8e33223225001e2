"""Point clouds as pictures, without a 3-D viewer: points drawn as squares, the nearest on top.

Camera: x right, y down, z forward. Everything takes numpy arrays and returns uint8 RGB pictures (H, W, 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geossl.visualize import Array, Picture, colorize_flow

NEAREST = 0.1  # points nearer to the view are not drawn, in the unit of the points


def raised_view(up: float, back: float = 0.0, right: float = 0.0, down_deg: float = 0.0) -> NDArray[np.float64]:
    """(4, 4) T_view_camera of a view that stands beside the camera and looks the same way, or downwards.

    Args:
        up, back, right: Where the view stands, seen from the camera, in the unit of the points.
        down_deg: How far it looks down.

    Convention: up = 5, down_deg = 45: the point (0, 0, 5) of the camera lies in the middle of the view, at distance
        sqrt(50): T_view_camera @ (0, 0, 5, 1) = (0, 0, 7.07, 1).
    """
    sine, cosine = np.sin(np.radians(down_deg)), np.cos(np.radians(down_deg))
    R = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = -R @ np.array([right, -up, -back])
    return T


def render_points(
    points: Array,
    colors: NDArray[np.uint8],
    T_view_camera: Array,
    K: Array,
    size: tuple[int, int],
    radius_px: int = 1,
    background: int = 255,
) -> Picture:
    """Draws a point cloud from a view, each point as a square that hides what is farther.

    Args:
        points: (N, 3) in the camera's coordinates. Points that are not finite are left out.
        colors: (N, 3) uint8 RGB.
        T_view_camera: (4, 4), maps camera points to the view.
        K: (3, 3) pixels of the view.
        size: (height, width) of the picture.
        radius_px: A square has 2 radius_px + 1 pixels a side.
        background: Grey value where no point is.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if points.ndim != 2 or points.shape[1] != 3 or colors.shape != points.shape:
        raise ValueError(f"points {points.shape} and colors {colors.shape} should both be (N, 3).")
    T = np.asarray(T_view_camera, np.float64)
    finite = np.isfinite(points).all(axis=1)
    seen = points[finite].astype(np.float64) @ T[:3, :3].T + T[:3, 3]
    farthest_first = np.argsort(-seen[:, 2], kind="stable")[: np.count_nonzero(seen[:, 2] > NEAREST)]
    (x, y, z), colors = seen[farthest_first].T, colors[finite][farthest_first]
    u, v = np.rint(K[0, 0] * x / z + K[0, 2]), np.rint(K[1, 1] * y / z + K[1, 2])
    picture = np.full((*size, 3), background, np.uint8)
    depth = np.full(size, np.inf)
    for dv in range(-radius_px, radius_px + 1):
        for du in range(-radius_px, radius_px + 1):
            column, row = u + du, v + dv
            inside = (column >= 0) & (column < size[1]) & (row >= 0) & (row < size[0])
            at = row[inside].astype(np.intp), column[inside].astype(np.intp)
            layer, layer_colors = np.full(size, np.inf), np.zeros((*size, 3), np.uint8)
            # of equal places the last one stays, which is the nearest
            layer[at], layer_colors[at] = z[inside], colors[inside]
            nearer = layer < depth
            depth[nearer], picture[nearer] = layer[nearer], layer_colors[nearer]
    return picture


def color_by_motion(motion: Array, max_motion: float) -> NDArray[np.uint8]:
    """(N, 3) motion -> (N, 3) colours of its direction seen from above, as on `colorize_flow`'s wheel.

    Away from the camera is up on the wheel (violet), towards it down (yellow), to the right red; no motion is white.

    Args:
        motion: In the camera's coordinates; not-finite values are black.
        max_motion: Length of the full colour, in the unit of the motion.
    """
    from_above = np.stack([motion[:, 0], -motion[:, 2]], axis=1)
    return colorize_flow(from_above[None], max_motion)[0]
