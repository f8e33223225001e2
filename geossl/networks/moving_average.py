"""Networks that follow another one slowly: teachers, target networks, encoders of keys."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves every weight and statistic to decay * own + (1 - decay) * the network's; counters are copied.

    Args:
        average: Of the network's kind.

    Source: Tarvainen & Valpola, NeurIPS 2017 (Mean teachers), section 2; He et al., CVPR 2020 (MoCo), eq. 2, whose
    statistics stay behind.
    """
    theirs = network.state_dict()
    for name, own in average.state_dict().items():
        if own.is_floating_point():
            own.lerp_(theirs[name], 1 - decay)
        else:
            own.copy_(theirs[name])
