"""Point clouds as pictures: where points are drawn, and which hides which."""

import numpy as np
import pytest

from geossl.visualize_points import color_by_motion, raised_view, render_points

K = np.array([[20.0, 0, 10], [0, 20, 6], [0, 0, 1]])
SIZE = (13, 21)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def draw(
    points: list[tuple[float, float, float]], colors: list[tuple[int, int, int]], **options: object
) -> np.ndarray:
    options = {"T_view_camera": np.eye(4), "radius_px": 0} | options
    return render_points(np.array(points, np.float32), np.array(colors, np.uint8), K=K, size=SIZE, **options)  # type: ignore[arg-type]


def slow_render(points: np.ndarray, colors: np.ndarray, T: np.ndarray, radius_px: int) -> np.ndarray:
    """A z-buffer, point by point."""
    picture, depth = np.full((*SIZE, 3), 255, np.uint8), np.full(SIZE, np.inf)
    for point, color in zip(points, colors, strict=True):
        x, y, z = (T @ np.append(point.astype(np.float64), 1))[:3]
        if not z > 0.1:
            continue
        column, row = round(K[0, 0] * x / z + K[0, 2]), round(K[1, 1] * y / z + K[1, 2])
        for v in range(row - radius_px, row + radius_px + 1):
            for u in range(column - radius_px, column + radius_px + 1):
                if 0 <= v < SIZE[0] and 0 <= u < SIZE[1] and z < depth[v, u]:
                    depth[v, u], picture[v, u] = z, color
    return picture


def test_a_point_is_drawn_where_it_projects() -> None:
    picture = draw([(1, 0.5, 10)], [RED])  # 20 * 1 / 10 + 10, 20 * 0.5 / 10 + 6
    assert picture[7, 12].tolist() == list(RED)
    assert (picture.min(axis=2) < 255).sum() == 1


@pytest.mark.parametrize("order", [1, -1])
def test_the_nearer_point_hides_the_farther(order: int) -> None:
    points, colors = [(0, 0, 5), (0, 0, 9)][::order], [RED, BLUE][::order]
    assert draw(points, colors)[6, 10].tolist() == list(RED)
    assert draw(points, colors, radius_px=2)[4, 8].tolist() == list(RED)


def test_what_the_view_does_not_see_is_left_out() -> None:
    hidden = [(0, 0, -5), (0, 0, 0), (100, 0, 5), (0, -100, 5), (np.nan, 0, 5), (0, 0, np.inf)]
    assert (draw(hidden, [RED] * len(hidden), background=7) == 7).all()


@pytest.mark.parametrize("radius_px", [0, 1, 2])
def test_agrees_with_a_z_buffer_point_by_point(radius_px: int) -> None:
    rng = np.random.default_rng(radius_px)
    points = rng.uniform((-4, -3, -2), (4, 3, 14), (300, 3)).astype(np.float32)
    colors = rng.integers(0, 255, (300, 3), dtype=np.uint8)
    T = raised_view(1.5, back=2, right=-1, down_deg=10)
    drawn = render_points(points, colors, T, K, SIZE, radius_px)
    np.testing.assert_array_equal(drawn, slow_render(points, colors, T, radius_px))


def test_raised_view_looks_where_it_is_told() -> None:
    """5 above the camera and 3 behind it: the point (1, 0, 2) lies 5 ahead and 5 below."""
    T = raised_view(5, back=3, right=1, down_deg=45)
    np.testing.assert_allclose(T @ [1, 0, 2, 1], [0, 0, np.sqrt(50), 1], atol=1e-12)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(raised_view(0), np.eye(4))


def test_motion_has_the_wheel_s_colours_from_above() -> None:
    motion = np.array([(2, 0, 0), (0, 0, 0), (0, 9, 0), (0, 0, -2), (0, 0, 2), (np.nan, 0, 0)], np.float32)
    expected = [(255, 0, 0), (255, 255, 255), (255, 255, 255), (255, 234, 0), (103, 0, 255), (0, 0, 0)]
    assert color_by_motion(motion, 2).tolist() == [list(color) for color in expected]


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"points \(2, 3\) and colors \(1, 3\) should both be \(N, 3\)"):
        draw([(0, 0, 1), (0, 0, 2)], [RED])
