"""The synthetic street: a ray-cast driving world with exact labels, written like KITTI raw."""

from geossl.data.synthetic.example import StreetExample, street_example
from geossl.data.synthetic.options import StreetOptions
from geossl.data.synthetic.render import Rendering, render_frame
from geossl.data.synthetic.world import Street, make_street
from geossl.data.synthetic.write import write_street
from geossl.formats.street import FrameLabels, read_labels

__all__ = [
    "FrameLabels",
    "Rendering",
    "Street",
    "StreetExample",
    "StreetOptions",
    "make_street",
    "read_labels",
    "render_frame",
    "street_example",
    "write_street",
]
