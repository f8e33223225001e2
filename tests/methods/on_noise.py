"""Batches of noise, and the step that every method must be able to make on them."""

from collections.abc import Callable

import torch
from torch import Tensor

from geossl.methods.method import Method
from geossl.types import Batch, Frame


def random_frames(count: int, samples: int, height: int, width: int, seed: int = 0) -> list[Frame]:
    """Noise as seen by a camera that has its middle in an image of 96x64."""
    generator = torch.Generator().manual_seed(seed)
    K = torch.tensor([[56.0, 0, 47.0], [0, 56.0, 31.0], [0, 0, 1]]).repeat(samples, 1, 1)
    images = [torch.rand(samples, 3, height, width, generator=generator) for _ in range(count)]
    return [Frame(image, image, K) for image in images]


def random_batch(samples: int = 2, height: int = 64, width: int = 96, seed: int = 0) -> Batch:
    """The image before, the image after, and the right view, 0.54 m beside."""
    target, before, after, stereo = random_frames(4, samples, height, width, seed)
    T = stereo_motion(torch.full((samples,), 0.54))
    names = tuple(f"sample {i}" for i in range(samples))
    return Batch(target, (before, after), (-1, 1), stereo, T, (), torch.arange(samples), names)


def random_pair(samples: int = 2, height: int = 64, width: int = 96, seed: int = 0) -> Batch:
    """The image after."""
    target, after = random_frames(2, samples, height, width, seed)
    return Batch(target, (after,), (1,), index=torch.arange(samples), names=("pair",) * samples)


def random_video(samples: int = 2, height: int = 64, width: int = 96, seed: int = 0) -> Batch:
    """The pair after and the right view, 0.25 m beside in the first sample, 0.5 m in the second and so on."""
    target, after, stereo, stereo_after = random_frames(4, samples, height, width, seed)
    T = stereo_motion(torch.arange(1, samples + 1) * 0.25)
    names = ("video",) * samples
    return Batch(target, (after,), (1,), stereo, T, (stereo_after,), torch.arange(samples), names)


def stereo_motion(baseline_m: Tensor) -> Tensor:
    """(B,) metres to the right camera -> (B, 4, 4) T_stereo_target."""
    T = torch.eye(4).repeat(len(baseline_m), 1, 1)
    T[:, 0, 3] = -baseline_m
    return T


def check_step(method: Method, loss: Callable[[], Tensor]) -> None:
    """Asserts that a finite gradient reaches every parameter, and that a step against it lowers the loss.

    On noise the descent is short: some step length of a line search must find it.
    """
    before = loss()
    before.backward()
    assert not [name for name, p in method.named_parameters() if p.grad is None or not p.grad.isfinite().all()]

    def move(step: float) -> None:
        for p in method.parameters():
            if p.grad is not None:
                p.sub_(p.grad, alpha=step)

    @torch.no_grad()
    def lowers(step: float) -> bool:
        move(step)
        after = loss()
        move(-step)
        return bool(after < before)

    assert any(lowers(10.0**-k) for k in range(2, 8))
