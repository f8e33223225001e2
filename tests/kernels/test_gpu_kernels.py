"""The GPU kernels as a package: nothing is imported early, missing parts are told, and all kernels compile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from geossl import kernels
from geossl.kernels import gpu


def run(*arguments: str, **environment: str) -> str:
    """What a Python of its own prints, without an interpreter of kernels."""
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, *arguments], env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_imports_triton_before_a_kernel_runs() -> None:
    code = "import sys, geossl.kernels, geossl.losses.census, geossl.methods; print('triton' in sys.modules)"
    assert run("-c", code).strip() == "False"


def test_missing_triton_or_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "_has_triton", lambda: True)
    with pytest.raises(ValueError, match=r"'gpu' cannot be used: .* a CUDA device"), kernels.use("gpu"):
        pass
    monkeypatch.setattr(gpu, "_has_triton", lambda: False)
    with pytest.raises(ValueError, match=r"'gpu' cannot be used: .* Triton"), kernels.use("gpu"):
        pass
    assert "gpu" not in kernels.available()


@pytest.mark.parametrize("backend", ["gpu"], indirect=True)
def test_gpu_kernels_run_only_when_asked_for_by_name(backend: str) -> None:
    x = torch.zeros(2)
    assert not kernels.gpu_kernels_run(x)
    for other in ("auto", "plain"):
        with kernels.use(other):
            assert not kernels.gpu_kernels_run(x)
    with kernels.use(backend):
        assert kernels.gpu_kernels_run(x, None) and kernels.kernels_run(x)
        assert not kernels.gpu_kernels_run(x, x.double())


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["80", "90"])
def test_every_kernel_compiles_for_cuda(capability: str, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="no Triton here; it comes with torch for CUDA on Linux")
    script = Path(__file__).with_name("compile_for_cuda.py")
    lines = run(str(script), capability, TRITON_CACHE_DIR=str(tmp_path)).splitlines()
    kernels_of_files = {line.split()[0] for line in lines}
    assert {"distance_kernel", "cost_kernel", "warp_kernel", "gradient_kernel"} <= kernels_of_files
