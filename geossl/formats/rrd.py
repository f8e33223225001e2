"""Point clouds that move, as recordings of the rerun viewer (`rerun FILE.rrd`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from geossl.formats.atomic import write_bytes_atomic


def import_rerun() -> Any:
    """The module `rerun`.

    Raises:
        ImportError: If rerun-sdk is not installed.
    """
    try:
        import rerun
    except ImportError:
        raise ImportError(
            "rrd recordings need rerun-sdk, which is not installed: pip install 'geossl[viz3d]'."
        ) from None
    return rerun


def write_rrd(path: str | Path, points: np.ndarray, motion: np.ndarray, colours: np.ndarray) -> None:
    """Writes a point cloud at two times: frame 0 of the recording, and frame 1, where the motion has led.

    Args:
        path: The file to write.
        points: (N, 3) x, y, z; x right, y down, z forward. Points that are not finite are left out.
        motion: (N, 3) of each point from frame 0 to frame 1.
        colours: (N, 3) uint8 RGB.

    Raises:
        ValueError: If the shapes do not fit.
        ImportError: If rerun-sdk is not installed.
    """
    if points.ndim != 2 or points.shape[1] != 3 or not points.shape == motion.shape == colours.shape:
        raise ValueError(
            f"points {points.shape}, motion {motion.shape} and colours {colours.shape} should all be (N, 3)."
        )
    rerun = import_rerun()
    known = np.isfinite(points).all(1) & np.isfinite(motion).all(1)
    points, motion, colours = (np.ascontiguousarray(x[known]) for x in (points, motion, colours))
    recording = rerun.RecordingStream("geossl", recording_id=Path(path).stem)
    stream = recording.binary_stream()
    recording.log("camera", rerun.ViewCoordinates.RDF, static=True)
    for frame in (0, 1):
        recording.set_time("frame", sequence=frame)
        recording.log("camera/points", rerun.Points3D(points + frame * motion, colors=colours))
    write_bytes_atomic(path, stream.read())
