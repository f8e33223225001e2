"""Pictures: colours mean what their range says."""

import base64
import html
import json
import re
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import torch
from torchvision.utils import flow_to_image

from geossl import report
from geossl.visualize import (
    colorize,
    colorize_depth,
    colorize_depth_error,
    colorize_disparity,
    colorize_flow,
    colorize_flow_error,
    flow_legend,
    overlay_points,
    plot_curves,
    plot_trajectories,
    png_bytes,
    stack,
    value_range,
)


def color(share: float, name: str = "magma") -> list[int]:
    """The 8-bit colour of a share of the range."""
    index = round(share * 255)
    return [round(255 * c) for c in matplotlib.colormaps[name](index / 255)[:3]]


def test_colorize_maps_the_range_and_clips() -> None:
    picture = colorize(np.array([[0.0, 1.0, 0.5, -5.0, 9.0, np.nan]]), 0.0, 1.0)
    assert picture.dtype == np.uint8
    assert picture[0].tolist() == [color(0), color(1), color(128 / 255), color(0), color(1), [0, 0, 0]]


@pytest.mark.parametrize("low, high", [(1.0, 1.0), (2.0, 1.0), (0.0, np.nan)])
def test_colorize_refuses_an_empty_range(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="range"):
        colorize(np.zeros((2, 2)), low, high)


def test_colorize_refuses_channels() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2, 3\); expected \(H, W\)"):
        colorize(np.zeros((2, 2, 3)), 0, 1)


def test_depth_colours_are_linear_in_inverse_depth() -> None:
    picture = colorize_depth(np.array([[2.0, 10.0, 100.0, 0.0, np.inf]]), min_depth=2.0, max_depth=100.0)
    middle = (1 / 10 - 1 / 100) / (1 / 2 - 1 / 100)
    assert picture[0].tolist() == [color(1), color(middle), color(0), [0, 0, 0], color(0)]


def test_fixed_range_gives_equal_colours_in_two_pictures() -> None:
    a, b = np.array([[5.0, 8.0]]), np.array([[5.0, 60.0]])
    assert (colorize_depth(a, 3, 80)[0, 0] == colorize_depth(b, 3, 80)[0, 0]).all()
    assert (colorize_depth(a)[0, 0] != colorize_depth(b)[0, 1]).any()


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_constant_maps_are_drawn(value: float) -> None:
    assert colorize_depth(np.full((3, 4), value)).shape == (3, 4, 3)
    assert colorize_disparity(np.full((3, 4), value)).shape == (3, 4, 3)


def test_value_range_ignores_what_is_not_finite() -> None:
    assert value_range(np.array([1.0, 2.0, 3.0, np.nan, np.inf]), (0, 100)) == (1.0, 3.0)
    assert value_range(np.array([np.nan])) == (0.0, 1.0)


def test_disparity_colours_start_at_zero() -> None:
    assert colorize_disparity(np.array([[0.0, 50.0, -1.0]]), 50.0)[0].tolist() == [color(0), color(1), [0, 0, 0]]


def test_error_colours_are_relative_and_black_without_truth() -> None:
    depth, truth = np.array([[10.0, 13.0, 10.0]]), np.array([[10.0, 10.0, 0.0]])
    picture = colorize_depth_error(depth, truth, limit=0.3, spread_px=0)
    assert picture[0].tolist() == [color(0, "turbo"), color(1, "turbo"), [0, 0, 0]]


def test_error_labels_are_widened_without_moving() -> None:
    truth = np.zeros((7, 7))
    truth[3, 3] = 10
    drawn = colorize_depth_error(np.full((7, 7), 11.0), truth).any(axis=2)
    assert drawn.sum() == 9
    assert drawn[2:5, 2:5].all()


@pytest.mark.parametrize(
    ("motion", "expected"),
    [
        ((10, 0), (255, 0, 0)),  # right
        ((0, 0), (255, 255, 255)),
        ((5, 0), (255, 128, 128)),  # half the maximum is half way to white
        ((20, 0), (191, 0, 0)),  # beyond it is darker
        ((0, 10), (255, 234, 0)),  # down: 13.75 of the 15 steps from red to yellow
        ((-10, 0), (0, 197, 255)),  # left: 27.5, which is 2.5 of the 11 steps from cyan to blue
        ((0, -10), (103, 0, 255)),  # up: 41.25, which is 5.25 of the 13 steps from blue to magenta
        ((np.nan, 3), (0, 0, 0)),
        ((3, np.inf), (0, 0, 0)),
    ],
)
def test_flow_colours_are_the_wheel_s(motion: tuple[float, float], expected: tuple[int, int, int]) -> None:
    assert colorize_flow(np.array([[motion]], np.float32), 10)[0, 0].tolist() == list(expected)


def test_flow_colours_agree_with_torchvision_s_wheel() -> None:
    """Its wheel spreads 54 of the 55 steps over the turn, so equal colours lie at slightly other angles."""
    step = np.arange(0, 54, 0.25)
    length = np.tile([4.0, 9.0, 10.0], len(step) // 3)
    ours, theirs = (np.pi * (2 * step / turn - 1) for turn in (55, 54))

    def flow(angle: np.ndarray) -> np.ndarray:
        return -np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1)[None]  # (1, N, 2)

    expected = flow_to_image(torch.from_numpy(flow(theirs)).permute(2, 0, 1).float()).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(colorize_flow(flow(ours), 10).astype(int), expected, atol=2)  # it rounds down twice


def test_flow_colours_have_no_seam() -> None:
    picture = colorize_flow(np.array([[[9, -1e-6], [9, 0.0], [9, 1e-6]]]), 9.1)
    assert picture[0].tolist() == [[255, 3, 3]] * 3


def test_flow_colours_do_not_depend_on_the_picture() -> None:
    slow, fast = np.full((3, 4, 2), 2.0), np.full((3, 4, 2), 2.0)
    fast[2, 3] = 500
    assert (colorize_flow(slow, 64)[0, 0] == colorize_flow(fast, 64)[0, 0]).all()
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\); expected \(H, W, 2\)"):
        colorize_flow(np.zeros((2, 3, 4)), 64)
    with pytest.raises(ValueError, match="max_px is 0"):
        colorize_flow(slow, 0)


def test_flow_legend_shows_each_motion_where_it_leads() -> None:
    legend = flow_legend(64, 161)
    assert legend.shape == (161 + 24, 161, 3)
    assert legend[80, 80].tolist() == [255, 255, 255]
    assert legend[0, 0].tolist() == [255, 255, 255]
    at = 80 + round(80 * 0.9 / 1.15)
    assert (legend[80, at] == colorize_flow(np.array([[[64 * 1.15 * (at - 80) / 80, 0]]]), 64)[0, 0]).all()
    assert legend[161:].min() < 50  # the caption


@pytest.mark.parametrize(
    ("error_px", "length_px", "expected"),
    [
        (0.1, 10, (49, 54, 149)),  # below 0.19 px
        (0.2, 10, (69, 117, 180)),
        (2.9, 10, (224, 243, 248)),  # the last blue: no outlier
        (3.1, 10, (254, 224, 144)),  # the first red: more than 3 px and 5 %
        (3.1, 100, (224, 243, 248)),  # 3.1 %: no outlier
        (10.0, 100, (253, 174, 97)),  # twice 5 % exactly begins a step
        (50.0, 10, (165, 0, 38)),
        (0.0, 0, (49, 54, 149)),
    ],
)
def test_flow_error_colours_are_kitti_s(error_px: float, length_px: float, expected: tuple[int, int, int]) -> None:
    truth = np.array([[[0, length_px], [0, 0]]], np.float64)
    flow = truth + np.array([error_px, 0])
    picture = colorize_flow_error(flow, truth, np.array([[True, False]]), spread_px=0)
    assert picture[0].tolist() == [list(expected), [0, 0, 0]]


def test_overlay_keeps_the_image_where_no_label_is() -> None:
    image = np.full((9, 9, 3), 77, np.uint8)
    truth = np.zeros((9, 9))
    truth[4, 4] = 5
    drawn = overlay_points(image, truth)
    assert (drawn[0, 0] == 77).all()
    assert (drawn[4, 4] != 77).any()


def test_stack_puts_pictures_in_rows() -> None:
    a, b = np.zeros((10, 20, 3), np.uint8), np.full((20, 40, 3), 200, np.uint8)
    assert stack([a, b, a], columns=2, gap=4).shape == (10 + 4 + 10, 20 + 4 + 20, 3)
    assert stack([a, b], ["first"]).shape == (10 + 4 + 10, 20, 3)  # b is brought to a's width
    with pytest.raises(ValueError, match="at least one"):
        stack([])


def test_png_keeps_every_pixel() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    decoded = cv2.imdecode(np.frombuffer(png_bytes(picture), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[:, :, ::-1], picture)


def test_plots_are_pictures() -> None:
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 2, 3] = np.arange(5)
    for picture in (plot_trajectories({"truth": poses}), plot_curves({"loss": ([1, 2], [3.0, 4.0])}), plot_curves({})):
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.std() > 0


# --- reports ---------------------------------------------------------------------------------------------------------


def test_page_escapes_what_it_shows() -> None:
    text = report.page("a<b", [report.paragraph("<script>"), report.table([{"k<": "v&"}]), report.preformatted("x<y")])
    assert "<script>" not in text
    for part in ("a&lt;b", "&lt;script&gt;", "k&lt;", "v&amp;", "x&lt;y"):
        assert part in text


def test_picture_is_inlined_whole(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    (tmp_path / "x.png").write_bytes(png_bytes(image))
    for given in (image, tmp_path / "x.png"):
        found = re.search(r"data:image/png;base64,([^\"]+)", report.picture(given, "x"))
        assert found is not None
        assert base64.b64decode(found[1]) == png_bytes(image)


def test_curves_leave_out_what_is_no_number() -> None:
    rows = [{"step": 1, "loss": 2.0, "name": "x", "ok": True}, {"step": 2, "loss": None}, {"loss": 9.0}]
    rows += [{"step": 3, "loss": float("nan")}, {"step": 1, "loss": 5.0}]  # step 1 again, after a resume
    assert report.curves_of(rows) == {"loss": ([1.0], [5.0])}


def test_metrics_cut_short_by_a_kill_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert report.read_metrics(path) == [{"step": 1, "loss": 2.0}]
    path.write_text('{"step": 1, "lo\n{"step": 2, "loss": 2.0}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1 is not JSON"):
        report.read_metrics(path)


def test_report_shows_the_newest_pictures_and_the_config(tmp_path: Path) -> None:
    rows = [{"step": k, "loss": 1 / (k + 1), "health/median_depth": 5.0} for k in range(5)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "config.yaml").write_text("method: monodepth2\n")
    (tmp_path / "samples").mkdir()
    for k in range(4):
        (tmp_path / "samples" / f"{k:07d}.png").write_bytes(png_bytes(np.full((4, 4, 3), k, np.uint8)))
    text = report.write_report(tmp_path, max_pictures=2).read_text()
    assert "method: monodepth2" in text
    assert "0000003" in text and "0000002" in text and "0000001" not in text
    assert text.count("<img") == 2 + 2  # curves of the loss and of the median depth, two samples
    assert report.FLOW_COLOURS not in html.unescape(text)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "health/flow_px": 1.0, "warnings": ["flow is <zero>"]}) + "\n")
    text = report.write_report(tmp_path).read_text()
    assert report.FLOW_COLOURS in html.unescape(text)
    assert '<p class="warning">flow is &lt;zero&gt;</p>' in text
