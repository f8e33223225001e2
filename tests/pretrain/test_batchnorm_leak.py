"""Groups of batch norm give pairs away, and shuffling the keys closes the leak.

Every second sample is blank: nothing of its own tells its query and its key from another's. Batch norm works on groups
of two, a blank with a picture, so that a blank which is normalised with the same picture twice can be told by it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.methods import build_method
from geossl.networks.blocks import Encoder
from geossl.pretrain import method as pretraining
from geossl.pretrain import moco
from geossl.types import Batch, Frame

PAIRS, STEPS, LAST = 16, 80, 20  # of a picture and a blank in a batch; of the training; of them, those that count
VIEWS = {"zoom": (1.0, 1.1), "rotation_deg": 0.0, "hue": 0.0, "grey": 0.0, "blur_px": 0.0}
VIEWS |= dict.fromkeys(("brightness", "contrast", "saturation"), 0.1)
OPTIONS = {"queue": 128, "momentum": 0.9, "dim": 32, "batchnorm_splits": PAIRS, "views": VIEWS}


class TwoLayers(Encoder):
    """Small enough to learn within a second."""

    def __init__(self) -> None:
        super().__init__()
        self.images, self.channels = 1, (16,)
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.net(image)]


def blanks_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Share of the blanks whose query is most like their own key, of the keys of all blanks of the batch."""
    shares: list[float] = []
    compare: Callable[..., Tensor] = moco.info_nce

    def watched(query: Tensor, key: Tensor, *rest: object) -> Tensor:
        nearest = (query[1::2] @ key[1::2].T).argmax(1)
        shares.append(float((nearest == torch.arange(PAIRS)).double().mean()))
        return compare(query, key, *rest)

    torch.manual_seed(seed)
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "build_any_encoder", lambda name, weights: TwoLayers())
        patch.setattr(moco, "info_nce", watched)
        pictures = F.interpolate(torch.rand(256, 3, 4, 4), (16, 16), mode="bilinear")
        method = build_method("pretrain_moco", OPTIONS)
        optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 3e-3)
        for step in range(STEPS):
            chosen = pictures[torch.randperm(len(pictures))[:PAIRS]]
            image = torch.stack([chosen, torch.full_like(chosen, 0.5)], 1).flatten(0, 1)
            names = tuple(f"{step * len(image) + i}/0" for i in range(len(image)))  # all of other recordings
            batch = Batch(Frame(image, image, torch.eye(3).repeat(len(image), 1, 1)), names=names)
            optimizer.zero_grad()
            method(batch).total.backward()
            optimizer.step()
            method.after_step()
    return sum(shares[-LAST:]) / LAST


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffling_hides_the_groups(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with_shuffling = blanks_found(seed, monkeypatch)
    monkeypatch.setattr(moco, "shuffled", lambda module, images: module(images))
    without = blanks_found(seed, monkeypatch)
    assert without > 3 * with_shuffling  # 0.4 to 0.8 against 0.06
    assert with_shuffling < 2 / PAIRS  # by chance 1 / PAIRS
