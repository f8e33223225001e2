"""geossl: depth, ego-motion and optical flow learned from driving video and stereo without labels.

Importing the package imports nothing heavy; take what is needed from its modules, e.g.
`from geossl.geometry.warping import synthesize_target`.
"""

__version__ = "0.1.0"
