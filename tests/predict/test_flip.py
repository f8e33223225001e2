import pytest
import torch
from torch import Tensor

from geossl.geometry.transforms import flip_K
from geossl.predict.flip import flip_averaged_scene_flow, merge_mirrored

K = torch.tensor([[[50.0, 0, 30.0], [0, 50.0, 10.0], [0, 0, 1]]])


def test_merge_takes_each_edge_from_the_one_that_sees_it() -> None:
    merged = merge_mirrored(torch.zeros(2, 3, 5, 201), torch.ones(2, 3, 5, 201))[1, 2, 3]
    assert (merged[:11] == 1).all() and (merged[-11:] == 0).all()
    assert merged[20:-20].tolist() == pytest.approx([0.5] * 161)
    assert merged[15].item() == pytest.approx(0.75) and merged[-16].item() == pytest.approx(0.25)


class Follows:
    """A model whose answer is a function of the geometry, so that mirroring must give the mirrored answer."""

    is_metric = True

    def __init__(self, seen: list[tuple[Tensor, Tensor | None]]) -> None:
        self.seen = seen

    def predict_scene_flow(
        self, target: Tensor, source: Tensor, K: Tensor, K_source: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        self.seen.append((K, K_source))
        u = torch.arange(target.shape[-1]).expand_as(target[:, :1])
        x = (u - K[:, 0, 2].view(-1, 1, 1, 1)) / 50
        return 5 + target[:, :1], torch.cat([x, target[:, 1:2], source[:, :1]], 1)


def test_flip_average_of_a_model_that_obeys_mirrors_is_its_prediction() -> None:
    seen: list[tuple[Tensor, Tensor | None]] = []
    target, source = torch.rand(2, 1, 3, 7, 40)
    K_source = K * 1.0
    depth, scene_flow = flip_averaged_scene_flow(Follows(seen), target, source, K, K_source)
    expected = Follows([]).predict_scene_flow(target, source, K)
    torch.testing.assert_close(depth, expected[0])
    torch.testing.assert_close(scene_flow, expected[1])
    assert seen[1][1] is not None and torch.equal(seen[1][1], flip_K(K_source, 40))
