"""Calls to providers as the innermost step makes them: credentials renewed, errors translated."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from faulty_upstream import FaultyUpstream
from made_calls import make_alias, make_arm, make_call, make_view
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.snapshot import Routing, UpstreamEntry
from pilotage.gateway.call import Call
from pilotage.gateway.providers.ask import Ask
from pilotage.gateway.providers.table import TargetTable
from pilotage.gateway.routing.breakers import Breakers
from pilotage.gateway.steps.attempt import Attempt
from pilotage.gateway.transport.upstream import Limits
from pilotage.kit.clock import ManualClock
from pilotage.kit.egress import EgressPolicy
from pilotage.kit.gcp.tokens import FORCE_S
from token_server import TokenServer, write_service_account

ARM = make_arm("dep_up", upstream_id="ups_1", upstream_model="provider-model")


class Provider:
    """A provider on loopback, and the step that asks it."""

    def __init__(self, upstream: FaultyUpstream, **more: Any) -> None:  # noqa: ANN401
        self.upstream = upstream
        self.clock = ManualClock(time.time_ns() // 1000)
        egress = EgressPolicy("127.0.0.1", self.clock)
        breakers = Breakers(self.clock)
        self.table = TargetTable(Limits(), breakers, egress=egress, clock=self.clock)
        values: dict[str, Any] = {
            "id": "ups_1",
            "project_id": "prj_1",
            "name": "provider",
            "provider": "openai",
            "base_url": f"{upstream.url}/v1",
        }
        self.table.sync(make_view(upstreams=[UpstreamEntry(**values | more)]))
        self.ask = Attempt(Ask(self.clock), self.table, self.clock, 5.0)

    async def call(self, plan: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make a call in a task of its own; return the client's reply."""
        return await asyncio.ensure_future(self._call(plan or {}))

    async def _call(self, plan: dict[str, Any]) -> dict[str, Any]:
        call = open_call(plan)
        try:
            reply = await self.ask(call)
        finally:
            call.undo(0)
        answer: dict[str, Any] = json.loads(reply.body)
        return answer

    @property
    def shown(self) -> list[str | None]:
        return [request.authorization for request in self.upstream.requests]


def open_call(
    plan: dict[str, Any], *, stream: bool = False, first_byte_timeout_ms: int = 0
) -> Call:
    """Return a call with a plan for the upstream; needs a running task."""
    message = {"role": "user", "content": json.dumps(plan)}
    body = json.dumps({"model": "chat", "messages": [message], "stream": stream}).encode()
    routing = Routing(first_byte_timeout_ms=first_byte_timeout_ms)
    call = make_call(make_alias(ARM, routing=routing), body=body, deadline_s=1e12)
    call.arm = ARM
    call.output_limit = 16
    return call


@asynccontextmanager
async def provider(**more: Any) -> AsyncIterator[Provider]:  # noqa: ANN401
    async with FaultyUpstream() as upstream:
        made = Provider(upstream, **more)
        try:
            yield made
        finally:
            made.table.close()


async def test_a_call_goes_under_the_providers_name_and_comes_back_under_the_alias(
    tmp_path: Path,
) -> None:
    (tmp_path / "key").write_text("one")
    async with provider(secret=f"file:{tmp_path / 'key'}") as there:
        assert (await there.call())["model"] == "chat"
        assert there.upstream.requests[0].body["model"] == "provider-model"
        assert there.shown == ["Bearer one"]


async def test_a_refused_secret_that_was_replaced_is_sent_once_more(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("one")
    refusing = {"fault": "status", "status": 401, "times": 1}
    async with provider(secret=f"file:{key}") as there:
        await there.call()
        key.write_text("two")
        assert (await there.call(refusing))["model"] == "chat"
        assert there.shown == ["Bearer one", "Bearer one", "Bearer two"]


async def test_a_refused_secret_that_is_still_the_same_is_our_fault_and_not_the_clients(
    tmp_path: Path,
) -> None:
    (tmp_path / "key").write_text("one")
    async with provider(secret=f"file:{tmp_path / 'key'}") as there:
        with pytest.raises(PilotageError) as caught:
            await there.call({"fault": "status", "status": 401})
        assert (caught.value.code, caught.value.status) == ("upstream_auth", 502)
        assert len(there.shown) == 1


async def test_fifty_calls_with_a_dead_token_renew_it_once(tmp_path: Path) -> None:
    with TokenServer() as google:
        path = write_service_account(tmp_path, f"{google.url}/token")
        async with provider(provider="vertex", secret=f"file:{path}") as there:
            await there.call()
            there.clock.advance(FORCE_S)
            plans = [
                {"fault": "status", "status": 401, "times": 1, "chunks": number}
                for number in range(1, 51)
            ]
            answers = await asyncio.gather(*[there.call(plan) for plan in plans])
            assert {answer["model"] for answer in answers} == {"chat"}
            assert google.given == 2
            assert there.shown.count("Bearer token-1") == 51
            assert there.shown.count("Bearer token-2") == 50


async def test_a_provider_whose_tokens_cannot_be_had_fails_without_being_asked(
    tmp_path: Path,
) -> None:
    with TokenServer(status=403) as google:
        path = write_service_account(tmp_path, f"{google.url}/token")
        async with provider(provider="vertex", secret=f"file:{path}") as there:
            with pytest.raises(PilotageError) as caught:
                await there.call()
            assert caught.value.code == "upstream_auth"
            assert there.shown == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (302, "upstream_error"),
        (404, "upstream_error"),
        (429, "upstream_overloaded"),
        (400, "invalid_request"),
    ],
)
async def test_an_error_of_the_provider_is_translated_and_nothing_is_followed(
    status: int, code: str
) -> None:
    async with provider() as there:
        with pytest.raises(PilotageError) as caught:
            await there.call({"fault": "status", "status": status})
        assert caught.value.code == code
        assert len(there.upstream.requests) == 1


# A stream without content.

SILENT = {"fault": "stall_mid_stream", "after": 0}


async def test_a_stream_that_says_nothing_is_given_up() -> None:
    async with provider() as there:
        call = open_call(SILENT, stream=True, first_byte_timeout_ms=50)
        with pytest.raises(PilotageError) as caught:
            await there.ask(call)
        call.undo(0)
        assert (caught.value.code, caught.value.detail) == (
            "upstream_stall",
            "The model said nothing for 0.05 s.",
        )
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0  # what is awaited later is not cancelled


async def test_a_stop_is_not_taken_for_the_limit() -> None:
    async with provider() as there:
        call = open_call(SILENT, stream=True, first_byte_timeout_ms=60_000)
        asyncio.get_running_loop().call_later(0.05, call.stop, Outcome.CLIENT_GONE)
        async with call:
            await there.ask(call)
        assert call.outcome is Outcome.CLIENT_GONE
