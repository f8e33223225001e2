"""Batch norm in groups of a batch, and encoding in a shuffled order, so that groups tell nothing about pairs.

A query and its key that are normalised in groups of the same samples share the groups' statistics, by which the one is
found without looking at what it shows. MoCo shuffles the keys' order over processes before they are encoded. On one
device batch norm sees the whole batch, shuffled or not: there it takes `SplitBatchNorm2d` to have groups at all.

Source: He et al., CVPR 2020 (MoCo), section 3.3. https://arxiv.org/abs/1911.05722
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that, in training, normalises successive groups of the batch apart; tensor names as `BatchNorm2d`.

    Attributes:
        splits: Number of groups. A batch that they do not divide has as many as their greatest common divisor.
    """

    splits: int = 1

    def forward(self, input: Tensor) -> Tensor:
        splits = math.gcd(len(input), self.splits)
        if not self.training or splits == 1:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        grouped = input.unflatten(0, (splits, -1)).transpose(0, 1).flatten(1, 2)  # (B / splits, splits * C, H, W)
        mean, var = self.running_mean.repeat(splits), self.running_var.repeat(splits)
        weight, bias = (x.repeat(splits) for x in (self.weight, self.bias))
        out = F.batch_norm(grouped, mean, var, weight, bias, True, self.momentum, self.eps)
        with torch.no_grad():
            self.running_mean.copy_(mean.view(splits, -1).mean(0))
            self.running_var.copy_(var.view(splits, -1).mean(0))
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        return out.unflatten(1, (splits, -1)).transpose(0, 1).flatten(0, 1)


def split_batchnorm(module: nn.Module, splits: int) -> None:
    """Makes every `BatchNorm2d` inside normalise in groups; parameters, statistics and names stay.

    Args:
        module: Changed in place.
        splits: Groups of a batch.
    """
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            split = SplitBatchNorm2d(child.num_features, child.eps, child.momentum or 0.1)
            split.load_state_dict(child.state_dict())
            split.splits = splits
            setattr(module, name, split)
        else:
            split_batchnorm(child, splits)


def shuffled(module: nn.Module, images: Tensor) -> Tensor:
    """What a module makes of (B, C, H, W) images when they come in a random order, back in their own order.

    Draws from torch's global generator.
    """
    order = torch.randperm(len(images)).to(images.device)
    found = module(images[order])
    return found[order.argsort()]  # type: ignore[no-any-return]
