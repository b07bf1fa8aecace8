"""Which adapter a replica puts on its base model, said in the body of each call.

llama.cpp loads its adapters at the start and numbers them as they came. Which one a call gets is
its member ``lora``; three things were measured of it (xllamacpp 2026.10.11549):

- A number that it does not know is ignored and the base model answers, so it is refused here.
- Adapters that a call does not name have no part in it, but a call without the member, or with an
  empty list, takes over the cached beginning of its prompt as an adapter left it, and the answer is
  neither's. A call of the base model therefore says that the first adapter counts nothing.
- Scales set for all calls (``POST /lora-adapters``) have the same flaw, and are never used.
"""

from collections.abc import Sequence

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import ArmEntry

FIELD = "lora"
_ENCODE = msgspec.json.Encoder().encode


def add_adapter(body: bytes, adapters: Sequence[str], arm: ArmEntry) -> bytes:
    """Return a request's body with the adapter that an arm's calls get; raise ``no_replica``.

    It comes last, as engines take the last of several members of one name: clients choose none.
    """
    chosen = choose_adapter(adapters, arm.adapter)
    if chosen is None:
        return body
    return b'%b,"%b":%b}' % (body[: body.rindex(b"}")], FIELD.encode(), _ENCODE(chosen))


def choose_adapter(adapters: Sequence[str], name: str) -> list[dict[str, float]] | None:
    """Return the member ``lora`` of a call; None where the replica has no adapters.

    ``adapters`` are the replica's, in the order of their numbers; ``name`` is the arm's, "" for the
    base model. Raises ``no_replica`` where the replica does not have it.
    """
    if not name:
        return [{"id": 0, "scale": 0.0}] if adapters else None
    try:
        return [{"id": adapters.index(name), "scale": 1.0}]
    except ValueError:
        raise PilotageError("no_replica", retry_after_s=1.0) from None
