"""How calls are dealt to the arms of an alias: a coin whose every toss anybody can repeat.

The coin of a rollout's step is tossed for units: sessions, users, tenants or single calls. Frames
carry the step and the unit, so which arm a call was dealt follows from them and the weights alone,
even where the call was lost before it said so.
"""

import hashlib
from collections.abc import Mapping

SESSION, USER, TENANT = "session", "user", "tenant"  # what a unit may be, beside the call itself
_WHOLE = 1 << 64
_UNIT_LETTERS = 16


def name_unit(kind: str, tenant_id: str, *, session: str = "", user: str = "") -> str:
    """Return the unit that a call belongs to, "" where that is the call itself.

    Sessions and users are those of a tenant; what frames keep of them is a hash: the first 16
    letters of the hex SHA-256 of ``TENANT_ID|NAME``.
    """
    if kind == TENANT:
        return _shorten(f"{tenant_id}|")
    name = session if kind == SESSION else user if kind == USER else ""
    return _shorten(f"{tenant_id}|{name}") if name else ""


def draw_point(salt: str, unit: str) -> int:
    """Return the place of a unit between 0 and 2^64, the same whenever it is asked for."""
    return int.from_bytes(hashlib.sha256(f"{salt}|{unit}".encode()).digest()[:8], "big")


def deal(salt: str, unit: str, split: Mapping[str, int]) -> str:
    """Return the arm that a unit is dealt, "" if no arm has weight.

    Arms lie side by side in the order of their ids, as in a Snapshot, each as wide as its weight.
    """
    point, total, threshold = draw_point(salt, unit), sum(split.values()), 0
    for arm in sorted(split):
        threshold += split[arm]
        if point * total < threshold * _WHOLE:
            return arm
    return ""


def _shorten(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_UNIT_LETTERS]
