"""Numbers become tensors on the device: what runs in every step copies no list of the processor's there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from geossl.appearance import adjust_hue
from geossl.geometry.constants import vector_like
from geossl.geometry.pixels import sample_at_pixels
from geossl.geometry.transforms import crop_K, flip_flow, flip_T, resize_flow, resize_K, resize_pixels
from geossl.losses.census import grey_255
from geossl.networks.padding import unpad_flow

IMAGE, FLOW, K = torch.rand(3, 3, 5, 7), torch.rand(3, 2, 5, 7), torch.eye(3).repeat(3, 1, 1)
IN_EVERY_STEP: dict[str, Callable[[], Tensor]] = {
    "sample_at_pixels": lambda: sample_at_pixels(IMAGE, FLOW),
    "resize_K": lambda: resize_K(K, (5, 7), (9, 13)),
    "crop_K": lambda: crop_K(K, 1, 2),
    "resize_pixels": lambda: resize_pixels(FLOW, (5, 7), (9, 13)),
    "flip_T": lambda: flip_T(torch.eye(4)),
    "resize_flow": lambda: resize_flow(FLOW, (9, 13)),
    "flip_flow": lambda: flip_flow(FLOW),
    "grey_255": lambda: grey_255(IMAGE),
    "unpad_flow": lambda: unpad_flow(torch.rand(3, 2, 2, 2), (64, 64), (37, 51)),
    "adjust_hue": lambda: adjust_hue(IMAGE, torch.rand(3)),
}


class WithoutLists(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor, Tensor.new_tensor), "makes a tensor of a list"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", IN_EVERY_STEP)
def test_what_runs_in_every_step_makes_no_tensor_of_a_list(name: str) -> None:
    with WithoutLists():
        IN_EVERY_STEP[name]()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_vector_like_equals_new_tensor(dtype: torch.dtype) -> None:
    numbers = (1 / 3, -2, 609.56)
    x = torch.rand(2, 5, dtype=dtype)
    found = vector_like(x, *numbers)
    assert found.dtype == dtype and torch.equal(found, x.new_tensor(numbers))


@pytest.mark.gpu
def test_a_warp_does_not_wait_for_the_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    image, flow = IMAGE.cuda(), FLOW.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sample_at_pixels(image, flow)
    finally:
        torch.cuda.set_sync_debug_mode("default")
