import torch

from geossl.geometry.transforms import flip_batch
from geossl.methods.stereo import baseline_of, left_right
from geossl.types import Batch, Frame


def test_roles_and_baseline_follow_the_geometry() -> None:
    """Of two samples the second is mirrored: its stereo image is then the left one."""
    frames = [Frame(x, x, torch.eye(3).repeat(2, 1, 1)) for x in torch.rand(2, 2, 3, 4, 6)]
    T = torch.eye(4).repeat(2, 1, 1)
    T[:, 0, 3] = torch.tensor([-0.5, -0.6])
    batch = flip_batch(Batch(frames[0], stereo=frames[1], T_stereo_target=T), torch.tensor([False, True]))
    assert batch.stereo is not None and batch.T_stereo_target is not None
    left, right = left_right(batch.target, batch.stereo, batch.T_stereo_target)
    assert torch.equal(left.image[0], frames[0].image[0]) and torch.equal(right.image[0], frames[1].image[0])
    assert torch.equal(left.image[1], frames[1].image[1].flip(-1))
    assert torch.equal(right.jittered[1], frames[0].image[1].flip(-1))
    torch.testing.assert_close(baseline_of(batch.T_stereo_target), torch.tensor([0.5, 0.6]))
