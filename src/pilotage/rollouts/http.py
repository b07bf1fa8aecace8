"""Control-plane routes of rollouts."""

from datetime import datetime
from typing import Any

from pydantic import Field

from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
from pilotage.kit.clock import to_datetime
from pilotage.kit.db import Tx
from pilotage.rollouts.advice_rules import advise_at_look
from pilotage.rollouts.plan_rules import write_plan
from pilotage.rollouts.service import RolloutService
from pilotage.rollouts.steering import Steering
from pilotage.rollouts.types import (
    Ask,
    GateLook,
    GateSpec,
    Look,
    PlanSpec,
    Rollout,
    State,
    StepSpec,
)

ONE = "/rollouts/{rollout}"


class StepBody(Body):
    """A step: the candidate's share of all traffic (``5%``), how long it stands, who must agree."""

    weight: str = ""
    at_least: str = ""
    at_most: str = ""
    approval: bool = False


class GateBody(Body):
    """A gate: what of it is left out is as usual for gates of its name."""

    margin: str = ""
    limit: str = ""
    over: str = ""
    cap: str = ""


class RolloutBody(Body):
    """A rollout to begin; ``gates`` adds to those that are usual, null leaves one out."""

    endpoint: str
    candidate: str
    strategy: str = "canary"
    steps: list[StepBody] = Field(default_factory=list, max_length=100)
    gates: dict[str, GateBody | None] | None = None
    unit: str = "session"
    ready_within: str = ""
    keep_warm: str = ""
    goal: str = ""
    daily: str = ""
    reason: str = Field("", max_length=2000)

    def to_ask(self) -> Ask:
        """Return it as the service takes it."""
        said = {name: getattr(self, name) for name in PlanSpec.__dataclass_fields__}
        said["steps"] = tuple(StepSpec(**step.model_dump()) for step in self.steps)
        if self.gates is not None:
            said["gates"] = {
                name: GateSpec(**gate.model_dump()) if gate else None
                for name, gate in self.gates.items()
            }
        return Ask(
            endpoint=self.endpoint,
            candidate=self.candidate,
            plan=PlanSpec(**said),
            reason=self.reason,
        )


class WordBody(Body):
    """Why somebody moves a rollout."""

    reason: str = Field(min_length=1, max_length=2000)


class PromotionBody(WordBody):
    """Why a rollout shall go on: to its next step, or ``to_end`` to all traffic at once.

    ``step`` is where it was seen: if it has left that step meanwhile, nothing happens.
    """

    to_end: bool = False
    step: int | None = None


class ForecastView(View):
    """What a gate of a step is expected to take, in units of both arms and in seconds.

    To pass is to show that an equal candidate is fine; to find, that one ``ratio`` times as bad is
    worse.
    """

    step: int
    gate: str
    units_to_pass: int
    pass_s: float | None
    ratio: float
    units_to_find: int
    find_s: float | None


class PreviewView(View):
    """A rollout as it would begin; approvals, where some are needed, are asked for by subject."""

    endpoint: str
    baseline: str
    candidate: str
    plan: dict[str, Any]
    forecasts: list[ForecastView]
    advice: list[str]
    approvals_needed: int
    subject: str


class GateView(View):
    """What a gate said at a look; evidence and bounds are logarithms of e-values."""

    gate: str
    candidate_units: int
    baseline_units: int
    candidate_bad: int
    baseline_bad: int
    ratio: float | None
    worse: float
    worse_bound: float
    fine: float
    fine_bound: float
    is_worse: bool
    is_fine: bool
    needed: float | None
    eta_s: float | None


class LookView(View):
    """A look at a rollout; ``mismatch`` is the evidence that units were not dealt as told.

    ``left_out`` is the share of the step's calls whose times and costs do not count, as a replica
    of either arm was cold.
    """

    id: str
    at: datetime
    step: int
    percent: float
    verdict: str
    cause: str
    decided_by: list[str]
    mismatch: float
    left_out: float
    eta_s: float | None
    gates: list[GateView]


class RolloutView(RevisedView):
    """A rollout: its plan, how far it is, why it stands there, and what a look says now.

    Once nothing is compared any more that is the last one; one that nobody keeps has no id.
    """

    project_id: str
    endpoint: str
    baseline: str
    candidate: str
    state: str
    step: int
    percent: float
    said: str
    since: datetime
    plan: dict[str, Any]
    reason: str
    created_by: str
    created_at: datetime
    ended_at: datetime | None
    decision_id: str
    advice: list[str]
    look: LookView | None


def rollout_routes(service: RolloutService, steering: Steering) -> list[Route]:
    """List the routes of rollouts."""
    return [*_reading_routes(service), *_moving_routes(service, steering)]


def _reading_routes(service: RolloutService) -> list[Route]:
    async def list_rollouts(
        call: ApiCall,
        limit: int = 50,
        after: str = "",
        endpoint: str = "",
        state: State | None = None,
    ) -> Page[RolloutView]:
        """List rollouts, newest first."""
        async with call.read() as tx:
            found = await service.list(tx, after, limit + 1, endpoint=endpoint, state=state)
            shown = [await _show(service, tx, item) for item in found]
        return make_page(shown, limit, lambda view: view, "id")

    async def get_rollout(call: ApiCall, rollout: str) -> RolloutView:
        """Show a rollout and what a look at it says."""
        async with call.read() as tx:
            return await _show(service, tx, await service.get(tx, rollout))

    async def list_looks(
        call: ApiCall, rollout: str, limit: int = 50, after: str = ""
    ) -> Page[LookView]:
        """List the looks at a rollout that were kept, newest first."""
        async with call.read() as tx:
            one = await service.get(tx, rollout)
            found = await service.list_looks(tx, one, after, limit + 1)
        return make_page(found, limit, _show_look, "id")

    read = "rollouts.rollout.read"
    return [
        Route(method="GET", path="/rollouts", permission=read, handler=list_rollouts),
        Route(method="GET", path=ONE, permission=read, handler=get_rollout),
        Route(method="GET", path=f"{ONE}/looks", permission=read, handler=list_looks),
    ]


def _moving_routes(service: RolloutService, steering: Steering) -> list[Route]:
    async def start_rollout(call: ApiCall, body: RolloutBody) -> RolloutView:
        """Begin a rollout: the candidate takes no traffic before it is ready."""
        ask = body.to_ask()
        async with call.read() as tx:  # the past is added up here, and keeps no writer waiting
            await service.preview(tx, ask)
        async with call.write() as tx:
            started = await service.start(tx, ask)
        return await _show_moved(service, call, started)

    async def plan_rollout(call: ApiCall, body: RolloutBody) -> PreviewView:
        """Show what a rollout would be, and what it would take; nothing begins."""
        async with call.read() as tx:
            preview = await service.preview(tx, body.to_ask())
        return PreviewView.of(
            preview,
            plan=write_plan(preview.plan),
            forecasts=[ForecastView.of(item) for item in preview.forecasts],
            advice=list(preview.advice),
            approvals_needed=preview.needed,
        )

    async def promote_rollout(call: ApiCall, rollout: str, body: PromotionBody) -> RolloutView:
        """Go on to the next step, or to the end."""
        async with call.write() as tx:
            moved = await steering.promote(
                tx, rollout, body.reason, to_end=body.to_end, from_step=body.step
            )
        return await _show_moved(service, call, moved)

    async def hold_rollout(call: ApiCall, rollout: str, body: WordBody) -> RolloutView:
        """Leave the weights where they are until somebody goes on."""
        async with call.write() as tx:
            moved = await steering.hold(tx, rollout, body.reason)
        return await _show_moved(service, call, moved)

    async def resume_rollout(call: ApiCall, rollout: str, body: WordBody) -> RolloutView:
        """Let the gates of a held rollout decide again."""
        async with call.write() as tx:
            moved = await steering.resume(tx, rollout, body.reason)
        return await _show_moved(service, call, moved)

    async def roll_back_rollout(call: ApiCall, rollout: str, body: WordBody) -> RolloutView:
        """Give all traffic back to the baseline."""
        async with call.write() as tx:
            moved = await steering.roll_back(tx, rollout, body.reason)
        return await _show_moved(service, call, moved)

    verbs = {
        "promote": promote_rollout,
        "hold": hold_rollout,
        "resume": resume_rollout,
        "rollback": roll_back_rollout,
    }
    return [
        Route(
            method="POST",
            path="/rollouts",
            permission="rollouts.rollout.start",
            handler=start_rollout,
            status=201,
        ),
        Route(
            method="POST",
            path="/rollouts:plan",
            permission="rollouts.rollout.plan",
            handler=plan_rollout,
        ),
        *(
            Route(
                method="POST",
                path=f"{ONE}:{verb}",
                permission=f"rollouts.rollout.{verb}",
                handler=handler,
            )
            for verb, handler in verbs.items()
        ),
    ]


async def _show_moved(service: RolloutService, call: ApiCall, rollout: Rollout) -> RolloutView:
    """Show a rollout that was just written: judging it keeps no other writer waiting."""
    async with call.read() as tx:
        return await _show(service, tx, rollout)


async def _show(service: RolloutService, tx: Tx, rollout: Rollout) -> RolloutView:
    look = await service.look(tx, rollout)
    return RolloutView.of(
        rollout,
        state=rollout.progress.state.value,
        step=rollout.progress.step,
        percent=rollout.weight / 100,
        since=to_datetime(rollout.progress.since_us),
        plan=write_plan(rollout.plan),
        advice=list(advise_at_look(rollout.plan, look.judged)) if look else [],
        look=_show_look(look) if look else None,
    )


def _show_look(look: Look) -> LookView:
    return LookView.of(
        look,
        percent=look.weight / 100,
        verdict=look.judged.verdict.value,
        cause=look.judged.cause.value,
        decided_by=list(look.judged.gates),
        mismatch=look.judged.mismatch,
        left_out=look.judged.left_out,
        eta_s=look.judged.eta_s,
        gates=[_show_gate(gate) for gate in look.judged.looks],
    )


def _show_gate(look: GateLook) -> GateView:
    return GateView.of(look)
