"""Compiles every GPU kernel ahead of time, as no interpreter does: for a compute capability, without a GPU.

Run by test_gpu_kernels.py: `python compile_for_cuda.py 90` prints every kernel and the size of its code.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from geossl.kernels.gpu import census, correlation, photometric, visibility
from geossl.kernels.gpu.launch import TILE

TYPES = {"tl.tensor": "*fp32", "int": "i32", "float": "fp32"}
BYTES = {"moving", "visible"}
Constants = dict[str, Any]  # None and 1 are compiled as such


def variants() -> list[tuple[Any, Constants]]:
    """Kernels and the constants that they are launched with."""
    costs = {"PIXELS": correlation.PIXELS, "SHIFTS": correlation.SHIFTS}
    of_maps = {"PIXELS": correlation.PIXELS, "CHANNELS": correlation.CHANNELS}
    unseen = {"depth": None, "projections": None, "IGNORE": False}
    ones = {"batch": 1, "views": 1}
    return [
        (census.grey_kernel, {}),
        *((census.distance_kernel, {"RADIUS": radius}) for radius in (1, 3)),
        *((census.gradient_kernel, {"RADIUS": radius}) for radius in (1, 3)),
        (census.gradient_kernel, {"RADIUS": 3, "of_b": None, "height": 1, "width": 1}),
        (correlation.cost_kernel, costs),
        (correlation.cost_kernel, costs | {"step": 1, "reach": 1, "channels": 1, "height": 1, "width": 1}),
        *((correlation.gradient_kernel, of_maps | {"BY_B": by_b, "step": 1}) for by_b in (False, True)),
        (photometric.warp_kernel, {}),
        (photometric.warp_kernel, {"batch": 1}),
        (photometric.error_kernel, unseen | {"slopes": None}),
        (photometric.error_kernel, {"IGNORE": True, "batch": 1}),
        (photometric.decide_kernel, {"VIEWS": 1, "MINIMUM": True, "still": None, "share": None, "batch": 1}),
        *((photometric.decide_kernel, {"VIEWS": 3, "MINIMUM": minimum}) for minimum in (True, False)),
        (photometric.gradient_kernel, {}),
        (photometric.gradient_kernel, ones),
        (visibility.landed_kernel, {}),
        (visibility.landed_kernel, {"height": 1, "width": 1}),
        (visibility.returns_kernel, {}),
        (visibility.returns_kernel, {"height": 1}),
    ]


def main(capability: int) -> None:
    for kernel, constants in variants():
        parameters = inspect.signature(kernel.fn).parameters
        tiled = "TILE_Y" in parameters
        constants = constants | {name: size for name, size in TILE.items() if name in parameters}
        types = {
            name: "constexpr" if name in constants else "*u8" if name in BYTES else TYPES[parameter.annotation]
            for name, parameter in parameters.items()
        }
        source = ASTSource(kernel, types, constants)
        options = {"num_warps": TILE["num_warps"]} if tiled else {}
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        print(kernel.__name__, constants, len(compiled.asm["cubin"]), "bytes")


if __name__ == "__main__":
    main(int(sys.argv[1]))
