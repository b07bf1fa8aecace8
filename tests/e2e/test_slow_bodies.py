"""A body that comes slowly: the call is of the key as it is when the last of the body is there."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway_cases import Serving, serve_world
from gateway_harness import World, chat_body
from pilotage.kit.crypto import digest_secret
from raw_client import RawClient


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serve_world(tmp_path) as serving:
        yield serving


def keep(world: World) -> None:
    """Change nothing of the key."""


def revoke(world: World) -> None:
    """Revoke the key."""
    world.revoked.append(digest_secret(world.secret))


def remove(world: World) -> None:
    """Have no such key."""
    world.keys.clear()


CHANGES: dict[Callable[[World], None], tuple[int, str]] = {
    keep: (200, ""),
    revoke: (401, "invalid_api_key"),
    remove: (401, "invalid_api_key"),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(change.__name__))
async def test_a_key_counts_as_it_is_when_the_body_is_there(
    serving: Serving, change: Callable[[World], None]
) -> None:
    world, gateway = serving.world, serving.gateway
    with RawClient(gateway) as client:
        request = client.make_post(chat_body(), expect="100-continue", connection="close")
        head, _, body = request.partition(b"\r\n\r\n")
        await client.send(head + b"\r\n\r\n")
        await client.read_until(b"100 Continue\r\n\r\n")  # sent once the key was looked at
        client.seen = b""
        await client.send(body[:20])
        change(world)
        await gateway.wait_serving(world.publish())
        await client.send(body[20:])
        answer = await client.read_all()
    status, code = CHANGES[change]
    said = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert said.get("error", {}).get("code", "") == code
    assert len(serving.upstream.requests) == (status == 200)
