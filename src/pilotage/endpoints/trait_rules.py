"""What may be said of an endpoint, and which endpoints a selector finds."""

import re
from collections.abc import Mapping, Sequence

from pilotage.core.errors import PilotageError
from pilotage.core.regions import LOCAL, check_location
from pilotage.endpoints.scaling_rules import check_scaling
from pilotage.endpoints.types import Endpoint, Traits

MOST_LABELS = 64
LONGEST_VALUE = 63
LONGEST_NAME = 128
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9._/-]{0,61}[a-z0-9])?")


def check_traits(traits: Traits) -> Traits:
    """Return what is said of an endpoint; raise ``invalid_request`` for what cannot be."""
    if len(traits.display_name) > LONGEST_NAME:
        raise _refuse(f"A name to show has {LONGEST_NAME} letters at most.", "display_name")
    if len(traits.labels) > MOST_LABELS:
        raise _refuse(f"An endpoint may have {MOST_LABELS} labels.", "labels")
    for name, value in traits.labels.items():
        if not _LABEL.fullmatch(name):
            raise _refuse(f"{name[:80]!r} is no name of a label.", f"labels.{name[:80]}")
        if len(value) > LONGEST_VALUE or not value.isprintable():
            raise _refuse(
                f"A label has {LONGEST_VALUE} printable letters at most.", f"labels.{name}"
            )
    if traits.region and check_location(traits.region, "region") == LOCAL:
        raise _refuse(f"Leave it out: {LOCAL} is where nothing else is said.", "region")
    check_scaling(traits.scaling)
    if traits.machine.accelerators < 0:
        raise _refuse("There cannot be fewer than no accelerators.", "machine.accelerators")
    return traits


def check_same_place(before: Traits, after: Traits) -> None:
    """Raise ``conflict`` if an endpoint would be elsewhere, or share what it does not share."""
    for name in ("region", "is_dedicated"):
        if getattr(before, name) != getattr(after, name):
            raise PilotageError(
                "conflict",
                f"The {name} of an endpoint never changes.",
                hint="Make another endpoint and move its traffic there.",
                param=name,
            )


def read_selector(words: Sequence[str]) -> dict[str, str]:
    """Return labels by name from words such as ``team=help``; raise ``invalid_request``."""
    wanted: dict[str, str] = {}
    for word in words:
        name, is_pair, value = word.partition("=")
        if not (name and is_pair):
            raise PilotageError(
                "invalid_request",
                f"{word[:80]!r} is no label.",
                hint="Write NAME=VALUE, several with commas between them.",
                param="labels",
            )
        wanted[name] = value
    return wanted


def is_selected(endpoint: Endpoint, wanted: Mapping[str, str]) -> bool:
    """Say whether an endpoint has all of some labels."""
    labels = endpoint.traits.labels
    return all(labels.get(name) == value for name, value in wanted.items())


def _refuse(problem: str, param: str) -> PilotageError:
    hint = "Names are lower-case letters, digits, '.', '_', '/' and '-'."
    return PilotageError("invalid_request", problem, hint=hint, param=param)
