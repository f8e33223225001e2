"""geossl: depth, ego-motion and optical flow learned from driving video and stereo without labels.

Importing the package imports nothing heavy; take what is needed from its modules, e.g.
`from geossl.geometry.warping import synthesize_target`.

What may import what, from below: kernels and types; geometry, formats and config; losses and networks; methods and
pretrain; data and evaluation, which know no methods; engine; predict and the commands on top. tests/test_layers.py
holds it exactly.
"""

__version__ = "0.1.0"
