"""`python -m geossl` is the `geossl` command."""

from geossl.cli import main

if __name__ == "__main__":
    main()
