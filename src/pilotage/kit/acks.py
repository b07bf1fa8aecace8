"""Who serves which Snapshot: each gateway slot says so in a file while it holds its spool."""

import asyncio
from pathlib import Path

import msgspec

from pilotage.kit.files import write_private
from pilotage.kit.spool_reader import is_held, list_spools

LOOK_EVERY_S = 0.005


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway process serves Snapshot ``n``."""

    pid: int
    n: int


def write_ack(run: Path, slot: str, ack: Ack) -> None:
    """Say which Snapshot a slot serves."""
    write_private(run / f"{slot}.json", msgspec.json.encode(ack), is_durable=False)


def read_ack(run: Path, slot: str) -> Ack | None:
    """Return what a slot said last."""
    try:
        return msgspec.json.decode((run / f"{slot}.json").read_bytes(), type=Ack)
    except (OSError, msgspec.DecodeError):
        return None


def list_behind(spools: Path, run: Path, n: int) -> list[str]:
    """Return the living slots that do not serve Snapshot ``n`` or a later one yet."""
    behind = []
    for folder in list_spools(spools):
        ack = read_ack(run, folder.name)
        if (ack is None or ack.n < n) and is_held(folder):
            behind.append(folder.name)
    return behind


async def wait_served(spools: Path, run: Path, n: int, timeout_s: float) -> list[str]:
    """Wait until every living slot serves Snapshot ``n``; return those that do not in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    while behind := list_behind(spools, run, n):
        if loop.time() >= end:
            return behind
        await asyncio.sleep(LOOK_EVERY_S)
    return []
