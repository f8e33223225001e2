"""Moving and static maps of models whose answer is known in closed form."""

import json
from pathlib import Path

import numpy as np
import pytest
from predict_tiny import H, W, checkpoint, pictures, true_poses
from typer.testing import CliRunner

from geossl.cli import app
from geossl.evaluation.flow_files import read_flow
from geossl.formats.image import read_image
from geossl.predict import MOTION_OUTPUTS, predict_motion
from geossl.predict.motion import color_by_rigidity
from geossl.types import MissingInput

HEIGHT, WIDTH = 48, 100
CAMERA = (60.0, 55.0, 49.0, 23.0)
K = np.array([[60.0, 0, 49], [0, 55, 23], [0, 0, 1]])
EVERYTHING = tuple(MOTION_OUTPUTS)


def expected_rigid(k: int) -> np.ndarray:
    """(H, W, 2) of the pair (k, k + 1): the depth of `Ramp` through its motion, pixel by pixel."""
    poses = true_poses(40)
    T = np.linalg.inv(poses[k + 1]) @ poses[k]
    flow = np.zeros((HEIGHT, WIDTH, 2))
    for u in range(WIDTH):
        z = 1 / (0.02 + 0.001 * min(max((u + 0.5) * W / WIDTH - 0.5, 0), W - 1))
        for v in range(HEIGHT):
            moved = T[:3, :3] @ (np.linalg.inv(K) @ [u, v, 1]) * z + T[:3, 3]
            flow[v, u] = (K @ moved)[:2] / moved[2] - [u, v]
    return flow


def shift(k: int) -> np.ndarray:
    """(2,) the flow of `Shift` at the pictures' size, from frame k to k + 1."""
    return np.array([(2 + (k + 1) ** 2 - k**2) * WIDTH / W, -HEIGHT / H])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_kind_of_file_is_what_the_two_flows_say(tmp_path: Path, batch_size: int) -> None:
    models, out = (checkpoint(tmp_path, "Ramp"), checkpoint(tmp_path, "Shift")), tmp_path / "out"
    folder = str(pictures(tmp_path / "in", 4))
    summary = predict_motion(*models, folder, out, save=EVERYTHING, intrinsics=CAMERA, batch_size=batch_size)
    assert (summary.written, summary.kept) == (3, 0)
    u = np.arange(WIDTH)
    for k in range(3):
        name, flow = f"frame_{k}", shift(k)
        rigid = expected_rigid(k)
        np.testing.assert_allclose(read_flow(out / "rigid" / f"{name}.png"), rigid, atol=0.5 / 64 + 1e-3)
        residual = np.load(out / "residual" / f"{name}.npy")
        assert (residual.dtype, residual.shape) == (np.float32, (HEIGHT, WIDTH))
        np.testing.assert_allclose(residual, np.linalg.norm(flow - rigid, axis=2), atol=1e-3)
        moving, static = (read_image(out / kind / f"{name}.png")[..., 0] for kind in ("moving", "static"))
        limit = max(3 / 1242 * WIDTH, 0.05 * np.linalg.norm(flow), 3 * np.sort(residual, axis=None)[2399])
        # The same shift everywhere returns exactly: what it carries out of the image is all that nobody can tell.
        known = ((u + flow[0] <= WIDTH - 1)[None] & (np.arange(HEIGHT) + flow[1] >= 0)[:, None]).astype(bool)
        clear = np.abs(residual - limit) > 1e-3
        np.testing.assert_array_equal((moving == 255)[clear], ((residual > limit) & known)[clear])
        np.testing.assert_array_equal((static == 255)[clear], ((residual <= limit) & known)[clear])
        image = read_image(tmp_path / "in" / f"{name}.png")
        picture = color_by_rigidity(image, moving == 255, static == 255)
        np.testing.assert_array_equal(read_image(out / "color" / f"{name}.png"), picture)
    meta = json.loads((out / "meta.json").read_text())
    assert meta["kind"] == "motion" and len(meta["checkpoint_hash"]) == 2
    assert "max(0.002415 of the width, 0.05 |f|, 3 times the median)" in meta["moving"]
    assert predict_motion(*models, folder, out, save=EVERYTHING, intrinsics=CAMERA).kept == 3


def test_colors_say_what_is_known() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)
    moving, static = np.array([[True, False, False]]), np.array([[False, True, False]])
    assert color_by_rigidity(image, moving, static)[0].tolist() == [[178, 58, 58], [100, 100, 100], [40, 40, 40]]


def test_errors_say_what_is_missing(tmp_path: Path) -> None:
    ramp, shifts, folder = (
        checkpoint(tmp_path, "Ramp"),
        checkpoint(tmp_path, "Shift"),
        str(pictures(tmp_path / "in", 3)),
    )
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="intrinsics"):
        predict_motion(ramp, shifts, folder, out)
    with pytest.raises(MissingInput, match="both depth and the camera's motion"):
        predict_motion(shifts, shifts, folder, out, intrinsics=CAMERA)
    with pytest.raises(MissingInput, match="no flow to the next image; give --flow"):
        predict_motion(ramp, ramp, folder, out, intrinsics=CAMERA)
    with pytest.raises(ValueError, match="cannot save flow"):
        predict_motion(ramp, shifts, folder, out, save=("flow",), intrinsics=CAMERA)
    with pytest.raises(ValueError, match="not finite"):
        poisoned = checkpoint(tmp_path, "Shift", poison=1)
        predict_motion(ramp, poisoned, folder, out, save=("moving",), intrinsics=CAMERA, batch_size=2)
    assert not (out / "moving").exists()


def test_command_writes_maps(tmp_path: Path) -> None:
    arguments = [str(checkpoint(tmp_path, "Ramp")), str(pictures(tmp_path / "in", 2)), "-o", str(tmp_path / "out")]
    arguments += [
        "--flow",
        str(checkpoint(tmp_path, "Shift")),
        "--intrinsics",
        "60,55,49,23",
        "--save",
        "moving,static",
    ]
    result = CliRunner().invoke(app, ["predict", "motion", *arguments])
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["meta.json", "moving", "static"]
