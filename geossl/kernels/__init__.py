"""Fast versions of the few hot functions, behind the signatures of the plain ones.

The plain torch functions stay the reference: they are what runs in float64, on a GPU, where the compiled library is
missing, and under `use("plain")`. Which one runs is decided where the function is called, from its tensors and the
backend in use; gradients then follow what ran. Some functions have a kernel for CUDA as well (`geossl.kernels.gpu`),
which runs under `use("gpu")` only.

Operators are `torch.autograd.Function`s: to autograd and DDP they are ordinary, and nothing has to be registered when
this package is imported. Under torch.compile, torch.export and torch.jit.trace the plain functions run, which they can
see into.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from geossl.kernels import gpu
from geossl.kernels.library import loaded, why_missing

__all__ = ["available", "cpu_kernels_read", "cpu_kernels_run", "gpu_kernels_run", "kernels_run", "slower", "use"]

_in_use: ContextVar[str] = ContextVar("kernels", default="auto")


def available() -> tuple[str, ...]:
    """The backends that run here: `plain` always, `cpu` where the library was built, `gpu` with CUDA and Triton."""
    reasons = {"plain": None, "cpu": why_missing(), "gpu": gpu.why_missing()}
    return tuple(name for name, reason in reasons.items() if reason is None)


@contextmanager
def use(backend: str) -> Iterator[None]:
    """While entered, `plain`: no kernels; `auto`: CPU kernels where they fit; `cpu`: the same, and they must be there.

    `gpu`: as `auto`, and CUDA tensors have their kernels too, which must be there. `auto` leaves them out because they
    have not been measured on a GPU yet.

    It holds for the thread that entered it; threads started meanwhile have the default, `auto`.

    Raises:
        ValueError: If the backend is unknown or cannot run here; says why.
    """
    if backend not in ("auto", "plain", "cpu", "gpu"):
        raise ValueError(f"kernels are auto, plain, cpu or gpu, not '{backend}'.")
    reason = {"cpu": why_missing, "gpu": gpu.why_missing}.get(backend, lambda: None)()
    if reason is not None:
        raise ValueError(f"kernels '{backend}' cannot be used: {reason}")
    token = _in_use.set(backend)
    try:
        yield
    finally:
        _in_use.reset(token)


def cpu_kernels_run(*tensors: Tensor | None, dtypes: Sequence[torch.dtype] = (torch.float32,)) -> bool:
    """Whether a CPU kernel computes a function of these.

    Args:
        tensors: What it reads. dtypes: Those that it knows.

    Returns:
        True for such tensors on the CPU, where the library is there, `plain` is not in use, and nothing is traced.
    """
    fits = all(x.dtype in dtypes and x.device.type == "cpu" for x in tensors if x is not None)
    return fits and _in_use.get() != "plain" and not _traced() and loaded() is not None


def cpu_kernels_read(image: Tensor) -> bool:
    """Whether a CPU kernel that gives no gradient reads a (B, 3, H, W) image: float32, without one asked for."""
    return image.shape[1] == 3 and cpu_kernels_run(image) and not (torch.is_grad_enabled() and image.requires_grad)


def gpu_kernels_run(*tensors: Tensor | None) -> bool:
    """Whether a GPU kernel computes a function of these: float32 of one GPU, under `use("gpu")`, nothing is traced."""
    if _in_use.get() != "gpu" or _traced():
        return False
    given = [x for x in tensors if x is not None]
    return len({x.device for x in given}) == 1 and all(x.dtype == torch.float32 and gpu.fits(x.device) for x in given)


def kernels_run(*tensors: Tensor | None) -> bool:
    """Whether a kernel computes a function of these float32 tensors, where it has one for the CPU and one for CUDA."""
    return gpu_kernels_run(*tensors) or cpu_kernels_run(*tensors)


def _traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def slower(device: torch.device) -> str | None:
    """What a training on this device should be told about missing kernels, None if nothing."""
    reason = why_missing() if device.type == "cpu" and _in_use.get() != "plain" else None
    return None if reason is None else f"training will be slower than it could be: {reason}"
