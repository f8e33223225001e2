"""The adversary: a reversed gradient by hand, and inpainting's generator with and without it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.methods import build_method
from geossl.pretrain.adversary import Discriminator, adversarial_loss, reverse_gradient
from geossl.pretrain.reconstruction import Inpainting
from geossl.types import Batch, Frame

exactly = partial(pytest.approx, rel=1e-6)


class Scaled(nn.Module):
    """The mean of an image, times a weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, image: Tensor) -> Tensor:
        return self.weight * image.mean((1, 2, 3))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batch(samples: int = 3) -> Batch:
    image = F.interpolate(random(samples, 3, 4, 5), (64, 80), mode="bilinear")
    return Batch(Frame(image, image, torch.eye(3).repeat(samples, 1, 1)), index=torch.arange(samples))


def inpainting(**options: Any) -> Inpainting:
    torch.manual_seed(0)
    method = build_method("pretrain_inpaint", {"encoder": "compact", "width": 8, **options})
    assert isinstance(method, Inpainting)
    return method


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.001, 2.0])
def test_reversed_gradient_is_minus_the_weight_times_it(weight: float) -> None:
    x = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    y = reverse_gradient(x, weight)
    assert torch.equal(y, x)
    y.square().sum().backward()
    assert x.grad is not None and x.grad.tolist() == exactly([-2 * weight, 4 * weight, -6 * weight])


@pytest.mark.parametrize("count", [1, 3])
def test_discriminator_descends_and_the_maker_ascends(count: int) -> None:
    """logits 0.5 of a mean of 0.8, and 0.5 of one of 0.2: both gradients by hand."""
    discriminator, weight, size = Scaled(0.5), 0.01, 3 * 5 * 7
    real, made = (torch.full((count, 3, 5, 7), x, requires_grad=True) for x in (0.8, 0.2))
    loss, accuracy = adversarial_loss(discriminator, real, made, weight)
    loss.backward()
    unlikely, likely = 1 / (1 + math.exp(0.4)), 1 / (1 + math.exp(-0.1))  # how wrong it is of the two
    assert loss.item() == exactly(-math.log(1 - unlikely) - math.log(1 - likely))
    assert accuracy.item() == 0.5 and not accuracy.requires_grad
    assert discriminator.weight.grad is not None and made.grad is not None
    assert discriminator.weight.grad.item() == exactly(-0.8 * unlikely + 0.2 * likely)
    assert made.grad.flatten().tolist() == exactly([-weight * 0.5 * likely / (count * size)] * count * size)


def test_adversarial_loss_is_binary_cross_entropy() -> None:
    discriminator, real, made = Scaled(3.0), random(3, 3, 5, 7), random(3, 3, 5, 7, seed=1)
    logits = discriminator(torch.cat([real, made]))
    label = torch.tensor([1.0, 1, 1, 0, 0, 0])
    expected = 2 * F.binary_cross_entropy_with_logits(logits, label)  # the sum of two means, not the mean of all
    assert adversarial_loss(discriminator, real, made, 1.0)[0].item() == exactly(expected.item())
    assert adversarial_loss(Scaled(0.0), real, made, 1.0)[0].item() == exactly(2 * math.log(2))


@pytest.mark.parametrize("shape", [(1, 3, 33, 47), (3, 3, 64, 96)])
def test_discriminator_judges_each_image_alone(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    discriminator, image = Discriminator(), random(*shape)
    logits = discriminator(image)
    assert logits.shape == shape[:1] and logits.dtype == torch.float32
    assert torch.allclose(logits[:1], discriminator(image[:1]), atol=1e-6)


def test_discriminator_learns_to_tell_noise_from_smooth_images() -> None:
    torch.manual_seed(0)
    discriminator, real = Discriminator((8, 16)), batch(6).target.image
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-2)
    for _ in range(30):
        loss, accuracy = adversarial_loss(discriminator, real, (real + 0.2 * torch.randn_like(real)).clamp(0, 1), 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert accuracy == 1 and loss < 0.2 * math.log(2)


# --- inpainting ------------------------------------------------------------------------------------------------------


def generator_gradients(method: Inpainting) -> list[Tensor]:
    """Of the encoder and the decoder, after one forward pass with the same holes."""
    torch.manual_seed(5)
    method(batch()).total.backward()
    return gradients_of(method)


def gradients_of(method: Inpainting) -> list[Tensor]:
    gradients = [p.grad for p in (*method.encoder.parameters(), *method.decoder.parameters())]
    return [g for g in gradients if g is not None]


def test_generator_learns_from_the_error_and_against_the_discriminator() -> None:
    """(1 - a) of the gradient without an adversary, and -a of that of the discriminator's cross entropy."""
    weight, methods = 0.3, [inpainting(adversary=a) for a in (0.3, 0.0, 0.3)]
    for method in methods:
        method.discriminator = method.discriminator and Scaled(10.0)  # type: ignore[assignment]  # a great gradient
    both, alone = (generator_gradients(method) for method in methods[:2])
    image, other = batch().target.image, inpainting()
    torch.manual_seed(5)
    given = other(batch()).maps["given"]
    hole, judge = (given == 0.45).all(1, keepdim=True), methods[2].discriminator
    assert judge is not None
    F.softplus(judge(torch.where(hole, methods[2].reconstruct(given), image))).mean().backward()
    against = gradients_of(methods[2])
    for a, b, c in zip(both, alone, against, strict=True):
        assert (a - (1 - weight) * b + weight * c).norm() < 1e-4 * weight * c.norm() + 1e-6


def test_weight_zero_leaves_the_generator_as_without_an_adversary() -> None:
    plain, beside = inpainting(adversary=0.0), inpainting(adversary=0.5)
    beside.options = beside.options.model_copy(update={"adversary": 0.0})
    assert plain.discriminator is None
    for a, b in zip(generator_gradients(plain), generator_gradients(beside), strict=True):
        assert torch.equal(a, b)


def test_discriminator_sees_the_image_with_its_hole_filled() -> None:
    method, seen = inpainting(), []
    assert method.discriminator is not None
    method.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    objective = method(batch())
    image, filled = seen[0].chunk(2)
    outside = (objective.maps["given"] != 0.45).any(1, keepdim=True).expand_as(image)
    assert torch.equal(image, batch().target.image) and torch.equal(filled[outside], image[outside])
    assert not torch.equal(filled, image)
    assert set(objective.terms) == {"inpainting", "adversary"} and 0 <= objective.health["discriminator"] <= 1


def test_inpainting_of_one_image_of_odd_size() -> None:
    image = random(1, 3, 65, 83)
    one = replace(batch(1), target=Frame(image, image, torch.eye(3)[None]))
    assert inpainting()(one).total.isfinite()
