"""What the tests of flow methods share: the synthetic street with its true flow both ways, and wrong flows."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from geossl.data.synthetic.example import street_example
from geossl.types import Batch

Change = Callable[[Tensor], Tensor]

# What the photometric part of every objective must like less than the truth, in both directions.
WRONG_FLOWS: dict[str, Change] = {
    "zero": torch.zeros_like,
    "negated": lambda flow: -flow,
    "half a pixel to the right": lambda flow: flow + torch.tensor([0.5, 0.0]).view(1, 2, 1, 1),
    "half a pixel down": lambda flow: flow + torch.tensor([0.0, 0.5]).view(1, 2, 1, 1),
    "shorter by 2 %": lambda flow: flow * 0.98,
    "longer by 2 %": lambda flow: flow * 1.02,
}


@cache
def street_pair(seed: int, width: int = 192, height: int = 64) -> tuple[Batch, Tensor]:
    """Two images of the street and (2, 2, H, W) true flow, forward and backward."""
    first = street_example(width, height, seed, frame=5)
    second = street_example(width, height, seed, frame=6)
    batch = replace(first.batch, sources=first.batch.sources[1:], source_offsets=(1,))
    assert torch.equal(batch.sources[0].image, second.batch.target.image)
    return batch, torch.cat([first.flow[1], second.flow[0]])
