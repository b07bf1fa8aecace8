"""Live rollouts: a whole installation, models that behave as told, and callers that never stop.

The models are upstream servers in this process; everything else is ``pilotage up``. Times are
microseconds UTC, as in records, so that what an upstream saw can be laid beside what was decided.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from faulty_upstream import FaultyUpstream, Plan
from gateway_harness import CLOCK
from pilotage.sdk.control import ControlClient
from system import System, poll, running

ENDPOINT = "help-desk"
BASELINE, CANDIDATE = "old/steady", "new/fresh"
RATE_HZ = 60.0
VERDICT_S = 60.0
SECOND_US = 1_000_000


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """How a model behaves: its share of failures, its median delay, its spread, its words."""

    failing: float = 0.0
    delay_ms: float = 20.0
    spread: float = 0.3
    words: int = 20


@dataclass(kw_only=True)
class BehavingUpstream(FaultyUpstream):
    """A model server that fails and waits at random, the same way in every run."""

    behaviour: Behaviour
    seed: int = 1
    asked_us: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin the run of chance."""
        self._random = random.Random(self.seed)

    def plan(self, body: object) -> Plan:
        """Return what comes of a request, whatever it says."""
        del body
        self.asked_us.append(CLOCK.now_us())
        behaves = self.behaviour
        fails = self._random.random() < behaves.failing
        return Plan(
            fault="status" if fails else "none",
            delay_ms=behaves.delay_ms * math.exp(self._random.gauss(0.0, behaves.spread)),
            completion_tokens=behaves.words,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a caller was told, and by which model: status 0 where the connection broke."""

    began_us: int
    ended_us: int
    status: int
    model: str
    code: str


class Callers:
    """Calls at a steady rate, each a unit of its own unless ``session_of`` names its session."""

    def __init__(
        self,
        system: System,
        rate_hz: float = RATE_HZ,
        session_of: Callable[[int], str] = lambda _: "",
        model: str = ENDPOINT,
    ) -> None:
        self._system = system
        self._rate_hz = rate_hz
        self._session_of = session_of
        self._model = model
        self.said: list[Said] = []

    async def run(self) -> None:
        """Call until cancelled; calls that run then are waited for."""
        async with (
            httpx.AsyncClient(
                base_url=self._system.server.gateway_url,
                headers={"authorization": f"Bearer {self._system.credentials.api_key}"},
                timeout=30,
                limits=httpx.Limits(max_connections=200, max_keepalive_connections=200),
                trust_env=False,
            ) as http,
            asyncio.TaskGroup() as tasks,
        ):
            loop = asyncio.get_running_loop()
            began, number = loop.time(), 0
            try:
                while True:
                    tasks.create_task(self._call(http, number))
                    number += 1
                    await asyncio.sleep(max(0.0, began + number / self._rate_hz - loop.time()))
            except asyncio.CancelledError:
                return

    def count_failed(self) -> int:
        """Return how many calls have failed so far."""
        return sum(said.status != 200 for said in self.said)

    async def _call(self, http: httpx.AsyncClient, number: int) -> None:
        session = self._session_of(number)
        headers = {"x-pilotage-session": session} if session else {}
        began_us = CLOCK.now_us()
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": f"question {number}"}],
            "max_tokens": 64,
        }
        try:
            reply = await http.post("/v1/chat/completions", json=body, headers=headers)
        except httpx.HTTPError as broken:
            self._note(began_us, 0, "", type(broken).__name__)
            return
        code = "" if reply.is_success else str(reply.json()["error"]["code"])
        model = reply.headers.get("x-pilotage-model-version", "")
        self._note(began_us, reply.status_code, model, code)

    def _note(self, began_us: int, status: int, model: str, code: str) -> None:
        ended_us = CLOCK.now_us()
        self.said.append(
            Said(began_us=began_us, ended_us=ended_us, status=status, model=model, code=code)
        )


class Lab:
    """An endpoint with a baseline that has all the traffic and a candidate that has none."""

    def __init__(
        self,
        system: System,
        control: ControlClient,
        baseline: BehavingUpstream,
        candidate: BehavingUpstream,
    ) -> None:
        self.system = system
        self.control = control
        self.baseline = baseline
        self.candidate = candidate
        self._calling: list[asyncio.Task[None]] = []

    async def prepare(self, prices: Mapping[str, tuple[str, str]]) -> None:
        """Make the endpoint; ``prices`` are input and output, USD per million tokens, by model."""
        post = self.control.post
        for name, server in (("old", self.baseline), ("new", self.candidate)):
            address = {"provider": "openai", "base_url": f"{server.url}/v1"}
            await post("/upstreams", {"name": name, **address})
        await post("/endpoints", {"name": ENDPOINT})
        for model in (BASELINE, CANDIDATE):
            upstream, _, name = model.partition("/")
            read, written = prices.get(model, ("1", "4"))
            await post("/prices", {"subject": name, "input": read, "output": written})
            deployed = {"model": name, "upstream": upstream}
            await self.control.finish(await post(f"/endpoints/{ENDPOINT}/deployments", deployed))
        await self.control.put(f"/endpoints/{ENDPOINT}/routing", {"retries": 0})

    def call(self, **more: Any) -> Callers:  # noqa: ANN401
        """Have callers begin; they go on until the lab closes or :meth:`quiet`."""
        callers = Callers(self.system, **more)
        self._calling.append(asyncio.create_task(callers.run()))
        return callers

    async def quiet(self) -> None:
        """Have the callers stop, and wait for their last calls."""
        while self._calling:
            task = self._calling.pop()
            task.cancel()
            await task

    async def wait_answered(self, callers: Callers, count: int) -> None:
        """Wait until so many calls have ended."""

        async def look() -> int:
            return len(callers.said)

        await poll(look, lambda ended: ended >= count, VERDICT_S)

    async def start(self, **plan: Any) -> str:  # noqa: ANN401
        """Start a rollout of the candidate; return its id."""
        body = {"endpoint": ENDPOINT, "candidate": CANDIDATE, "reason": "a live test", **plan}
        return str((await self.control.post("/rollouts", body))["id"])

    async def show(self, rollout_id: str) -> dict[str, Any]:
        """Return a rollout."""
        return await self.control.get(f"/rollouts/{rollout_id}")

    async def wait_for(
        self, rollout_id: str, *states: str, patience_s: float = VERDICT_S
    ) -> dict[str, Any]:
        """Wait until a rollout is in one of some states."""
        return await poll(
            lambda: self.show(rollout_id), lambda seen: seen["state"] in states, patience_s
        )

    async def list_looks(self, rollout_id: str) -> list[dict[str, Any]]:
        """Return the looks that were kept, the first one first."""
        found = [look async for look in self.control.list(f"/rollouts/{rollout_id}/looks")]
        return sorted(found, key=lambda look: str(look["at"]))

    async def read_weight(self) -> float:
        """Return the candidate's share of the traffic, in percent, as the endpoint says it."""
        seen = await self.control.get(f"/endpoints/{ENDPOINT}")
        return float(
            next(item["percent"] for item in seen["deployments"] if item["model"] == CANDIDATE)
        )


@asynccontextmanager
async def open_lab(
    path: Path,
    *,
    baseline: Behaviour | None = None,
    candidate: Behaviour | None = None,
    prices: Mapping[str, tuple[str, str]] | None = None,
    **environment: str,
) -> AsyncIterator[Lab]:
    """Run a lab for the length of a block."""
    async with AsyncExitStack() as stack:
        first = BehavingUpstream(behaviour=baseline or Behaviour(), seed=1)
        second = BehavingUpstream(behaviour=candidate or Behaviour(), seed=2)
        await stack.enter_async_context(first)
        await stack.enter_async_context(second)
        allowed = f"127.0.0.1:{first.port}, 127.0.0.1:{second.port}"
        variables = {"PILOTAGE_EGRESS_ALLOW": allowed, **environment}
        system = await stack.enter_async_context(running(path, **variables))
        control = await stack.enter_async_context(system.control())
        lab = Lab(system, control, first, second)
        stack.push_async_callback(lab.quiet)
        await lab.prepare(prices or {})
        yield lab


def step(weight: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a step that may end after a second."""
    return {"weight": weight, "at_least": "1s", "at_most": "30m", **more}


def at_us(moment: str) -> int:
    """Return an RFC 3339 time in microseconds."""
    return round(datetime.fromisoformat(moment).timestamp() * SECOND_US)


async def check_recorded(control: ControlClient, rollout: dict[str, Any]) -> None:
    """Check that the decision record knows why a rollout began and why it stands where it does."""
    decision = await control.get(f"/decisions/{rollout['decision_id']}")
    assert decision["kind"] == "rollout"
    said = str(decision)
    assert rollout["said"] in said
    assert rollout["reason"] in said
