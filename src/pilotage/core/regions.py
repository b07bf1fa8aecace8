"""Where calls may be answered: the words of residency rules.

A location is what somebody calls the place where an upstream runs (``eu``, ``eu-west4``); this
installation's own replicas run :data:`LOCAL`. A region allows a location of its name and those
below it (``eu`` allows ``eu-west4``), and ``!eu-west4`` forbids them whatever else allows. People's
lists allow LOCAL unless they hold :data:`NOT_LOCAL`; an empty list allows every location. Snapshots
carry lists as :func:`list_allowed` writes them, in which nothing goes without saying.
"""

import re
from collections.abc import Sequence

from pilotage.core.errors import PilotageError

LOCAL = "local"
NOT_LOCAL = "!local"
MOST_REGIONS = 100
_NOT = "!"
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
        check_location(name.removeprefix(_NOT), param)
    if kept and all(name.startswith(_NOT) for name in kept):
        raise PilotageError(
            "invalid_request",
            f"{', '.join(kept)} only forbids.",
            hint=f"Name the regions that are allowed beside it, for example eu,{kept[0]}.",
            param=param,
        )
    return kept


def list_allowed(regions: Sequence[str]) -> list[str]:
    """Return people's regions with :data:`LOCAL` said where it went without saying."""
    if not regions:
        return []
    here = [] if NOT_LOCAL in regions else [LOCAL]
    return sorted({*regions, *here})


def is_within(location: str, allowed: Sequence[str]) -> bool:
    """Say whether regions in which nothing goes without saying allow a location.

    An empty list allows any; a location that nobody said is in no region.
    """
    if not allowed:
        return True
    allows = False
    for region in allowed:
        if region.startswith(_NOT):
            if _is_below(location, region[1:]):
                return False
        elif _is_below(location, region):
            allows = True
    return allows


def describe_outside(name: str, location: str, regions: Sequence[str]) -> str:
    """Return what is wrong with something that people's regions do not allow."""
    known = ", ".join(regions)
    if location:
        return f"{name} runs in {location}, outside the regions {known}"
    return f"nobody said where {name} runs: it may be outside the regions {known}"


def _is_below(location: str, region: str) -> bool:
    return bool(region) and (location == region or location.startswith(region + "-"))
