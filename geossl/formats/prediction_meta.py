"""What a folder of predictions says of itself: its meta.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geossl.formats.errors import FormatError

REMEDY = "Predict again with --overwrite."


@dataclass(frozen=True)
class PredictionMeta:
    """What meta.json says of a folder of predictions; all None for a foreign folder without one.

    Attributes:
        up_to_scale: True if the model has no metres.
        flip: Whether predictions are averaged with the mirrored image's.
        values: The whole file.
    """

    up_to_scale: bool | None = None
    flip: bool | None = None
    values: dict[str, Any] | None = None


def read_meta(predictions: str | Path) -> PredictionMeta:
    """Reads OUT/meta.json; a folder without one is another method's.

    Raises:
        FormatError: If it is there but cannot be read.
    """
    path = Path(predictions) / "meta.json"
    if not path.is_file():
        return PredictionMeta()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormatError(path, f"is not JSON ({error}). {REMEDY}") from None
    if not isinstance(values, dict):
        raise FormatError(path, f"should hold an object, not a {type(values).__name__}. {REMEDY}")
    units, flip = values.get("units"), values.get("flip_postprocessing")
    up_to_scale = None if units is None else units == "up_to_scale"
    return PredictionMeta(up_to_scale, flip if isinstance(flip, bool) else None, values)
