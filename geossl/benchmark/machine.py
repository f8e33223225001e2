"""The machine and the versions that figures were measured with, and how fast the machine is by itself."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import geossl
from geossl.benchmark.contest import seconds_of
from geossl.kernels import available

COPIED_MB = 256
SMALLEST_MATRIX, LEAST_SECONDS = 256, 0.02  # matrices are doubled until a product takes this long
REPEATS = 5


def machine(device: torch.device) -> dict[str, Any]:
    """Names and versions, without anything that takes time."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": available()[-1],
        "geossl": geossl.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def floors(device: torch.device) -> dict[str, float]:
    """What the machine does at most: `copy_gb_s` of memory (read and written), `fp32_gflops` and `bf16_gflops`.

    A part of a step that moves so many bytes, or multiplies so much, cannot take less time than these allow.
    """
    source = torch.zeros(COPIED_MB << 18, device=device)
    target = torch.empty_like(source)
    found = {"copy_gb_s": 2 * source.nbytes / 1e9 / _median(lambda: target.copy_(source), device)}
    return found | {"fp32_gflops": _gflops(torch.float32, device), "bf16_gflops": _gflops(torch.bfloat16, device)}


def processor_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gflops(dtype: torch.dtype, device: torch.device) -> float:
    """Of a product of matrices as large as this machine needs: bf16 may be a thousand times as slow as on another."""
    size, seconds = SMALLEST_MATRIX // 2, 0.0
    while seconds < LEAST_SECONDS:
        size *= 2
        a = torch.rand(size, size, device=device).to(dtype)
        seconds = _median(partial(torch.mm, a, a), device)
    return 2 * size**3 / 1e9 / seconds


def _median(work: Callable[[], Any], device: torch.device) -> float:
    work()
    return statistics.median(seconds_of(work, device) for _ in range(REPEATS))
