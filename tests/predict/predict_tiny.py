"""Methods whose predictions are known in closed form, as checkpoints; and pictures whose number can be read off."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from geossl.config import Strict, parse_experiment
from geossl.engine.checkpoint import save_checkpoint
from geossl.formats.image import write_image
from geossl.geometry.motion import motion_from_axis_angle
from geossl.methods.method import Method
from geossl.types import Batch, Objective

H, W = 64, 128  # of the model
CALLS: list[int] = []


class RampOptions(Strict):
    metric: bool = True
    pose_offsets: tuple[int, ...] = (1,)


class Ramp(Method):
    """Inverse depth that is linear in the column; motion that is read off the images' grey values."""

    Options = RampOptions

    def __init__(self, options: RampOptions) -> None:
        super().__init__(options)
        self.is_metric = options.metric
        self.pose_offsets = options.pose_offsets
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> Objective:
        raise NotImplementedError

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        CALLS.append(len(image))
        u = torch.arange(image.shape[-1], dtype=torch.float32)
        return 1 / (0.02 + 0.001 * u).expand(len(image), 1, *image.shape[-2:])

    def predict_motions(self, target: Tensor, sources: list[Tensor]) -> Tensor:
        """Frame k is grey value 20 + 5 k; from one to the next the camera turns and moves by frame-dependent steps."""
        number = [frame_numbers(x).int().tolist() for x in (target, *sources)]
        poses = true_poses(40)
        T = [[np.linalg.inv(poses[s]) @ poses[t] for t, s in zip(number[0], row, strict=True)] for row in number[1:]]
        return torch.tensor(np.array(T)).transpose(0, 1).float()  # (B, S, 4, 4) T_source_target


class ShiftOptions(Strict):
    flow_offsets: tuple[int, ...] = (1,)
    poison: int = -1  # frame whose flows are NaN


class Shift(Method):
    """Every pixel of frame k lies at (2 k + k^2, -k) of the pixels that the network sees; k is read off the images."""

    Options = ShiftOptions
    windows: ClassVar[list[tuple[int, ...]]] = []  # seen: target and sources
    sizes: ClassVar[list[tuple[int, ...]]] = []

    def __init__(self, options: ShiftOptions) -> None:
        super().__init__(options)
        self.flow_offsets = options.flow_offsets
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> Objective:
        raise NotImplementedError

    def predict_flows(self, target: Tensor, sources: list[Tensor]) -> Tensor:
        number = torch.stack([frame_numbers(x) for x in (target, *sources)], dim=1)  # (B, 1 + S)
        Shift.windows += [tuple(int(k) for k in row) for row in number]
        Shift.sizes.append(tuple(target.shape))
        place = torch.stack([2 * number + number**2, -number], dim=2)  # (B, 1 + S, 2)
        flow = (place[:, 1:] - place[:, :1])[..., None, None].expand(-1, -1, -1, *target.shape[-2:])
        poisoned = (number[:, :1] == self.options.poison)[..., None, None, None]
        return torch.where(poisoned, torch.nan, flow + self.bias)


def frame_numbers(image: Tensor) -> Tensor:
    """(B, 3, H, W) of `pictures` -> (B,) frame numbers."""
    return ((image.mean((1, 2, 3)) * 255 - 20) / 5).round()


class MoverOptions(Strict):
    metric: bool = True
    poison: bool = False


class Mover(Method):
    """The depth of `Ramp`; from frame k to k + 1 all comes (2 k + 1) / 10 nearer and goes right, most at the right."""

    Options = MoverOptions

    def __init__(self, options: MoverOptions) -> None:
        super().__init__(options)
        self.is_metric = options.metric
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> Objective:
        raise NotImplementedError

    def predict_scene_flow(
        self, target: Tensor, source: Tensor, K: Tensor, K_source: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        u = torch.arange(target.shape[-1], dtype=torch.float32)
        depth = 1 / (0.02 + 0.001 * u).expand(len(target), 1, *target.shape[-2:])
        nearer = -(frame_numbers(source) + frame_numbers(target)) / 10
        motion = torch.stack([0.01 * u.expand(len(target), -1), 0.2 + 0 * u.expand(len(target), -1)], 1)  # (B, 2, W)
        motion = torch.cat([motion, nearer[:, None, None].expand(-1, 1, len(u))], 1)[:, :, None]
        broken = torch.nan if self.options.poison else 0.0
        return depth, motion.expand(-1, -1, target.shape[-2], -1) + self.bias + broken


class Blind(Method):
    """Predicts nothing."""

    Options = RampOptions

    def forward(self, batch: Batch) -> Objective:
        raise NotImplementedError


def true_poses(count: int) -> np.ndarray:
    """(N, 4, 4) T_world_camera of a bend, the first the identity."""
    poses = [np.eye(4)]
    for k in range(count - 1):
        axis_angle = torch.tensor([[0.01, 0.05 * np.sin(k), 0.002 * k]], dtype=torch.float64)
        translation = torch.tensor([[0.1, 0.02 * k, 1.0]], dtype=torch.float64)
        poses.append(poses[-1] @ motion_from_axis_angle(axis_angle, translation)[0].numpy())
    return np.stack(poses)


def checkpoint(folder: Path, method: str = "Ramp", bias: float = 0.0, **options: Any) -> Path:
    values = {"method": f"predict_tiny:{method}", "model": options, "data": {"height": H, "width": W}}
    experiment = parse_experiment(values)
    cls = {"Ramp": Ramp, "Shift": Shift, "Mover": Mover, "Blind": Blind}[method]
    model = cls(cls.Options(**options))
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, bias)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1)), *model.parameters()][-1:])
    path = folder / f"{method}_{bias}_{'_'.join(str(v) for v in options.values())}.safetensors"
    save_checkpoint(path, model, optimizer, experiment, {"step": 3})
    return path


def pictures(folder: Path, count: int, size: tuple[int, int] = (48, 100)) -> Path:
    """Grey pictures 20, 25, 30, ... so that a frame's number can be read off."""
    for k in range(count):
        write_image(folder / f"frame_{k}.png", np.full((*size, 3), 20 + 5 * k, np.uint8))
    return folder
