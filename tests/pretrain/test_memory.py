"""State that outlives a step: queues keep the last keys, averages follow, and shuffling hides the groups."""

import pytest
import torch
from torch import Tensor, nn

from geossl.pretrain.byol import momentum_at
from geossl.pretrain.memory import Ema, KeyQueue, SampleBank
from geossl.pretrain.pairs import Moments
from geossl.pretrain.split_batchnorm import SplitBatchNorm2d, shuffled, split_batchnorm


def pushed(queue: KeyQueue, count: int, numbers: range) -> None:
    """Pushes keys whose frame is their number."""
    for start in range(numbers.start, numbers.stop, count):
        frame = torch.arange(start, min(start + count, numbers.stop))
        queue.push(frame[:, None] + torch.ones(len(frame), 4), Moments(torch.zeros_like(frame), frame))


def test_queue_keeps_exactly_the_last_keys() -> None:
    queue = KeyQueue(8, 4)
    pushed(queue, 3, range(15))
    assert sorted(queue.frame.tolist()) == list(range(7, 15))  # a bank that drops keys on its wrap keeps 6, not 8
    assert torch.allclose(queue.keys.norm(dim=1), torch.ones(8))


def test_queue_takes_the_last_of_more_keys_than_it_holds() -> None:
    queue = KeyQueue(4, 4)
    pushed(queue, 2, range(2))
    pushed(queue, 7, range(2, 9))
    assert sorted(queue.frame.tolist()) == [5, 6, 7, 8]
    pushed(queue, 1, range(9, 10))
    assert sorted(queue.frame.tolist()) == [6, 7, 8, 9]


def test_queue_goes_on_from_its_state() -> None:
    one, other = KeyQueue(8, 4), KeyQueue(8, 4)
    pushed(one, 3, range(9))
    other.load_state_dict(one.state_dict())
    for queue in (one, other):
        pushed(queue, 3, range(9, 15))
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def test_fresh_queue_is_of_no_recording() -> None:
    moments = Moments(torch.tensor([0, 7]), torch.tensor([0, 3]))
    assert not moments.near(KeyQueue(8, 4).moments, 100).any()


def test_bank_moves_vectors_by_its_momentum() -> None:
    bank = SampleBank(3, 2, momentum=0.5)
    bank.vectors.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    bank.update(torch.tensor([2]), torch.tensor([[0.0, 7.0]]))
    half = 0.5**0.5
    assert torch.allclose(bank.vectors, torch.tensor([[1.0, 0.0], [0.0, 1.0], [half, half]]))


@pytest.mark.parametrize(("momentum", "expected"), [(0.9, 1.1), (1.0, 1.0), (0.0, 2.0)])
def test_average_follows_weights_and_statistics(momentum: float, expected: float) -> None:
    online = nn.BatchNorm2d(1)
    average = Ema(online)
    with torch.no_grad():
        online.weight.fill_(2.0)
    online.running_var.fill_(2.0)
    online.num_batches_tracked += 3
    average.follow(online, momentum)  # from 1: 0.9 * 1 + 0.1 * 2; reversed it would be 1.9
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.running_var.item() == pytest.approx(expected)
    assert average.module.num_batches_tracked.item() == 3
    assert not any(p.requires_grad for p in average.parameters())
    assert online.weight.requires_grad


def test_byol_momentum_rises_to_one() -> None:
    assert momentum_at(0.0, 0.996) == pytest.approx(0.996)
    assert momentum_at(0.5, 0.996) == pytest.approx(0.998)
    assert momentum_at(1.0, 0.996) == 1.0


# --- batch norm in groups --------------------------------------------------------------------------------------------


def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, 5, 7, generator=generator) * torch.arange(1.0, 9).view(8, 1, 1, 1)


def test_shuffling_changes_nothing_but_the_groups() -> None:
    x, norm = images(), nn.BatchNorm2d(3)
    torch.manual_seed(1)
    assert (shuffled(norm, x) - norm(x)).abs().max() < 1e-5
    net = nn.Sequential(norm)
    split_batchnorm(net, 4)
    assert (shuffled(net, x) - net(x)).abs().max() > 0.1


def test_split_batchnorm_normalises_successive_groups() -> None:
    x, net, plain = images(), nn.Sequential(nn.BatchNorm2d(3)), nn.BatchNorm2d(3)
    split_batchnorm(net, 4)
    parts = [nn.BatchNorm2d(3) for _ in range(4)]
    assert torch.allclose(net(x), torch.cat([f(p) for f, p in zip(parts, x.chunk(4), strict=True)]), atol=1e-6)
    means = torch.stack([p.running_mean for p in parts if p.running_mean is not None]).mean(0)
    assert torch.allclose(net[0].running_mean, means, atol=1e-6)  # type: ignore[arg-type]
    assert net[0].num_batches_tracked == 1
    plain.load_state_dict(net[0].state_dict())  # the names of the plain layer
    assert torch.equal(net.eval()(x), plain.eval()(x))


def test_split_batchnorm_of_a_batch_it_does_not_divide() -> None:
    norm = SplitBatchNorm2d(3)
    norm.splits = 4
    assert torch.allclose(norm(images()[:7]), nn.BatchNorm2d(3)(images()[:7]), atol=1e-6)
