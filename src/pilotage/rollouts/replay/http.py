"""Control-plane routes of replays, and of the calls that are kept for them."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from pydantic import Field

from pilotage.core.duration import parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.core.money import parse_usd
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
from pilotage.kit.operations import OperationKind, Operations
from pilotage.kit.operations_http import OperationView
from pilotage.rollouts.replay.rules import MOST_SAMPLES
from pilotage.rollouts.replay.runner import ReplayRunner
from pilotage.rollouts.replay.service import ReplayAsk, ReplayService
from pilotage.rollouts.replay.types import Measure, Replay
from pilotage.rollouts.samples.service import SampleService

KIND = OperationKind("rollouts.replay", "rollouts.replay.start")


class ReplayBody(Body):
    """What to replay: the newest kept calls of an endpoint, asked of two of its deployments.

    ``since`` is how old they may be; ``measure`` what decides, ``margin`` by how much of 1 the
    candidate's marks may be lower; ``max_cost`` (USD) bounds what both cost together.
    """

    endpoint: str
    candidate: str
    baseline: str = ""
    samples: int = Field(200, ge=1, le=MOST_SAMPLES)
    since: str = "30d"
    seed: int = Field(0, ge=0, lt=1 << 31)
    measure: Measure = Measure.USABLE
    margin: Decimal = Field(Decimal("0.03"), gt=0, lt=1)
    max_cost: str = "1.00"


class ReplayView(RevisedView):
    """A replay that has ended; ``report`` is all that its hash is of, and the hash."""

    endpoint: str
    baseline_id: str
    candidate_id: str
    version_id: str
    hash: str
    evidence_id: str
    report: dict[str, Any]
    created_at: datetime
    created_by: str


class SampleCountView(View):
    """How many calls of a tenant to an endpoint are kept; nothing of what they say."""

    endpoint: str
    tenant_id: str
    samples: int
    first: datetime
    last: datetime


class SampleCounts(View):
    """What is kept of calls."""

    items: list[SampleCountView]


def replay_routes(
    replays: ReplayService, runner: ReplayRunner, samples: SampleService, operations: Operations
) -> list[Route]:
    """List the routes of replays and samples."""

    async def start_replay(call: ApiCall, body: ReplayBody) -> OperationView:
        """Replay kept calls against a deployment that needs no traffic, in the background."""
        async with call.read() as tx:
            since_us = tx.now_us - _read_age(body.since)
            prepared = await replays.prepare(
                tx,
                ReplayAsk(
                    endpoint=body.endpoint,
                    candidate=body.candidate,
                    baseline=body.baseline,
                    samples=body.samples,
                    since_us=since_us,
                    seed=body.seed,
                    measure=body.measure,
                    margin=float(body.margin),
                    cap_nano=_read_cost(body.max_cost),
                ),
            )
        actor = call.actor
        started = await operations.start(
            actor,
            KIND,
            prepared.candidate.id,
            lambda progress: runner.run(actor, prepared, progress),
        )
        return OperationView.of(started)

    async def list_replays(
        call: ApiCall, endpoint: str | None = None, limit: int = 50, after: str = ""
    ) -> Page[ReplayView]:
        """List replays, oldest first."""
        async with call.read() as tx:
            found = await replays.list(tx, endpoint, after, limit + 1)
        return make_page(found, limit, _show, "id")

    async def get_replay(call: ApiCall, replay: str) -> ReplayView:
        """Return a replay and its report."""
        async with call.read() as tx:
            return _show(await replays.get(tx, replay))

    async def count_samples(call: ApiCall, endpoint: str | None = None) -> SampleCounts:
        """Count the calls that are kept to be replayed, by endpoint and tenant."""
        async with call.read() as tx:
            found = await samples.count(tx, endpoint)
        return SampleCounts(items=[SampleCountView.of(each, endpoint=each.alias) for each in found])

    return [
        Route(
            method="POST",
            path="/replays",
            permission=KIND.permission,
            handler=start_replay,
            status=202,
        ),
        Route(
            method="GET",
            path="/replays",
            permission="rollouts.replay.read",
            handler=list_replays,
        ),
        Route(
            method="GET",
            path="/replays/{replay}",
            permission="rollouts.replay.read",
            handler=get_replay,
        ),
        Route(
            method="GET",
            path="/samples",
            permission="rollouts.sample.read",
            handler=count_samples,
        ),
    ]


def _show(replay: Replay) -> ReplayView:
    return ReplayView.of(replay, endpoint=replay.alias, report=msgspec.json.decode(replay.report))


def _read_age(text: str) -> int:
    try:
        return parse_duration_us(text)
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"since: {text[:40]!r} is no length of time.",
            hint="Write 30d, 12h or 90m.",
            param="since",
        ) from None


def _read_cost(text: str) -> int:
    try:
        return parse_usd(text)
    except ValueError as wrong:
        raise PilotageError(
            "invalid_request", f"max_cost: {wrong}.", hint="Write 0.50.", param="max_cost"
        ) from None
