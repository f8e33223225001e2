"""What the kernels' tests share."""

from __future__ import annotations

import pytest

from geossl import kernels


@pytest.fixture(params=["plain", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend in turn."""
    if request.param not in kernels.available():
        pytest.skip(f"no {request.param} kernels here; install geossl with a C compiler")
    return str(request.param)
