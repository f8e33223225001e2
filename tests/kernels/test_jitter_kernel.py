"""Colour jitter: the kernel against the plain functions, which tests/test_appearance.py holds against torchvision."""

import pytest
import torch

from geossl import kernels
from geossl.appearance import jitter
from geossl.kernels import cpu_kernels_read

needs_library = pytest.mark.skipif("cpu" not in kernels.available(), reason="the CPU kernels were not built")


def factors(count: int, seed: int) -> torch.Tensor:
    u = torch.rand(4, count, generator=torch.Generator().manual_seed(seed))
    return torch.stack([0.4 + 1.2 * u[0], 0.4 + 1.2 * u[1], 2 * u[2], u[3] - 0.5])


@needs_library
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 7, 13), (2, 32, 33)])
def test_kernel_equals_the_plain_functions(size: tuple[int, int, int]) -> None:
    b, h, w = size
    image = torch.rand(b, 3, h, w, generator=torch.Generator().manual_seed(1))
    image[0, :, : h // 2] = 0.5  # grey: no hue
    with kernels.use("plain"):
        expected = jitter(image.double(), factors(b, 2).double())
    with kernels.use("cpu"):
        found = jitter(image, factors(b, 2))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)


@needs_library
def test_kernel_reads_any_layout_and_leaves_its_input() -> None:
    image = torch.rand(2, 3, 9, 14).contiguous(memory_format=torch.channels_last)
    before = image.clone()
    with kernels.use("cpu"):
        found, dense = jitter(image, factors(2, 3)), jitter(before.contiguous(), factors(2, 3))
    assert torch.equal(image, before)
    assert torch.equal(found, dense)


def test_gradients_take_the_plain_functions() -> None:
    image = torch.rand(1, 3, 4, 5, requires_grad=True)
    jitter(image, factors(1, 4)).sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_factors_of_one_change_nothing() -> None:
    image = torch.rand(2, 3, 8, 9)
    still = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(jitter(image, still), image, rtol=0, atol=1e-5)


def test_other_images_than_colour_are_none_of_the_kernel() -> None:
    assert not cpu_kernels_read(torch.rand(2, 1, 8, 9))
