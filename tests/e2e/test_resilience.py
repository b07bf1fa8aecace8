"""A real gateway before models that fail: who answers instead, and what is left on record."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from msgspec.structs import replace

from faulty_upstream import FaultyUpstream
from gateway_cases import code_of, read_stream
from gateway_harness import CLOCK, SLOT, GatewayProcess, World, chat_body, make_http, until
from made_calls import make_arm
from pilotage.core.frames import Begun, Ended, Flag, Outcome
from pilotage.core.snapshot import FULL_WEIGHT, Routing, Shadow
from pilotage.gateway.demand import DemandFolder
from pilotage.gateway.routing.breakers import FAILURES_IN_ROW
from pilotage.gateway.routing.retry_budget import EARNED_BY_SECOND, MOST_SAVED, PRICE
from pilotage.gateway.targets import ReplicaTarget, Targets, TargetsFile

SETTINGS = {
    "gateway": {"call_timeout": "5s", "stall_timeout": "300ms", "drain_timeout": "30s"},
}
FIVE = "tok0 tok1 tok2 tok3 tok4 "


class Two(NamedTuple):
    """A gateway, and the models behind its alias's two arms; the second takes no traffic itself."""

    world: World
    gateway: GatewayProcess
    http: httpx.AsyncClient
    first: FaultyUpstream
    second: FaultyUpstream

    async def ask(self, plan: dict[str, Any] | str = "hello", **more: Any) -> httpx.Response:  # noqa: ANN401
        """Make a call."""
        headers = more.pop("headers", {})
        body = chat_body(plan, **more)
        return await self.http.post("/v1/chat/completions", json=body, headers=headers)

    async def read_ends(self) -> list[Ended]:
        """Wait until every call that began has ended, once; return the ends in order."""

        def is_settled() -> bool:
            ends = self.world.ends_by_call()
            return bool(ends) and all(len(each) == 1 for each in ends.values())

        await until(is_settled, "one end of every call")
        return [frame for frame in self.world.frames() if isinstance(frame, Ended)]

    async def check_nothing_left(self) -> None:
        """Stop; a drain with a call left would take 30 s, and each call has one end."""
        began_s = CLOCK.monotonic_s()
        assert await self.gateway.stop() == 0
        assert CLOCK.monotonic_s() - began_s < 10
        for upstream in (self.first, self.second):
            await until(lambda one=upstream: one.open_connections == 0, "no connection")  # type: ignore[misc]
        assert all(len(ends) == 1 for ends in self.world.ends_by_call().values())
        assert '"level":"error"' not in self.gateway.log()


@asynccontextmanager
async def serve_two(path: Path, **more: Any) -> AsyncIterator[Two]:  # noqa: ANN401
    """Serve an alias whose second arm is the fallback of the first, unless ``routing`` differs."""
    world = World(path / "data")
    if regions := more.pop("regions", None):
        world.tenant = replace(world.tenant, regions=regions)
    second_arm = make_arm("dep_b", 0, **more.pop("second_arm", {}))
    values: dict[str, Any] = {"fallbacks": ["dep_b"], "retries": 0}
    routing = Routing(**values | more)
    world.publish(arms=[make_arm("dep_a"), second_arm], routing=routing)
    async with FaultyUpstream() as first, FaultyUpstream() as second:
        world.point({"dep_a": first.port, "dep_b": second.port})
        async with GatewayProcess(world, SETTINGS) as gateway, make_http(gateway) as http:
            yield Two(world, gateway, http, first, second)


async def test_a_dead_replica_is_replaced_by_another_arm(tmp_path: Path) -> None:
    async with serve_two(tmp_path) as two:
        with socket.socket() as closed:  # bound and not listening: every connection is refused
            closed.bind(("127.0.0.1", 0))
            two.world.point({"dep_a": closed.getsockname()[1], "dep_b": two.second.port})
            while not two.second.requests:  # the gateway may not have heard of the change
                answer = await two.ask()
                assert answer.status_code == 200
        assert answer.headers["x-pilotage-arm"] == "dep_b"
        end = (await two.read_ends())[-1]
        assert (end.arm, end.outcome, end.flags) == ("dep_b", Outcome.OK, [Flag.FELL_BACK])
        assert end.usage.output == 5
        await two.check_nothing_left()


async def test_an_arm_elsewhere_is_never_the_fallback_of_a_call_that_must_stay(
    tmp_path: Path,
) -> None:
    async with serve_two(
        tmp_path,
        regions=["eu", "local"],
        second_arm={"location": "us-east1"},
        shadow=Shadow(arm="dep_b", share=FULL_WEIGHT, daily_nano=10**12),
    ) as two:
        two.first.defaults = {"fault": "status", "status": 500}
        refused = await two.ask()
        assert (refused.status_code, code_of(refused)) == (502, "upstream_error")
        two.first.defaults = {}
        assert (await two.ask()).status_code == 200
        assert two.second.requests == []
        await two.check_nothing_left()


BEFORE_CONTENT: list[dict[str, Any]] = [
    {"fault": "status", "status": 500},
    {"fault": "status", "status": 429},
    {"fault": "status", "status": 402},
    {"fault": "refuse"},
    {"fault": "cut_before_headers"},
    {"fault": "hang_before_headers"},
    {"fault": "cut_mid_stream", "after": 0},
    {"fault": "stall_mid_stream", "after": 0},
    {"fault": "error_in_stream", "after": 0},
    {"fault": "garbage_chunk", "after": 0},
    {"fault": "garbage_head"},
    {"fault": "status", "status": 429, "retry_after": 3},  # the last: it is left alone after that
]


@pytest.mark.parametrize("is_stream", [True, False])
async def test_whatever_fails_before_the_first_content_is_answered_by_the_fallback(
    tmp_path: Path, is_stream: bool
) -> None:
    async with serve_two(tmp_path, first_byte_timeout_ms=400) as two:
        for plan in BEFORE_CONTENT:
            if not is_stream and plan["fault"] in ("error_in_stream", "garbage_chunk"):
                continue  # a stream to who asked for none: of these no plain form is known
            two.first.defaults = {}  # an answer now and then keeps the breaker closed
            assert (await two.ask()).headers["x-pilotage-arm"] == "dep_a"
            two.first.defaults, asked = plan, len(two.first.requests)
            answer = await two.ask(stream=is_stream)
            assert answer.status_code == 200, plan
            assert len(two.first.requests) > asked, plan
            if is_stream:
                shown = read_stream(answer.text)
                assert (shown.text, shown.error, shown.is_done) == (FIVE, "", True), plan
            else:
                assert answer.json()["choices"][0]["message"]["content"] == FIVE
            end = (await two.read_ends())[-1]
            assert (end.arm, end.outcome) == ("dep_b", Outcome.OK), plan
            assert Flag.FELL_BACK in end.flags
        await two.check_nothing_left()


@pytest.mark.parametrize("fault", ["cut_mid_stream", "stall_mid_stream", "error_in_stream"])
async def test_after_the_first_content_nobody_else_answers(tmp_path: Path, fault: str) -> None:
    async with serve_two(tmp_path) as two:
        two.first.defaults = {"fault": fault, "delay_ms": 20}
        shown = read_stream((await two.ask(stream=True)).text)
        assert shown.text.startswith("tok0 ")
        assert (shown.error != "", shown.is_done) == (True, False)
        assert two.second.requests == []
        [end] = await two.read_ends()
        assert (end.arm, end.flags) == ("dep_a", [])
        await two.check_nothing_left()


async def test_a_fault_of_the_request_is_told_and_nobody_else_asked(tmp_path: Path) -> None:
    async with serve_two(tmp_path) as two:
        body = {"error": {"message": "'n' is wrong", "type": "invalid_request_error", "param": "n"}}
        refused = await two.ask({"fault": "status", "status": 400, "body": body})
        assert (refused.status_code, code_of(refused)) == (400, "invalid_request")
        assert two.second.requests == []
        await two.check_nothing_left()


async def test_if_all_fail_the_client_hears_so(tmp_path: Path) -> None:
    async with serve_two(tmp_path) as two:
        refused = await two.ask({"fault": "status", "status": 500})
        assert (refused.status_code, code_of(refused)) == (502, "upstream_error")
        assert "2 targets were tried" in refused.json()["error"]["message"]
        [end] = await two.read_ends()
        assert (end.outcome, end.attempts, end.cost_nano) == (Outcome.UPSTREAM_ERROR, 2, 0)
        await two.check_nothing_left()


async def test_a_target_that_asks_for_rest_is_left_alone_and_one_that_does_not_is_not(
    tmp_path: Path,
) -> None:
    async with serve_two(tmp_path) as two:
        two.first.defaults = {"fault": "status", "status": 429}
        for _ in range(3):
            assert (await two.ask()).headers["x-pilotage-arm"] == "dep_b"
        assert len(two.first.requests) == 3
        two.first.defaults = {"fault": "status", "status": 429, "retry_after": 20}
        for _ in range(3):
            assert (await two.ask()).headers["x-pilotage-arm"] == "dep_b"
        assert len(two.first.requests) == 4
        assert two.gateway.log().count("breaker of dep_a.0: held") == 1
        await two.check_nothing_left()


async def test_a_busy_target_that_is_alone_gets_the_rest_it_asks_for(tmp_path: Path) -> None:
    async with serve_two(tmp_path, fallbacks=[], retries=1) as two:
        began_s = CLOCK.monotonic_s()
        plan = {"fault": "status", "status": 429, "retry_after": 1, "times": 1}
        assert (await two.ask(plan)).status_code == 200
        assert CLOCK.monotonic_s() - began_s >= 1.0
        [end] = await two.read_ends()
        assert (end.attempts, end.flags) == (2, [Flag.RETRIED])
        await two.check_nothing_left()


async def test_a_breaker_opens_and_closes_again(tmp_path: Path) -> None:
    async with serve_two(tmp_path, fallbacks=[]) as two:
        two.first.defaults = {"fault": "status", "status": 500}
        codes = [code_of(await two.ask()) for _ in range(FAILURES_IN_ROW + 3)]
        assert codes == ["upstream_error"] * FAILURES_IN_ROW + ["breaker_open"] * 3
        refused = await two.ask()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert len(two.first.requests) == FAILURES_IN_ROW
        two.first.defaults = {}
        answers: list[int] = []
        while not answers or answers[-1] != 200:
            answers.append((await two.ask()).status_code)
        assert set(answers[:-1]) <= {503}
        assert len(two.first.requests) == FAILURES_IN_ROW + 1
        log = two.gateway.log()
        changes = [
            log.count(f"breaker of dep_a.0: {state}") for state in ("open", "half", "closed")
        ]
        assert changes == [1, 1, 1]
        await two.check_nothing_left()


async def test_a_replica_that_dies_takes_no_other_with_it(tmp_path: Path) -> None:
    async with serve_two(tmp_path, fallbacks=[], retries=1) as two:
        two.first.defaults = {"fault": "hang_before_headers"}
        targets = TargetsFile(two.world.folder.targets)
        demand = DemandFolder(two.world.folder.run)
        first, second = (
            ReplicaTarget(
                id=f"dep_a.{number}",
                deployment_id="dep_a",
                host="127.0.0.1",
                port=upstream.port,
                key="upstream-key",
            )
            for number, upstream in enumerate((two.first, two.second))
        )

        def goes_by(n: int) -> bool:
            said = demand.read(CLOCK.now_us()).get(SLOT)
            return said is not None and said.targets_n == n

        targets.write(Targets(n=1, replicas=[first]))
        await until(lambda: goes_by(1), "the first replica")
        calls = [asyncio.create_task(two.ask(f"{n}")) for n in range(FAILURES_IN_ROW + 1)]
        await until(lambda: len(two.first.requests) == len(calls), "calls at it")
        targets.write(Targets(n=2, replicas=[first, second]))
        await until(lambda: goes_by(2), "the second one")
        two.first.refuses = True
        two.first.close_idle()
        answers = await asyncio.gather(*calls)
        answers += [await two.ask(f"more {n}") for n in range(10)]
        assert [answer.status_code for answer in answers] == [200] * len(answers)
        assert len(two.second.requests) == len(answers)
        await two.check_nothing_left()


async def test_retries_stay_a_share_of_the_calls(tmp_path: Path) -> None:
    async with serve_two(tmp_path, fallbacks=[], retries=1) as two:
        began_s = CLOCK.monotonic_s()
        for n in range(40):
            plan = {"fault": "status", "status": 500, "times": 1, "chunks": 1, "delay_ms": n / 1e3}
            await two.ask(plan)
            for _ in range(2):  # so that the breaker stays closed
                assert (await two.ask()).status_code == 200
        took_s = CLOCK.monotonic_s() - began_s
        ends = await two.read_ends()
        retried = [end for end in ends if Flag.RETRIED in end.flags]
        failed = [end for end in ends if end.outcome is Outcome.UPSTREAM_ERROR]
        assert all(end.outcome is Outcome.OK for end in retried)
        assert len(retried) + len(failed) == 40
        earned = MOST_SAVED + 120 + took_s * EARNED_BY_SECOND
        assert MOST_SAVED / PRICE <= len(retried) <= earned / PRICE
        await two.check_nothing_left()


async def test_a_stalled_shadow_delays_nobody(tmp_path: Path) -> None:
    shadow = Shadow(arm="dep_b", share=FULL_WEIGHT, concurrency=4, daily_nano=10**12)
    async with serve_two(tmp_path, fallbacks=[], shadow=shadow) as two:
        two.second.defaults = {"fault": "hang_before_headers"}
        for n in range(20):
            answer = await two.ask(stream=n % 2 == 0)
            assert (answer.status_code, answer.headers["x-pilotage-arm"]) == (200, "dep_a")
        await until(lambda: len(two.second.requests) == 4, "as many copies as may run")
        began_s = CLOCK.monotonic_s()
        assert await two.gateway.stop() == 0
        assert CLOCK.monotonic_s() - began_s < 5  # the copies would have taken 5 s, the drain 30
        ends = await two.read_ends()
        copies = [end for end in ends if end.shadow_of]
        calls = {end.call_id: end for end in ends if not end.shadow_of}
        assert (len(calls), len(copies)) == (20, 4)
        assert {end.outcome for end in calls.values()} == {Outcome.OK}
        for copy in copies:
            assert copy.shadow_of in calls
            assert (copy.tenant_id, copy.key_id, copy.arm) == ("shadow", "", "dep_b")
            assert (copy.outcome, copy.flags) == (Outcome.DRAINING, [Flag.SHADOW])
        begun = [frame for frame in two.world.frames() if isinstance(frame, Begun)]
        assert len(begun) == 24


async def test_a_shadows_answer_is_read_and_costs_its_tenant_nothing(tmp_path: Path) -> None:
    shadow = Shadow(arm="dep_b", share=FULL_WEIGHT, daily_nano=10**12)
    async with serve_two(tmp_path, fallbacks=[], shadow=shadow) as two:
        assert (await two.ask(stream=True)).status_code == 200
        await until(lambda: len(two.world.ends_by_call()) == 2, "the copy")
        ends = await two.read_ends()
        [copy] = [end for end in ends if end.shadow_of]
        assert (copy.outcome, copy.usage.output, copy.cost_nano > 0) == (Outcome.OK, 5, True)
        own = [end for end in ends if end.tenant_id == two.world.tenant.id]
        assert len(own) == 1
        assert two.second.requests[0].finished_s is not None
        await two.check_nothing_left()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_repeated_request_is_answered_once(tmp_path: Path, is_stream: bool) -> None:
    async with serve_two(tmp_path) as two:
        key = {"idempotency-key": "order-4711"}
        first = await two.ask(stream=is_stream, headers=key)
        again = await two.ask(stream=is_stream, headers=key)
        assert (first.content, first.status_code) == (again.content, again.status_code)
        assert read_stream(again.text).is_done if is_stream else json.loads(again.content)
        assert "x-pilotage-idempotent-replay" not in first.headers
        assert again.headers["x-pilotage-idempotent-replay"] == "true"
        assert first.headers["x-request-id"] != again.headers["x-request-id"]
        assert len(two.first.requests) == 1
        other = await two.ask("good bye", stream=is_stream, headers=key)
        assert (other.status_code, code_of(other)) == (422, "idempotency_mismatch")
        ends = await two.read_ends()
        assert [(end.attempts, end.cost_nano > 0) for end in ends] == [
            (1, True),
            (0, False),
            (0, False),
        ]
        await two.check_nothing_left()


async def test_a_request_that_is_being_answered_is_not_begun_again(tmp_path: Path) -> None:
    async with serve_two(tmp_path) as two:
        key = {"idempotency-key": "order-4711"}
        plan = {"chunks": 100, "delay_ms": 20}
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(two.ask(plan, stream=True, headers=key))
            await until(lambda: len(two.first.requests) == 1, "the first request")
            refused = await two.ask(plan, stream=True, headers=key)
            assert (refused.status_code, code_of(refused)) == (409, "conflict")
            assert refused.headers["retry-after"] == "1"
        again = await two.ask(plan, stream=True, headers=key)
        assert again.content == first.result().content
        await two.check_nothing_left()
