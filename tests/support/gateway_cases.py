"""What tests of a gateway process share: one that serves a faulty upstream, and its raw spool."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec

from faulty_upstream import FaultyUpstream
from gateway_harness import CLOCK, GatewayProcess, World
from raw_spool import read_raw

PROGRAM = ("-m", "pilotage.runtime.gateway")


class Serving(NamedTuple):
    """A world, the upstream that is its only replica, and the gateway that serves it."""

    world: World
    upstream: FaultyUpstream
    gateway: GatewayProcess


@asynccontextmanager
async def serve_world(
    path: Path, settings: dict[str, Any] | None = None, program: Sequence[str] = PROGRAM
) -> AsyncIterator[Serving]:
    """Start a faulty upstream and a gateway in front of it."""
    world = World(path / "data")
    world.publish()
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world, settings, program=program) as gateway:
            yield Serving(world, upstream, gateway)


class RawFrame(NamedTuple):
    """What tests look at in a frame, by its place in the record and nothing else."""

    tag: str
    call_id: str
    at_us: int
    fields: list[Any]

    @property
    def outcome(self) -> str:
        """The outcome of an end."""
        return str(self.fields[8])

    @property
    def status(self) -> int:
        """The status of an end."""
        return int(self.fields[9])

    @property
    def at_s(self) -> float:
        """The time of the frame on the monotonic clock of this machine."""
        return CLOCK.monotonic_s() - (CLOCK.now_us() - self.at_us) / 1e6


def read_frames(spool: Path) -> list[RawFrame]:
    """Return the frames of a spool by their bytes alone; nothing in it may be torn."""
    records, torn = read_raw(spool)
    assert torn == {}
    assert [seq for seq, _ in records] == list(range(1, len(records) + 1))
    decoded = [msgspec.msgpack.decode(payload) for _, payload in records]
    return [RawFrame(fields[0], fields[2], fields[3], fields) for fields in decoded]


def read_ends(spool: Path) -> dict[str, list[RawFrame]]:
    """Return the ends of every call that began; each began once."""
    frames = read_frames(spool)
    begun = [frame.call_id for frame in frames if frame.tag == "begun"]
    assert len(begun) == len(set(begun))
    ends: dict[str, list[RawFrame]] = {call_id: [] for call_id in begun}
    for frame in frames:
        if frame.tag == "ended":
            ends[frame.call_id].append(frame)
    return ends


class Seen(NamedTuple):
    """What a client saw of a streamed answer."""

    text: str
    error: str
    is_done: bool


def read_stream(body: str) -> Seen:
    """Return the text, the code of the error frame and whether ``[DONE]`` came."""
    text, error, is_done = "", "", False
    for event in body.split("\n\n"):
        data = event.removeprefix("data: ")
        if data == "[DONE]":
            is_done = True
        elif data:
            frame = json.loads(data)
            error = frame["error"]["code"] if "error" in frame else error
            for choice in frame.get("choices", []):
                text += choice["delta"].get("content") or ""
    return Seen(text, error, is_done)


def code_of(response: httpx.Response) -> str:
    """Return the code of an error reply."""
    return str(response.json()["error"]["code"])
