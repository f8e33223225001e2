"""`python tools/evaluate.py ...` is `geossl evaluate ...`, for debuggers and launchers that want a file."""

import sys

from geossl.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
