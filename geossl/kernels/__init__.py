"""Fast versions of the few hot functions, behind the signatures of the plain ones.

The plain torch functions stay the reference: they are what runs in float64, on a GPU, where the compiled library is
missing, and under `use("plain")`. Which one runs is decided where the function is called, from its tensors and the
backend in use; gradients then follow what ran.

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

from geossl.kernels.library import loaded, why_missing

__all__ = ["available", "cpu_kernels_run", "slower", "use"]

_in_use: ContextVar[str] = ContextVar("kernels", default="auto")


def available() -> tuple[str, ...]:
    """The backends that can run here: `plain` always, `cpu` where the library was built."""
    return ("plain", "cpu") if loaded() is not None else ("plain",)


@contextmanager
def use(backend: str) -> Iterator[None]:
    """While entered, `plain`: no kernels; `auto`: kernels where they fit; `cpu`: the same, and they must be there.

    It holds for the thread that entered it; threads started meanwhile have the default, `auto`.

    Raises:
        ValueError: If the backend is unknown or cannot run here; says why.
    """
    if backend not in ("auto", *available()):
        known = backend == "cpu"
        raise ValueError(
            f"kernels '{backend}' cannot be used: {why_missing()}"
            if known
            else f"kernels are auto, plain or cpu, not '{backend}'."
        )
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
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return fits and _in_use.get() != "plain" and not traced and loaded() is not None


def slower(device: torch.device) -> str | None:
    """What a training on this device should be told about missing kernels, None if nothing."""
    reason = why_missing() if device.type == "cpu" and _in_use.get() != "plain" else None
    return None if reason is None else f"training will be slower than it could be: {reason}"
