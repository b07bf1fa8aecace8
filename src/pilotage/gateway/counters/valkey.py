"""Counters in Valkey: shared by any number of gateways; one script, run as one."""

from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

from pilotage.gateway.counters.types import Answer, Ask, Drawn, Status, Told
from pilotage.gateway.ports import StoreAwayError
from pilotage.kit.kv_valkey import ValkeyAwayError, ValkeyLink, ValkeyRefusedError, Word

PREFIX = "{pilotage}:"  # one hash slot: the script may touch all of it in a cluster
SCRIPT = Path(__file__).with_name("exchange.lua").read_text(encoding="ascii")
SCRIPT_ID = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
_STATE_KEYS = [PREFIX + name for name in ("state", "owners", "registered", "expected", "gone")]


class ValkeyStore:
    """The books in a Valkey database that no other installation uses."""

    is_shared = True

    def __init__(self, link: ValkeyLink) -> None:
        self._link = link

    async def exchange(self, ask: Ask) -> Answer:
        """Post what an owner says and return the answer; raise StoreAwayError if there is none."""
        keys, words = _write_ask(ask)
        call: list[Word] = [len(keys), *keys, *words]
        try:
            try:
                found = await self._link.call("EVALSHA", SCRIPT_ID, *call)
            except ValkeyRefusedError as refused:
                if not str(refused).startswith("NOSCRIPT"):
                    raise
                found = await self._link.call("EVAL", SCRIPT, *call)
        except (ValkeyAwayError, ValkeyRefusedError) as away:
            raise StoreAwayError(str(away)) from away
        return _read_answer(found)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


def _write_ask(ask: Ask) -> tuple[list[Word], list[Word]]:
    keys: list[Word] = [*_STATE_KEYS, f"{PREFIX}holding:{ask.owner}"]
    keys.extend(f"{PREFIX}c:{row.key}" for row in ask.rows)
    keys.extend(f"{PREFIX}c:{draw.key}" for draw in ask.draws)
    keys.extend(f"{PREFIX}c:{seed.key}" for seed in ask.seeds)
    words: list[Word] = [
        ask.owner,
        ask.life,
        ask.seq,
        ask.acked,
        ask.generation,
        ask.fresh_generation,
        int(ask.stage),
        ask.peers,
        int(ask.is_first),
        len(ask.rows),
        len(ask.draws),
        len(ask.expected),
        len(ask.gone),
        len(ask.seeds),
    ]
    for row in ask.rows:
        words.extend(row[1:])
    for draw in ask.draws:
        words.extend(draw[1:])
    words.extend(ask.expected)
    words.extend(ask.gone)
    for seed in ask.seeds:
        words.extend(seed[1:])
    return keys, words


def _read_answer(found: Sequence[Any]) -> Answer:
    status, generation = Status(found[0]), found[1]
    if len(found) == 2:
        return Answer(status, generation)
    rows, draws, peers, missing = found[2:]
    return Answer(
        status,
        generation,
        tuple(Told(given, used, held, spare, low == 1) for given, used, held, spare, low in rows),
        tuple(Drawn(*draw) for draw in draws),
        tuple(peers),
        tuple(missing),
    )
