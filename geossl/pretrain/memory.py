"""What outlives a step: a queue of keys, a bank of samples and its normaliser, a moving average of weights.

All of it is in the state dict, so that a resumed training goes on exactly. With several processes each takes in what
all of them have made, so that all keep the same.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.networks.moving_average import follow
from geossl.pretrain.pairs import Moments


class KeyQueue(nn.Module):
    """The last keys, first in, first out; random unit vectors of no recording at first.

    Args:
        size: Keys kept. dim: Their length.
    """

    keys: Tensor
    recording: Tensor
    frame: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("recording", torch.full((size,), -1))
        self.register_buffer("frame", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @property
    def moments(self) -> Moments:
        """When the samples of the keys were recorded."""
        return Moments(self.recording, self.frame)

    @torch.no_grad()
    def push(self, keys: Tensor, when: Moments) -> None:
        """Takes in (N, D) keys, made unit vectors, in the place of the oldest."""
        size = len(self.keys)
        keys, recording, frame = (gathered(x)[-size:] for x in (keys, when.recording, when.frame))
        where = (self.place + torch.arange(len(keys), device=keys.device)) % size
        self.keys.index_copy_(0, where, F.normalize(keys.to(self.keys), dim=1))
        self.recording.index_copy_(0, where, recording)
        self.frame.index_copy_(0, where, frame)
        self.place.copy_((self.place + len(keys)) % size)


class SampleBank(nn.Module):
    """A unit vector for each sample of a data set, that follows what the encoder makes of it.

    Args:
        samples: Of the data set. dim: Length of the vectors.
        momentum: Of a vector's past.

    Source: Wu et al., CVPR 2018, section 3.1; momentum as in the released code.
    """

    vectors: Tensor

    def __init__(self, samples: int, dim: int, momentum: float = 0.5) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("vectors", F.normalize(torch.randn(samples, dim), dim=1))

    @torch.no_grad()
    def update(self, index: Tensor, vectors: Tensor) -> None:
        """Moves the vectors of (N,) samples towards (N, D) new ones."""
        index, vectors = gathered(index), F.normalize(gathered(vectors).to(self.vectors), dim=1)
        moved = self.momentum * self.vectors[index] + (1 - self.momentum) * vectors
        self.vectors.index_copy_(0, index, F.normalize(moved, dim=1))


class Partition(nn.Module):
    """The normaliser Z of probabilities that are known up to a factor: estimated at first, then a constant.

    Each batch has its own estimate until as many samples were seen as there are; what the batch then found stays.
    Before that the bank still holds random vectors, to which no image is near: a Z of theirs is far too small for
    images, so that all noise passes for data and nothing else is learned.

    Args:
        samples: Of the data set.

    Source: Wu et al., CVPR 2018, section 3.2.
    """

    log: Tensor
    seen: Tensor

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.register_buffer("log", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, estimate: Tensor) -> Tensor:
        """() this batch's estimate of log Z -> the log Z to use."""
        return torch.where(self.seen < self.samples, estimate, self.log)

    @torch.no_grad()
    def after_step(self, estimate: Tensor, batch: int) -> None:
        """Takes in the estimate of a step and its number of samples a process."""
        of_all = gathered(estimate[None])
        self.log.copy_(self(of_all.logsumexp(0) - math.log(len(of_all))))
        self.seen += batch * len(of_all)


class Ema(nn.Module):
    """A copy of modules that follows them slowly and that no gradient reaches.

    Unlike `geossl.methods.self_supervision.Teacher` it normalises by its own batches, as MoCo's and BYOL's do.

    Args:
        online: What is copied.
    """

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.module = deepcopy(online).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    def follow(self, online: nn.Module, momentum: float) -> None:
        """As `moving_average.follow`."""
        follow(self.module, online, momentum)


def gathered(x: Tensor) -> Tensor:
    """(N, ...) of this process -> (processes * N, ...) of all, in the order of ranks, the same in each."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)
