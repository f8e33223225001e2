"""The compiled CPU kernels: found beside this file, loaded by ctypes, run over several threads.

The library is optional. It is built with the package where there is a C compiler, and wheels carry it; where it is
missing, or was built from other sources, everything runs on plain torch, several times slower.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ABI = 11  # GEOSSL_ABI of csrc/geossl.h
FOLDER = Path(__file__).parent  # of the library


def loaded() -> ctypes.CDLL | None:
    """The loaded library, None where there is none that fits."""
    return load(FOLDER)[0]


def why_missing() -> str | None:
    """Why there is no library, and the remedy, in a sentence; None where there is one."""
    return load(FOLDER)[1]


@lru_cache
def load(folder: Path) -> tuple[ctypes.CDLL | None, str | None]:
    """The library of a folder, or why there is none."""
    remedy = "Install geossl again with a C compiler (gcc or clang) at hand."
    path = next((folder / name for name in ("_cpu.so", "_cpu.dll") if (folder / name).exists()), None)
    if path is None:
        return None, f"the CPU kernels were not built. {remedy}"
    try:
        found = ctypes.CDLL(str(path))
        abi = found.geossl_abi()
    except (OSError, AttributeError) as error:
        return None, f"the CPU kernels at {path} cannot be loaded ({error}). {remedy}"
    if abi != ABI:
        return None, f"the CPU kernels at {path} are of another version ({abi}; expected {ABI}). {remedy}"
    return found, None


def kernel(name: str, *types: Any) -> Callable[..., None]:
    """A C function of the library by its name, with the types of its arguments (see `POINTER`); it returns nothing."""
    library = loaded()
    assert library is not None, "asked for a kernel without checking that there is a library"
    function = getattr(library, name)
    function.argtypes, function.restype = types, None
    return function  # type: ignore[no-any-return]


POINTER = ctypes.c_void_p
INT = ctypes.c_int
FLOAT = ctypes.c_float
LONG = ctypes.c_int64


def pointer(x: Tensor | None) -> int | None:
    """Where a tensor's data begin, for an argument of type `POINTER`; NULL for None.

    The caller keeps the tensor alive during the call: of a temporary only the address would be left.
    """
    return None if x is None else x.data_ptr()


def bands(batch: int, height: int, least: int = 16) -> list[tuple[int, int, int]]:
    """(sample, first row, last row + 1) of parts that share the work evenly, as many for every sample, in order.

    Args:
        batch: Samples.
        height: Rows of each.
        least: Rows of a part that are worth a call, as neighbouring parts compute some rows twice.
    """
    threads = torch.get_num_threads()
    parts = 1 if batch % threads == 0 else max(1, min(threads, height // least))
    edges = [height * i // parts for i in range(parts + 1)]
    return [(sample, edges[i], edges[i + 1]) for sample in range(batch) for i in range(parts)]


def in_parallel(work: Callable[[int], None], count: int) -> None:
    """Calls `work` with 0 .. count - 1, on as many threads as torch uses: ctypes lets other threads run meanwhile.

    They are torch's own, where its OpenMP can be asked for them: threads beside them would share the cores with them,
    as after an operation of torch its threads keep their core busy for some milliseconds, waiting for the next.
    """
    threads = min(torch.get_num_threads(), count)
    indices = iter(range(count))
    errors: list[BaseException] = []

    def take() -> None:
        try:
            for index in indices:
                work(index)
        except BaseException as error:  # raised once nobody writes any more to memory that the caller then gives back
            errors.append(error)

    if threads <= 1:
        take()
    elif (run := _openmp()) is not None and os.getpid() == PROCESS:
        run(TASK(lambda _: take()), None, torch.get_num_threads(), 0)
    else:
        helpers = [_pool(threads - 1, os.getpid()).submit(take) for _ in range(threads - 1)]
        take()
        for helper in helpers:  # one that wakes up too late to find anything left to do is not waited for
            if not helper.cancel():
                helper.result()
    if errors:
        raise errors[0]


PROCESS = os.getpid()  # a forked one has none of its parent's threads
TASK = ctypes.CFUNCTYPE(None, POINTER)


@lru_cache
def _openmp() -> Callable[..., None] | None:
    """`GOMP_parallel` of the OpenMP that torch computes with: calls a task on every thread; None where it has no such.

    Its arguments: the task, what it is called with, threads, flags. With another number of threads than before,
    threads are ended and made anew.
    """
    try:
        run = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    run.argtypes, run.restype = (TASK, POINTER, ctypes.c_uint, ctypes.c_uint), None
    return run  # type: ignore[no-any-return]


@lru_cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """One for each process."""
    return ThreadPoolExecutor(threads, thread_name_prefix="geossl-kernel")
