"""A whole training step of Monodepth2 from video against the published one."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from geossl.benchmark.contest import OURS, PLAIN, Contest
from geossl.benchmark.plain import PlainModules
from geossl.config import Augment, Train
from geossl.data.augment import augment
from geossl.engine.benchmark import random_batch
from geossl.engine.precision import autocast
from geossl.engine.train import arrange, make_optimizer
from geossl.methods import build_method
from geossl.types import Batch

GOALS = {"fp32": 2.2, "bf16": 6.0}
TOLERANCES = {"fp32": 1e-3, "bf16": 2e-2, "fp16": 1e-2}
UNCHANGED = Augment(flip=0, jitter=0)


def step_contests(
    plain: PlainModules, device: torch.device, batch: int, size: tuple[int, int], precision: str
) -> list[Contest]:
    """The step from what a loader gives to the new weights.

    Two contests: the plain side starts from tensors that were prepared before, or prepares them (pyramids and jitter)
    from decoded images as its loader would; geossl flips and jitters in the step in both. The results compared are
    the losses of two steps on unchanged images, without noise against equal errors.

    Args:
        plain: The plain implementation.
        device: Of the step.
        batch: Samples.
        size: (height, width).
        precision: Of geossl's networks; the plain step is float32.
    """
    height, width = size
    torch.manual_seed(0)
    options = Train(precision=precision)  # type: ignore[arg-type]
    weights = build_method("monodepth2", {"encoder_weights": None}).state_dict()
    loaded = random_batch(batch, height, width)
    ours = _Ours(weights, options, device)
    theirs = plain.monodepth2.Training(batch, height, width, weights, device)
    pictures, K = pil_images(loaded), loaded.target.K[0].numpy()
    prepared = theirs.prepare(pictures, K)

    def our_losses() -> list[Tensor]:
        fresh = _Ours(weights, options, device)
        return [fresh.step(loaded, UNCHANGED) for _ in range(2)]

    def their_losses() -> list[Tensor]:
        fresh = plain.monodepth2.Training(batch, height, width, weights, device, 0.0)
        samples = [plain.samples.prepare_sample(images, K, height, width, False, False) for images in pictures]
        together = torch.utils.data.default_collate(samples)
        return [fresh.step(together) for _ in range(2)]

    checks = {PLAIN: their_losses, OURS: our_losses}
    what = f"{precision} step, batch {batch}, {width}x{height}"
    step = {PLAIN: lambda: theirs.step(prepared), OURS: lambda: ours.step(loaded, Augment())}
    whole = {PLAIN: lambda: theirs.step(theirs.prepare(pictures, K)), OURS: step[OURS]}
    goal, tolerance = GOALS.get(precision), TOLERANCES[precision]
    return [
        Contest(what, step, goal, tolerance, checks, batch),
        Contest(f"{what}, with the samples' preparation", whole, None, tolerance, checks, batch),
    ]


class _Ours:
    """geossl's method and optimiser, and one step of them as in a training."""

    def __init__(self, weights: dict[str, Any], options: Train, device: torch.device) -> None:
        self.method = build_method("monodepth2", {"encoder_weights": None})
        self.method.load_state_dict(weights)
        self.method.to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = make_optimizer(self.method, options, device)
        self.options, self.device = options, device

    def step(self, batch: Batch, changes: Augment) -> Tensor:
        """The loss before the step."""
        prepared = arrange(augment(batch.to(self.device), changes, 0, 0), True)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.options.precision, self.device):
            objective = self.method(prepared)
        objective.total.backward()
        self.optimizer.step()
        return objective.total.detach()  # type: ignore[no-any-return]


def pil_images(batch: Batch) -> list[list[Image.Image]]:
    """The frames of every sample of a uint8 batch, the target first."""
    arrays = [frame.image.permute(0, 2, 3, 1).contiguous().numpy() for frame in batch.frames]
    return [[Image.fromarray(array[i]) for array in arrays] for i in range(len(batch))]
