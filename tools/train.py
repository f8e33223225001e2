"""`python tools/train.py ...` is `geossl train ...`, for debuggers and launchers that want a file."""

import sys

from geossl.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
