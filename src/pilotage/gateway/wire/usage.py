"""``GET /v1/usage``: what the caller's own limits allow, and what is left of them."""

from collections.abc import Sequence

import msgspec

from pilotage.core.money import format_usd
from pilotage.gateway.counters.types import LimitUse
from pilotage.kit.clock import rfc3339

_ENCODE = msgspec.json.Encoder().encode


def encode_uses(uses: Sequence[LimitUse]) -> bytes:
    """Return the body: a list of limits.

    Amounts are whole numbers of requests, tokens or calls at once, and decimal text of USD where
    ``measure`` is ``usd``. ``resets_at`` is null for a limit that never begins anew; where
    ``is_current`` is false, the numbers are this gateway's last knowledge.
    """
    return _ENCODE({"object": "list", "data": [_show(use) for use in uses]})


def _show(use: LimitUse) -> dict[str, object]:
    is_money = use.measure == "cost"

    def amount(value: int) -> int | str:
        return format_usd(value) if is_money else value

    return {
        "object": "limit",
        "id": use.limit_id,
        "measure": "usd" if is_money else use.measure,
        "per": use.per or None,
        "amount": amount(use.amount),
        "used": amount(use.used),
        "reserved": amount(use.reserved),
        "remaining": amount(use.remaining),
        "resets_at": rfc3339(use.ends_at_us) if use.ends_at_us else None,
        "is_current": use.is_current,
    }
