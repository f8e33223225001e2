"""Protocols are asked for by name; an unknown one is answered with the closest."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def check_protocol_name(name: str, known: Collection[str], task: str = "") -> None:
    """Raises ValueError if no protocol has that name; names the closest and all of them.

    Args:
        task: What the known ones score, for the message: " for flow".
    """
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"unknown protocol '{name}'.{hint} Known{task}: {', '.join(known)}.")
