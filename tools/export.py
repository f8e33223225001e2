"""`python tools/export.py ...` is `geossl export ...`, for debuggers and launchers that want a file."""

import sys

from geossl.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
