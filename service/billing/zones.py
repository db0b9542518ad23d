"""Time zones by their names in the tz database."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

ALIKE = 0.8
"""How much alike a name must be to be suggested: a slip of the pen is, CST and UCT are 8 hours apart."""
NAME_MAX = 64
"""Characters: twice as many as the longest has. `zoneinfo` makes a folder of each /, and recurses into it."""


class UnknownZoneError(ValueError):
    """No zone is called so; the message says it without the name, and what to give."""


def zone_named(name: str) -> ZoneInfo:
    """The zone of a name such as Asia/Shanghai; raises UnknownZoneError."""
    try:
        if len(name) > NAME_MAX:
            raise ValueError("no zone's name is as long")
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        meant = get_close_matches(name[:NAME_MAX], _names(), 1, cutoff=ALIKE)
        hint = f"did you mean {meant[0]}?" if meant else "give one such as Asia/Shanghai"
        raise UnknownZoneError(f"no name of the tz database; {hint}") from None


@cache
def _names() -> list[str]:
    return sorted(available_timezones())
