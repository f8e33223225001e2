"""What the kernels' tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch

from geossl import kernels
from geossl.kernels import gpu


@pytest.fixture(params=["plain", "cpu"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every backend in turn, or those that a test is parametrised with; `gpu` where the function has such a kernel.

    New tensors are made where it runs. Without a GPU its kernels run in Triton's interpreter, whose time goes by the
    number of programs: larger tiles and blocks have fewer.
    """
    name = str(request.param)
    with ExitStack() as stack:
        if name == "gpu" and torch.cuda.is_available():
            stack.enter_context(torch.device("cuda"))
        elif name == "gpu":
            monkeypatch.setattr(gpu, "INTERPRETED", True)
        if name not in kernels.available():
            why = gpu.why_missing() if name == "gpu" else "no cpu kernels here; install geossl with a C compiler"
            pytest.skip(str(why))
        if name == "gpu" and gpu.INTERPRETED:
            from geossl.kernels.gpu import correlation, launch

            monkeypatch.setattr(correlation, "PIXELS", 256)
            monkeypatch.setattr(correlation, "SHIFTS", 128)
            monkeypatch.setitem(launch.TILE, "TILE_Y", 64)
            monkeypatch.setitem(launch.TILE, "TILE_X", 64)
        yield name
