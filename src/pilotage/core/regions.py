"""Where calls may be answered: the words of residency rules.

A location is what somebody calls the place where an upstream runs (``eu``, ``europe-west4``). This
installation's own replicas run :data:`LOCAL`. A list of regions allows the locations it names, and
LOCAL too unless it holds :data:`NOT_LOCAL`; an empty list allows every location. Snapshots carry
lists as :func:`list_allowed` writes them, so that a gateway only looks whether a location is in it.
"""

import re
from collections.abc import Collection, Sequence

from pilotage.core.errors import PilotageError

LOCAL = "local"
NOT_LOCAL = "!local"
MOST_REGIONS = 100
_LOCATION = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


def check_location(name: str, param: str = "location") -> str:
    """Return a location; raise ``invalid_request`` if it can be none."""
    if not _LOCATION.fullmatch(name):
        raise PilotageError(
            "invalid_request",
            f"{name[:80]!r} is no region.",
            hint="Use lower-case letters, digits, '.', '_' and '-', "
            "for example eu or europe-west4.",
            param=param,
        )
    return name


def check_regions(regions: Sequence[str], param: str = "regions") -> tuple[str, ...]:
    """Return regions, each once; raise ``invalid_request`` for what is none."""
    kept = tuple(dict.fromkeys(regions))
    if len(kept) > MOST_REGIONS:
        raise PilotageError(
            "invalid_request", f"There may be {MOST_REGIONS} regions at most.", param=param
        )
    for name in kept:
        if name != NOT_LOCAL:
            check_location(name, param)
    if kept == (NOT_LOCAL,):
        raise PilotageError(
            "invalid_request",
            f"{NOT_LOCAL} alone leaves no place.",
            hint=f"Name the regions that are allowed beside it, for example eu,{NOT_LOCAL}.",
            param=param,
        )
    return kept


def list_allowed(regions: Collection[str]) -> list[str]:
    """Return every location that regions allow; an empty list allows any."""
    if not regions:
        return []
    here = set() if NOT_LOCAL in regions else {LOCAL}
    return sorted({*regions, *here} - {NOT_LOCAL})


def is_within(location: str, regions: Collection[str]) -> bool:
    """Say whether regions allow a location; where nobody said it, only an empty list does."""
    return not regions or location in list_allowed(regions)
