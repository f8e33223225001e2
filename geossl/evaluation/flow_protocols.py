"""How benchmarks and papers score optical flow, as data: which pixels, which figures, averaged how.

Every figure carries its average in its name: `pooled` divides sums over the pixels of all images, `per_image` takes
the mean of the images' own figures, which counts an image with few labelled pixels as much as one with many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geossl.evaluation.protocol_names import check_protocol_name

Average = Literal["pooled", "per_image"]

REGIONS: dict[str, str] = {
    "all": "every pixel with truth (KITTI's occ)",
    "noc": "whose point is also seen in the second image (Sintel's matched)",
    "occ": "hidden or out of view in the second image (all without noc; Sintel's unmatched)",
    "bg": "background: object map 0",
    "fg": "foreground: object map > 0",
    "noc_bg": "noc and bg",
    "noc_fg": "noc and fg",
    "s0-10": "true motion below 10 px",
    "s10-40": "true motion of 10 to 40 px",
    "s40+": "true motion above 40 px",
}
SPEEDS = ("s0-10", "s10-40", "s40+")


@dataclass(frozen=True)
class FlowProtocol:
    """One way to score optical flow.

    Attributes:
        name: Under which it is asked for and reported.
        averages: Which averages are reported, the benchmark's own first.
        epe: Regions of the mean end-point error; see `REGIONS`.
        fl: Regions of the share of outliers: error > 3 px and > 5 % of the true motion.
        over: Regions of the shares of pixels with an error over 2, 3, 4 and 5 px.
    """

    name: str
    averages: tuple[Average, ...]
    epe: tuple[str, ...] = ("all", "noc", "occ")
    fl: tuple[str, ...] = ()
    over: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = sorted({*self.epe, *self.fl, *self.over} - set(REGIONS))
        if unknown:
            raise ValueError(f"regions {', '.join(unknown)} should be of {', '.join(REGIONS)}.")
        if not self.averages or not set(self.averages) <= {"pooled", "per_image"}:
            raise ValueError(f"averages {self.averages} should be of pooled and per_image.")

    def describe(self) -> dict[str, str]:
        """Every choice in words, for a table row."""
        own, *others = self.averages
        row = {"protocol": self.name, "averages": ", ".join([f"{own} (the benchmark's own)", *others])}
        if self.fl:
            row["fl"] = "error > 3 px and > 5 % of the true motion"
        return row


PROTOCOLS: dict[str, FlowProtocol] = {
    protocol.name: protocol
    for protocol in (
        # The devkit sums over all images and divides at the end.
        FlowProtocol("kitti2015", ("pooled", "per_image"), fl=("all", "bg", "fg", "noc", "noc_bg", "noc_fg", "occ")),
        # Its older devkit takes the mean of the images' shares and errors.
        FlowProtocol("kitti2012", ("per_image", "pooled"), fl=("all", "noc"), over=("all", "noc")),
        FlowProtocol("sintel", ("pooled",), epe=("all", "noc", "occ", *SPEEDS)),
        FlowProtocol("chairs", ("pooled",), epe=("all",)),
        FlowProtocol(
            "native", ("pooled", "per_image"), epe=("all", "noc", "occ", *SPEEDS), fl=("all", "bg", "fg", "noc", "occ")
        ),
    )
}


def get_flow_protocol(name: str) -> FlowProtocol:
    """The protocol of that name.

    Raises:
        ValueError: If it is unknown; names the closest.
    """
    check_protocol_name(name, PROTOCOLS, " for flow")
    return PROTOCOLS[name]
