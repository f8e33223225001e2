"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(2)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, by whatever comes first


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real frames with ground truth, beside the project or at GEOSSL_TEST_DATA; tests skip where absent."""
    root = Path(os.environ.get("GEOSSL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real frames at {root}; set GEOSSL_TEST_DATA to run this test")
    return root
