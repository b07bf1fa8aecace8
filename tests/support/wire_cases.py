"""A gateway in front of one model server that is a replica and two providers: every pair of wires.

The alias ``chat`` is a local replica, ``gpt`` a provider that speaks the OpenAI wire, ``claude``
one that speaks Anthropic's. What the server answers is said by the plan in the last message.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai

from faulty_upstream import FaultyUpstream
from gateway_cases import Serving
from gateway_harness import ALIAS, CLOCK, GatewayProcess, World
from made_calls import make_arm
from pilotage.core.frames import Ended
from pilotage.core.snapshot import AliasEntry, UpstreamEntry

GPT, CLAUDE = "gpt", "claude"
MODELS = (ALIAS, GPT, CLAUDE)
CEILING = 64
TOOL_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@asynccontextmanager
async def serve_wires(path: Path) -> AsyncIterator[Serving]:
    """Start the server and the gateway in front of it."""
    world = World(path / "data")
    (path / "key").write_text("provider-key")
    async with FaultyUpstream() as upstream:
        publish(world, upstream, path / "key")
        world.point({"dep_a": upstream.port})
        settings = {"egress": {"allow": "127.0.0.1"}, "gateway": {"max_body_mb": 1}}
        async with GatewayProcess(world, settings) as gateway:
            yield Serving(world, upstream, gateway)


def publish(world: World, upstream: FaultyUpstream, key: Path) -> None:
    """Publish the three aliases."""
    providers = {GPT: "openai", CLAUDE: "anthropic"}
    aliases = [
        AliasEntry(
            project_id=world.tenant.project_id,
            name=name,
            created_at_us=CLOCK.now_us(),
            salt="salt",
            max_output_tokens=CEILING,
            arms=[make_arm(f"dep_{name}", upstream_id=f"ups_{name}", upstream_model=f"big-{name}")],
        )
        for name in providers
    ]
    upstreams = [
        UpstreamEntry(
            id=f"ups_{name}",
            project_id=world.tenant.project_id,
            name=name,
            provider=provider,
            base_url=f"{upstream.url}/v1",
            secret=f"file:{key}",
        )
        for name, provider in providers.items()
    ]
    world.publish(max_output_tokens=CEILING, more_aliases=aliases, upstreams=upstreams)


def plan(**wishes: Any) -> str:  # noqa: ANN401
    """Return a message that says what the model shall answer."""
    return json.dumps(wishes)


def say(text: str) -> list[Any]:
    """Return the messages of a user who says this."""
    return [{"role": "user", "content": text}]


def last_body(serving: Serving) -> dict[str, Any]:
    """Return the body that the model server got last."""
    body: dict[str, Any] = serving.upstream.requests[-1].body
    return body


def last_end(serving: Serving) -> Ended:
    """Return the last end on record."""
    return [frame for frame in serving.world.frames() if isinstance(frame, Ended)][-1]


def make_openai(serving: Serving, key: str = "") -> openai.AsyncOpenAI:
    """Return a client of the openai package that knows base URL and key only."""
    return openai.AsyncOpenAI(
        base_url=f"{serving.gateway.url}/v1",
        api_key=key or serving.world.secret,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    )


def make_anthropic(
    serving: Serving, key: str = "", max_retries: int = 0
) -> anthropic.AsyncAnthropic:
    """Return a client of the anthropic package that knows base URL and key only."""
    return anthropic.AsyncAnthropic(
        base_url=serving.gateway.url,
        api_key=key or serving.world.secret,
        max_retries=max_retries,
        http_client=anthropic.DefaultAsyncHttpxClient(trust_env=False),
    )
