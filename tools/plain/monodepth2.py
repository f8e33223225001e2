"""A training step of Monodepth2 from video (M) as published: NCHW, float32, everything in order, Adam by default.

Source: Godard, Mac Aodha, Firman, Brostow, ICCV 2019. https://arxiv.org/abs/1806.01260
"""

import torch
from torch.utils.data import default_collate

from .networks import Networks
from .reprojection import TIE_NOISE, Objective
from .samples import half_the_time, prepare_sample


class Training:
    """Networks, objective and optimiser; `tie_noise` as of `Objective`."""

    def __init__(self, batch, height, width, weights, device, tie_noise=TIE_NOISE):
        self.networks = Networks().to(device).train()
        self.networks.load_state_dict(weights)
        self.objective = Objective(batch, height, width, tie_noise).to(device)
        self.optimizer = torch.optim.Adam(self.networks.parameters(), 1e-4)
        self.height, self.width, self.device = height, width, device

    def prepare(self, samples, K):
        """A batch of samples given as PIL images (target, source before, source after), augmented at random."""
        prepared = [
            prepare_sample(images, K, self.height, self.width, half_the_time(), half_the_time()) for images in samples
        ]
        return default_collate(prepared)

    def step(self, batch):
        """The loss before the step."""
        batch = to_device(batch, self.device)
        self.optimizer.zero_grad()
        features = self.networks.encoder(batch["jittered"][0][0])
        disparities = self.networks.depth_decoder(features)
        target, before, after = (pyramid[0] for pyramid in batch["jittered"])
        motions = [self.motion(before, target, inverted=True), self.motion(target, after, inverted=False)]
        color = batch["color"]
        sources = [pyramid[0] for pyramid in color[1:]]
        loss = self.objective(color[0], sources, batch["K"], batch["inverse_K"], motions, disparities)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def motion(self, earlier, later, inverted):
        """(B, 4, 4) T_later_earlier, or its inverse."""
        features = self.networks.pose_encoder(torch.cat([earlier, later], 1))
        axis_angle, translation = self.networks.pose_decoder(features)
        return motion_matrix(axis_angle, translation, inverted)


def motion_matrix(axis_angle, translation, inverted):
    """Rodrigues' formula and a translation, (B, 3) each, as a (B, 4, 4) motion."""
    R, t = torch.zeros_like(axis_angle[:, :1, None]).repeat(1, 4, 4), translation[..., None]
    angle = torch.norm(axis_angle, 2, 1, True)
    x, y, z = (axis_angle / (angle + 1e-7)).unbind(1)
    c, s = torch.cos(angle)[:, 0], torch.sin(angle)[:, 0]
    C = 1 - c
    rows = [
        torch.stack([x * x * C + c, x * y * C - z * s, z * x * C + y * s], 1),
        torch.stack([x * y * C + z * s, y * y * C + c, y * z * C - x * s], 1),
        torch.stack([z * x * C - y * s, y * z * C + x * s, z * z * C + c], 1),
    ]
    R[:, :3, :3] = torch.stack(rows, 1)
    R[:, 3, 3] = 1
    shift = torch.eye(4, device=R.device).repeat(len(R), 1, 1)
    if inverted:
        shift[:, :3, 3:] = -t
        return torch.matmul(R.transpose(1, 2), shift)
    shift[:, :3, 3:] = t
    return torch.matmul(shift, R)


def to_device(batch, device):
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, list):
        return [to_device(value, device) for value in batch]
    return batch.to(device)
