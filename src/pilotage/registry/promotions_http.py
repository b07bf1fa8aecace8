"""Control-plane routes of stages: promote, assess, and what each stage asks."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from pydantic import Field

from pilotage.kit.api import ApiCall, Body, RevisedView, Route, View
from pilotage.kit.clock import to_datetime
from pilotage.kit.db import Tx
from pilotage.registry.gates import MOST_APPROVALS, Check, GatePolicy, GateResult
from pilotage.registry.promotions import Promotion, Promotions
from pilotage.registry.stages import read_stage

ONE = "/models/{model}/versions/{version}"


class PromotionBody(Body):
    """Where a version shall go; a reason is needed to go back."""

    stage: str
    reason: str = Field("", max_length=2000)


class GateView(View):
    """What one gate says: passed, failed or not_evaluated, and what would supply its evidence."""

    name: str
    state: str
    value: str
    threshold: str
    unit: str
    evidence_id: str
    detail: str
    command: str


class PromotionView(RevisedView):
    """A version after a change of stage; ``decision`` is the record of it."""

    ref: str
    before: str
    stage: str
    decision: str
    gates: list[GateView]


class AssessmentView(View):
    """What the gates of a stage say of a version now; nothing is changed."""

    ref: str
    stage: str
    may_pass: bool
    gates: list[GateView]


class CheckBody(Body):
    """A check of a stage, with its thresholds; what is left out is not asked."""

    name: str
    subject: str = Field("", max_length=200)
    min: Decimal | None = None
    max: Decimal | None = None
    allowed: list[str] = Field(default_factory=list, max_length=100)
    tolerance_percent: Decimal = Decimal(0)
    by_interval: bool = False
    min_n: int | None = Field(default=None, ge=1, le=2**53)
    max_age_days: int | None = Field(default=None, ge=1, le=36_500)

    def to_check(self) -> Check:
        """Return it as the service takes it."""
        values = {name: getattr(self, name) for name in Check.__struct_fields__}
        return Check(**values | {"allowed": tuple(self.allowed)})


class GatePolicyBody(Body):
    """What a stage shall ask; all of it is replaced."""

    checks: list[CheckBody]
    approvals: int = Field(0, ge=0, le=MOST_APPROVALS)


class CheckView(View):
    """A check of a stage; numbers are decimal text."""

    name: str
    subject: str
    min: str | None
    max: str | None
    allowed: list[str]
    tolerance_percent: str
    by_interval: bool
    min_n: int | None
    max_age_days: int | None


class GatePolicyView(RevisedView):
    """What a stage asks; revision 0 is the default."""

    stage: str
    checks: list[CheckView]
    approvals: int
    changed_at: datetime | None
    changed_by: str


class GatePoliciesView(View):
    """What each stage asks, in the order of the stages."""

    items: list[GatePolicyView]


def promotion_routes(service: Promotions) -> list[Route]:
    """List the routes of stages and their gates."""
    return [*_stage_routes(service), *_policy_routes(service)]


def _stage_routes(service: Promotions) -> list[Route]:
    async def promote_version(
        call: ApiCall, model: str, version: str, body: PromotionBody
    ) -> PromotionView:
        """Move a version to another stage, through the gates of that stage."""
        async with call.write() as tx:
            made = await service.promote(
                _with_reason(tx, body.reason), f"{model}@{version}", read_stage(body.stage)
            )
        return _show_promotion(made)

    async def assess_version(call: ApiCall, model: str, version: str, stage: str) -> AssessmentView:
        """Say what the gates of a stage would say of a version, and change nothing."""
        async with call.read() as tx:
            found = await service.assess(tx, f"{model}@{version}", read_stage(stage))
        return AssessmentView(
            ref=found.version.ref,
            stage=found.stage,
            may_pass=found.may_pass,
            gates=_show_gates(found.results),
        )

    return [
        Route(
            method="POST",
            path=f"{ONE}:promote",
            permission="registry.versions.promote",
            handler=promote_version,
        ),
        Route(
            method="GET",
            path=f"{ONE}:assess",
            permission="registry.versions.read",
            handler=assess_version,
        ),
    ]


def _policy_routes(service: Promotions) -> list[Route]:
    async def list_gate_policies(call: ApiCall) -> GatePoliciesView:
        """List what each stage asks."""
        async with call.read() as tx:
            found = await service.list_policies(tx)
        return GatePoliciesView(items=[_show_policy(policy) for policy in found])

    async def get_gate_policy(call: ApiCall, stage: str) -> GatePolicyView:
        """Show what a stage asks."""
        async with call.read() as tx:
            return _show_policy(await service.get_policy(tx, read_stage(stage)))

    async def replace_gate_policy(
        call: ApiCall, stage: str, body: GatePolicyBody
    ) -> GatePolicyView:
        """Replace what a stage asks."""
        checks = [check.to_check() for check in body.checks]
        async with call.write() as tx:
            policy = await service.replace_policy(
                tx, read_stage(stage), checks, body.approvals, call.expected_rev
            )
        return _show_policy(policy)

    return [
        Route(
            method="GET",
            path="/gate-policies",
            permission="registry.gates.read",
            handler=list_gate_policies,
        ),
        Route(
            method="GET",
            path="/gate-policies/{stage}",
            permission="registry.gates.read",
            handler=get_gate_policy,
        ),
        Route(
            method="PUT",
            path="/gate-policies/{stage}",
            permission="registry.gates.change",
            handler=replace_gate_policy,
        ),
    ]


def _with_reason(tx: Tx, reason: str) -> Tx:
    """Return the transaction with a reason from the body, which counts before the header's."""
    return replace(tx, actor=replace(tx.actor, reason=reason)) if reason.strip() else tx


def _show_promotion(made: Promotion) -> PromotionView:
    return PromotionView(
        id=made.version.id,
        rev=made.version.rev,
        ref=made.version.ref,
        before=made.before,
        stage=made.version.stage,
        decision=made.decision_id,
        gates=_show_gates(made.results),
    )


def _show_gates(results: Iterable[GateResult]) -> list[GateView]:
    return [GateView.of(result) for result in results]


def _show_policy(policy: GatePolicy) -> GatePolicyView:
    changed_at_us = policy.changed_at_us or None
    return GatePolicyView.of(
        policy,
        checks=[_show_check(check) for check in policy.checks],
        changed_at=to_datetime(changed_at_us),
    )


def _show_check(check: Check) -> CheckView:
    return CheckView.of(
        check,
        min=None if check.min is None else str(check.min),
        max=None if check.max is None else str(check.max),
        allowed=list(check.allowed),
        tolerance_percent=str(check.tolerance_percent),
    )
