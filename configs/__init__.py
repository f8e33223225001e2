"""The packaged experiments: one YAML file each, found by name by `geossl train NAME` and `geossl config --list`."""
