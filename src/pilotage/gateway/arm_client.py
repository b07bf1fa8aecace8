"""Asking single arms of endpoints, in this process, for whoever replays calls."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.snapshot import TenantEntry
from pilotage.core.usage import worst_cost_nano
from pilotage.gateway.bill import bill_call
from pilotage.gateway.copies import make_copy
from pilotage.gateway.measures.hearing import Hearing
from pilotage.gateway.measures.refusal import is_refusal
from pilotage.gateway.measures.texts import read_answer
from pilotage.gateway.plane import DataPlane
from pilotage.gateway.providers.upstreams import name_wire
from pilotage.gateway.routing.residency import Allowed, allow_arms, allow_copies
from pilotage.gateway.snapshots import AliasView, SnapshotView
from pilotage.gateway.wire.openai import CHAT
from pilotage.kit.clock import Clock

_ENCODE = msgspec.json.Encoder().encode


class Told(NamedTuple):
    """What an arm answered: nothing, and why, if it failed."""

    text: str
    is_refusal: bool
    code: str
    cost_nano: int


class Question(NamedTuple):
    """A chat request to an arm of an endpoint, as its tenant might send it.

    Its ``seed`` is a wish: it is left out where the arm's wire cannot say it.
    """

    project_id: str
    tenant_id: str
    alias: str
    arm: str
    body: Mapping[str, Any]


class ArmClient:
    """Asks single arms, whatever their weight, through a data plane of this process."""

    def __init__(self, plane: DataPlane, clock: Clock) -> None:
        self._plane = plane
        self._clock = clock

    def bound(self, question: Question) -> int | None:
        """Return the most that a question can cost, in nano-USD; None if its arm may not have it.

        Raises ``not_found`` if the Snapshot has no such endpoint, arm or tenant.
        """
        view, alias, tenant = self._find(question)
        if not _allow(alias, tenant, question.arm):
            return None
        body = _write_body(question, view, alias)
        request = CHAT.decode_request(body)
        outputs = request.limit_output(alias.entry.max_output_tokens) * request.choices
        rates = alias.arms[question.arm].rates
        return worst_cost_nano(
            request.bound_input(body), outputs, rates.dearest_input, rates.dearest_output
        )

    async def ask(self, question: Question) -> Told:
        """Return what the arm answers; raise ``not_found``, ``permission_denied``."""
        view, alias, tenant = self._find(question)
        arms = _allow(alias, tenant, question.arm)
        if not arms:
            raise PilotageError("permission_denied", "The arm may not have this tenant's calls.")
        body = _write_body(question, view, alias)
        call = make_copy(
            self._clock,
            view=view,
            alias=alias,
            arms=arms,
            tenant=tenant,
            wire=CHAT,
            request=CHAT.decode_request(body),
            body=body,
            deadline_s=self._clock.monotonic_s() + self._plane.call_timeout_s,
        )
        hearing = Hearing()
        self._plane.enter(call)
        try:
            async with call:
                hearing.listen(await self._plane.copies(call))
        finally:
            self._plane.leave(call)
        is_ok = call.outcome is Outcome.OK
        text = read_answer(hearing.collect(), is_stream=False) if is_ok else ""
        declines = is_refusal(text) or call.finish_reason in ("refusal", "content_filter")
        code = "" if is_ok else call.error.code if call.error else call.outcome.value
        return Told(text, declines, code, bill_call(call).cost_nano)

    def _find(self, question: Question) -> tuple[SnapshotView, AliasView, TenantEntry]:
        view = self._plane.view
        name = question.project_id, question.alias
        alias = None if view is None else view.aliases.get(name)
        tenants = [] if view is None else view.tenants.values()
        tenant = next((one for one in tenants if one.id == question.tenant_id), None)
        if view is None or alias is None or tenant is None or question.arm not in alias.arms:
            raise PilotageError(
                "not_found",
                f"The endpoint {question.alias!r} cannot be asked for {question.arm}.",
                hint="See why: pilotage endpoints show NAME",
            )
        return view, alias, tenant


def _write_body(question: Question, view: SnapshotView, alias: AliasView) -> bytes:
    upstream_id, body = alias.arms[question.arm].upstream_id, dict(question.body)
    if any(one.id == upstream_id and name_wire(one.provider) != "openai" for one in view.upstreams):
        body.pop("seed", None)
    return _ENCODE(body)


def _allow(alias: AliasView, tenant: TenantEntry, arm: str) -> Allowed:
    return allow_copies(allow_arms(alias.entry, tenant).only([arm]), tenant)
