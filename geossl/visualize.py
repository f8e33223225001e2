"""Pictures of what geossl predicts: colour maps of depth, flow and errors, trajectories, captioned rows.

Everything takes numpy arrays and returns uint8 RGB pictures (H, W, 3). A colour means the same value in two
pictures only where both were drawn with the same fixed range; every function says which range it used or takes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Array = NDArray[np.floating]

# Middlebury's wheel of 55 steps: position on it, red, green, blue; between these corners it is linear.
FLOW_WHEEL = np.array(
    [
        (0, 1, 0, 0),
        (15, 1, 1, 0),
        (21, 0, 1, 0),
        (25, 0, 1, 1),
        (36, 0, 0, 1),
        (49, 1, 0, 1),
        (55, 1, 0, 0),
    ],
    np.float64,
)
FLOW_ERROR_BORDERS = 2.0 ** np.arange(-4, 5)  # of an error over 3 px or 5 %
FLOW_ERROR_COLORS = np.array(
    [
        (49, 54, 149),
        (69, 117, 180),
        (116, 173, 209),
        (171, 217, 233),
        (224, 243, 248),
        (254, 224, 144),
        (253, 174, 97),
        (244, 109, 67),
        (215, 48, 39),
        (165, 0, 38),
    ],
    np.uint8,
)


def value_range(values: Array, percentiles: tuple[float, float] = (2.0, 98.0)) -> tuple[float, float]:
    """The percentiles of the finite values, widened where they coincide; (0, 1) where nothing is finite."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(p) for p in np.percentile(finite, percentiles, overwrite_input=True))
    return (low, high) if high > low else (low, low + max(abs(low), 1.0) * 1e-6)


def colorize(values: Array, low: float, high: float, colormap: str = "magma") -> Picture:
    """Colours of values between `low` and `high`, clipped to that range; not-finite values are black.

    Args:
        values: (H, W).
        low: Value of the colour map's first colour.
        high: Value of its last colour.
        colormap: A matplotlib name.

    Returns:
        (H, W, 3) uint8.
    """
    if values.ndim != 2:
        raise ValueError(f"values have shape {values.shape}; expected (H, W). Drop the other axes.")
    if not high > low:
        raise ValueError(f"the colour range {low}..{high} is empty; give low < high.")
    known = np.isfinite(values)
    steps = (np.clip(np.where(known, values, low), low, high) - low) * (255 / (high - low))
    picture = np.asarray(cv2.applyColorMap(np.rint(steps).astype(np.uint8), _color_table(colormap)), np.uint8)
    picture[~known] = 0
    return picture


@lru_cache
def _color_table(colormap: str) -> NDArray[np.uint8]:
    """(256, 1, 3) uint8 RGB."""
    colors = matplotlib.colormaps[colormap](np.linspace(0, 1, 256))[:, None, :3]
    return (colors * 255).round().astype(np.uint8)


def colorize_depth(
    depth: Array,
    min_depth: float | None = None,
    max_depth: float | None = None,
    percentiles: tuple[float, float] = (2.0, 98.0),
) -> Picture:
    """Colours of inverse depth: near is bright, far is dark, unknown (0 or not finite) is black.

    Args:
        depth: (H, W) z-depth; values <= 0 are unknown.
        min_depth: Depth of the brightest colour. Both limits fix the range, so that pictures compare.
        max_depth: Depth of the darkest colour.
        percentiles: Of this picture's inverse depth, taken for a limit that is not given.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(depth > 0, 1 / depth, np.nan)
    low, high = value_range(inverse, percentiles)
    low = low if max_depth is None else 1.0 / max_depth
    high = high if min_depth is None else 1.0 / min_depth
    return colorize(inverse, low, max(high, low * (1 + 1e-6)), "magma")


def colorize_disparity(disparity_px: Array, max_disparity_px: float | None = None) -> Picture:
    """Colours of a disparity map from 0 to `max_disparity_px` (default: its 98th percentile); < 0 is black."""
    known = np.where(disparity_px >= 0, disparity_px, np.nan)
    high = max_disparity_px if max_disparity_px is not None else value_range(known)[1]
    return colorize(known, 0.0, max(high, 1e-6), "magma")


def colorize_depth_error(depth: Array, truth: Array, limit: float = 0.3, spread_px: int = 1) -> Picture:
    """Colours of |depth - truth| / truth from 0 (blue) to `limit` (red); black where the truth is unknown.

    Args:
        depth: (H, W) predicted z-depth.
        truth: (H, W) metres, 0 where unknown.
        limit: Relative error of the last colour.
        spread_px: Radius by which sparse labels are widened, for the eye only.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(truth > 0, np.abs(depth - truth) / truth, np.nan)
    return colorize(_spread(error, spread_px), 0.0, limit, "turbo")


def colorize_flow(flow: Array, max_px: float) -> Picture:
    """Colours of optical flow: the hue is its direction, pale is slow, white is zero, unknown is black.

    The wheel is Middlebury's: motion to the right is red, down yellow, left azure, up violet. A motion of `max_px` has
    the full colour; longer ones are darkened to 75 %, so that they show.

    Args:
        flow: (H, W, 2) = (du, dv) pixels; not-finite values are unknown.
        max_px: Length of the full colour. Fixed, so that pictures compare; `flow_legend` shows it.

    Returns:
        (H, W, 3) uint8.

    Differs: the published code spreads 54 of the wheel's 55 colours over the turn, which leaves a seam at motions to
        the right; here all 55 close it. Hues differ by less than one of the 55 steps.
    Source: Baker et al., IJCV 2011 (A database and evaluation methodology for optical flow), section 4 and figure 7.
    """
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"flow has shape {flow.shape}; expected (H, W, 2). Move the two components last.")
    if not 0 < max_px < np.inf:
        raise ValueError(f"max_px is {max_px}; expected a length above 0 in pixels.")
    known = np.isfinite(flow).all(axis=2, keepdims=True)  # (H, W, 1)
    u, v = np.moveaxis(np.where(known, flow, 0).astype(np.float64), 2, 0)  # each (H, W)
    position = (np.arctan2(-v, -u) / np.pi + 1) / 2 * FLOW_WHEEL[-1, 0]
    hue = np.stack([np.interp(position, FLOW_WHEEL[:, 0], FLOW_WHEEL[:, 1 + c]) for c in range(3)], axis=2)
    length = (np.hypot(u, v) / max_px)[:, :, None]
    color = np.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    return np.where(known, (255 * color).round(), 0).astype(np.uint8)


def flow_legend(max_px: float, size: int = 160) -> Picture:
    """The wheel of `colorize_flow` with its maximum in words: each place has the colour of the motion towards it.

    Args:
        max_px: Length of the full colour, drawn at the inner edge of the dark rim.
        size: Width of the picture in pixels.

    Returns:
        (size + 24, size, 3) uint8.
    """
    axis = np.linspace(-1.15, 1.15, size) * max_px
    flow = np.stack(np.meshgrid(axis, axis), axis=2)  # (size, size, 2)
    outside = np.hypot(flow[..., 0], flow[..., 1]) > 1.15 * max_px
    wheel = np.where(outside[:, :, None], np.uint8(255), colorize_flow(flow, max_px))
    caption = np.full((24, size, 3), 255, np.uint8)
    cv2.putText(caption, f"{max_px:g} px", (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([wheel, caption])


def colorize_flow_error(flow: Array, truth: Array, valid: NDArray[np.bool_], spread_px: int = 1) -> Picture:
    """Colours of flow errors as KITTI 2015 shows them: blue is right, red is an outlier, black is unknown.

    The error is min(|e| / 3 px, |e| / (5 % of |truth|)): above 1 in both, hence an outlier of the benchmark. The steps
    are logarithmic, with borders at 0.19, 0.38, 0.75, 1.5, 3, 6, 12, 24 and 48 px (or 1/16 .. 16 times 5 %).

    Args:
        flow: (H, W, 2) predicted, pixels.
        truth: (H, W, 2) pixels.
        valid: (H, W) True where the truth is known.
        spread_px: Radius by which sparse labels are widened, for the eye only.

    Source: KITTI 2015 development kit, readme and error images. The colours are ColorBrewer's RdYlBu.
    """
    difference = np.linalg.norm(flow.astype(np.float64) - truth, axis=2)
    length = np.linalg.norm(truth.astype(np.float64), axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.fmin(difference / 3.0, difference / (0.05 * length))
    error = _spread(np.where(valid, error, np.nan), spread_px)
    steps = np.digitize(np.nan_to_num(error), FLOW_ERROR_BORDERS)
    return np.where(np.isfinite(error)[:, :, None], FLOW_ERROR_COLORS[steps], np.uint8(0))


def _spread(values: Array, radius: int) -> Array:
    """Every value widened to a (2 radius + 1)^2 square where nothing else is known; the larger wins."""
    if radius < 1:
        return values
    padded = np.pad(values, radius, constant_values=np.nan)
    height, width = values.shape
    out = np.full_like(values, -np.inf)
    for row in range(2 * radius + 1):
        for column in range(2 * radius + 1):
            out = np.fmax(out, padded[row : row + height, column : column + width])
    return np.where(np.isfinite(values), values, np.where(np.isfinite(out), out, np.nan))


def overlay_points(image: Picture, truth: Array, max_depth: float = 80.0) -> Picture:
    """The image with its sparse depth labels drawn over it."""
    colors = colorize_depth(_spread(np.where(truth > 0, truth, np.nan), 1), 3.0, max_depth)
    return np.where(colors.any(axis=2, keepdims=True), colors, image)


def stack(
    pictures: Sequence[Picture],
    captions: Sequence[str] = (),
    columns: int = 1,
    gap: int = 4,
    width: int | None = None,
) -> Picture:
    """Pictures in rows of `columns`, each resized to `width` (default: the first one's), captions in their corners."""
    if not pictures:
        raise ValueError("no pictures to stack; give at least one.")
    width = width or pictures[0].shape[1]
    cells = []
    for index, picture in enumerate(pictures):
        height = round(picture.shape[0] * width / picture.shape[1])
        smaller = width < picture.shape[1]
        method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        cell = np.asarray(cv2.resize(picture, (width, height), interpolation=method), np.uint8)
        if index < len(captions) and captions[index]:
            _write_caption(cell, captions[index])
        cells.append(cell)
    rows = []
    for start in range(0, len(cells), columns):
        group = cells[start : start + columns]
        tallest = max(cell.shape[0] for cell in group)
        row = np.full((tallest, columns * width + (columns - 1) * gap, 3), 255, np.uint8)
        for index, cell in enumerate(group):
            left = index * (width + gap)
            row[: cell.shape[0], left : left + width] = cell
        rows += [row, np.full((gap, row.shape[1], 3), 255, np.uint8)]
    return np.concatenate(rows[:-1])


def _write_caption(picture: Picture, text: str) -> None:
    """White with a dark rim in the upper left corner, in place."""
    size = max(picture.shape[1] / 1000, 0.4)
    left, base = 6, round(26 * size) + 4
    # the rim is the text itself, shifted: a thicker pen would also space the letters otherwise
    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)):
        colour = (0, 0, 0) if dx or dy else (255, 255, 255)
        cv2.putText(picture, text, (left + dx, base + dy), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def depth_panel(image: Picture, depth: Array, truth: Array, near: float, far: float, width: int = 640) -> Picture:
    """Image, its sparse labels drawn over it, predicted depth and relative error, one above the other.

    Args:
        image: (H, W, 3).
        depth: (H, W) predicted, metres.
        truth: (H, W) metres, 0 where unknown.
        near: Depth of the brightest colour.
        far: Depth of the darkest.
        width: Of the picture, where the image is not wider.
    """
    pictures = [
        image,
        overlay_points(image, truth, far),
        colorize_depth(depth, near, far),
        colorize_depth_error(depth, truth),
    ]
    captions = ["image", "labels", f"depth, {near:g} to {far:g} m", "relative error, 0 to 30 %"]
    return stack(pictures, captions, width=max(image.shape[1], width))


def plot_trajectories(trajectories: Mapping[str, Array], unit: str = "m", title: str = "") -> Picture:
    """Camera paths from above: x to the right, z upwards, each by its name.

    Args:
        trajectories: (N, 4, 4) T_world_camera by name; the first is drawn widest.
        unit: Of the positions.
    """
    figure = Figure(figsize=(6, 6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for index, (name, poses) in enumerate(trajectories.items()):
        axes.plot(poses[:, 0, 3], poses[:, 2, 3], label=name, linewidth=3 if index == 0 else 1.5)
        axes.plot(poses[0, 0, 3], poses[0, 2, 3], "k.", markersize=6)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel=f"x ({unit})", ylabel=f"z ({unit})", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return _render(figure)


def plot_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    xlabel: str = "step",
    log: bool = False,
    log_x: bool = False,
) -> Picture:
    """Curves (x values, y values) by name in one plot; `log` makes the y axis logarithmic, `log_x` the other."""
    figure = Figure(figsize=(6, 3.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name, (x, y) in curves.items():
        axes.plot(x, y, label=name, linewidth=1.3, marker="." if len(x) < 3 else None)
    for axis, wanted in ((axes.yaxis, log), (axes.xaxis, log_x)):
        if wanted:
            axes.set(**{f"{axis.axis_name}scale": "log"})
            axis.set_major_formatter("{x:g}")  # 25, not 2.5 x 10^1
            axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))  # as many as there is room for
    axes.set(xlabel=xlabel, title=title)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(fontsize="small")
    return _render(figure)


def _render(figure: Figure) -> Picture:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def png_bytes(picture: Picture) -> bytes:
    """The picture as a PNG file's content."""
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} and type {picture.dtype} cannot be written as PNG.")
    return encoded.tobytes()
