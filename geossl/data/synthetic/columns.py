"""Reading and writing chosen columns of (C, N) arrays: what `a[:, index]` does, several times faster."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def columns(array: NDArray[Any], index: NDArray[Any]) -> NDArray[Any]:
    """`array[:, index]` for integers `index`, of a (C, N) array."""
    return np.take(array, index, axis=1)


def put_columns(array: NDArray[Any], index: NDArray[Any], values: NDArray[Any]) -> None:
    """`array[:, index] = values`, in place."""
    for row, value in zip(array, values, strict=True):
        row[index] = value
