"""What a store of counters that has lost its contents is filled with, for owners that cannot speak.

The control plane writes it from its ledger, gateways read it. An owner is one life of a gateway
slot's spool, as gateways name it: ``gateway-0:EPOCH``.
"""

import msgspec


class Seeds(msgspec.Struct, frozen=True):
    """Who counted, as far as anybody knows.

    ``living`` are owners that may come back and then say themselves what they used: a store waits
    for them. ``gone`` are those that cannot, and what they used, by counter.
    """

    living: list[str] = []
    gone: dict[str, dict[str, int]] = {}


def name_owner(slot: str, epoch: str) -> str:
    """Return what a life of a slot's spool is called where gateways agree on limits."""
    return f"{slot}:{epoch}"


def encode_seeds(seeds: Seeds) -> bytes:
    """Return seeds as they are written down."""
    return msgspec.json.encode(seeds)


def decode_seeds(content: bytes) -> Seeds:
    """Return what was written down; raise ValueError if it is damaged."""
    return msgspec.json.decode(content, type=Seeds)
