"""The machine and the versions that figures were measured with, and how fast the machine is by itself."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import geossl
from geossl.benchmark.contest import seconds_of
from geossl.kernels import available

COPIED_MB, MATRIX = 256, 2048
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
    for name, dtype in (("fp32_gflops", torch.float32), ("bf16_gflops", torch.bfloat16)):
        a = torch.rand(MATRIX, MATRIX, device=device).to(dtype)
        found[name] = 2 * MATRIX**3 / 1e9 / _median(lambda a=a: a @ a, device)  # type: ignore[misc]
    return found


def processor_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _median(work: Callable[[], Any], device: torch.device) -> float:
    work()
    return statistics.median(seconds_of(work, device) for _ in range(REPEATS))
