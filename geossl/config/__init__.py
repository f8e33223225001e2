"""The experiment schema: what a YAML config may say, with every default and its meaning.

A config file holds only what differs from the defaults; `base: other.yaml` inherits from a file beside it or from
the packaged `configs/`. `key=value` overrides reach any field by its dotted path (`train.lr=2e-4`). All errors are
reported at once, each with the closest valid name.
"""

from geossl.config.experiment import (
    Augment,
    Data,
    Experiment,
    Train,
)
from geossl.config.reading import (
    configs_dir,
    dump_yaml,
    find_config,
    load_experiment,
    merge,
    parse_experiment,
    parse_source,
    parse_yaml,
)
from geossl.config.sources import (
    SOURCE_KINDS,
    AnySource,
    FlyingChairs,
    Folder,
    KittiOdometry,
    KittiRaw,
    KittiStereo,
    Sintel,
    Source,
    Video,
)
from geossl.config.strict import (
    ConfigError,
    Strict,
)

__all__ = [
    "SOURCE_KINDS",
    "AnySource",
    "Augment",
    "ConfigError",
    "Data",
    "Experiment",
    "FlyingChairs",
    "Folder",
    "KittiOdometry",
    "KittiRaw",
    "KittiStereo",
    "Sintel",
    "Source",
    "Strict",
    "Train",
    "Video",
    "configs_dir",
    "dump_yaml",
    "find_config",
    "load_experiment",
    "merge",
    "parse_experiment",
    "parse_source",
    "parse_yaml",
]
