"""What the longer commands do; `geossl.cli` only reads the command line."""
