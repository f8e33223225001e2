"""Penalties that forgive large errors, pixel by pixel. All have a finite gradient everywhere, at 0 included."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from geossl.geometry.precision import float32_island

Robust = Callable[[Tensor], Tensor]


@float32_island
def charbonnier(x: Tensor, exponent: float = 0.5, eps: float = 1e-3, scale: float = 1.0) -> Tensor:
    """((scale x)^2 + eps^2)^exponent, of any shape.

    The defaults are sqrt(x^2 + 0.001^2), the robust L1 of UFlow and SMURF; `exponent` 0.45 is UnFlow's, whose
    brightness term also has `scale` 255.

    Source: Sun et al., IJCV 2014 (the generalised Charbonnier penalty); Meister et al., AAAI 2018, section 3.
    """
    return (x * scale).square().add(eps**2).pow(exponent)


@float32_island
def power_l1(x: Tensor, exponent: float = 0.4, eps: float = 0.01) -> Tensor:
    """(|x| + eps)^exponent, of any shape: DDFlow's penalty, also of SelFlow and of the census in UFlow and SMURF.

    Source: Liu et al., AAAI 2019, section 3.
    """
    return x.abs().add(eps).pow(exponent)
