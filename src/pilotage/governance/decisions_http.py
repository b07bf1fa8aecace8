"""Control-plane routes of decision records, and of the two logs that are views of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pilotage.core.errors import PilotageError
from pilotage.governance.bundling import Bundles
from pilotage.governance.calendar_http import read_time
from pilotage.governance.decisions import Decisions
from pilotage.governance.page import write_html, write_markdown
from pilotage.governance.questions import Known, answer_all, list_people, summarise
from pilotage.governance.types import Decision, DecisionKind, Fact, FactKind
from pilotage.identity.service import IdentityService
from pilotage.kit.api import (
    ApiCall,
    Body,
    Page,
    RawCall,
    RawReply,
    RawRoute,
    RevisedView,
    Route,
    View,
    make_page,
)
from pilotage.kit.db import Tx

ONE = "/decisions/{decision}"
READ = "governance.decision.read"


class DecisionView(RevisedView):
    """The record of one change; ``rev`` counts it and its facts, ``seq`` is its place."""

    seq: int
    project_id: str
    kind: DecisionKind
    subject_id: str
    subject: str
    summary: str
    before: Any
    after: Any
    evidence: list[str]
    revisions: list[int]
    reason: str
    by: str
    at: datetime


class FactView(View):
    """Something that became known of a decision."""

    number: int
    seq: int
    kind: FactKind
    content: dict[str, Any]
    by: str
    at: datetime


class AnswerView(View):
    """One of the six questions: what facts say to it, and what none says."""

    question: str
    lines: list[str]
    missing: list[str]


class WholeDecisionView(DecisionView):
    """A record with its facts, the answers they give, and the names of the people in it."""

    facts: list[FactView]
    answers: list[AnswerView]
    names: dict[str, str]


class NoteBody(Body):
    """What a person wants remembered of a decision."""

    text: str


class DeploymentView(View):
    """One line of the deployment log."""

    seq: int
    at: datetime
    decision_id: str
    kind: DecisionKind
    subject: str
    summary: str
    by: str
    reason: str


class InterventionView(View):
    """One line of the log of manual interventions: who overruled what, and why."""

    seq: int
    at: datetime
    decision_id: str
    what: str
    subject: str
    by: str
    role: str
    reason: str
    detail: str


def decision_routes(service: Decisions, identity: IdentityService) -> list[Route]:
    """List the routes of decision records."""

    async def list_decisions(  # noqa: PLR0913, PLR0917 - the server passes them by name
        call: ApiCall,
        kind: DecisionKind | None = None,
        subject: str = "",
        by: str = "",
        since: str | None = None,
        until: str | None = None,
        limit: int = 50,
        after: int = 0,
        newest: bool = False,  # noqa: FBT001, FBT002
    ) -> Page[DecisionView]:
        """List decisions in the order in which they were made, behind ``after`` (a ``seq``).

        ``newest`` asks for the last ones instead of the first: a single page.
        """
        async with call.read() as tx:
            found = await service.list(
                tx,
                after,
                limit if newest else limit + 1,
                kinds=() if kind is None else (kind,),
                subject=subject,
                by=by,
                since_us=_find_time(since, "since"),
                until_us=_find_time(until, "until"),
                is_newest=newest,
            )
            return make_page(found, limit, _show, "seq")

    async def get_decision(call: ApiCall, decision: str) -> WholeDecisionView:
        """Show a decision with its facts and the answers they give to the six questions."""
        async with call.read() as tx:
            return _show_whole(await find_known(tx, service, identity, decision))

    async def add_note(call: ApiCall, decision: str, body: NoteBody) -> FactView:
        """Add what a person wants remembered of a decision; it stays for ever."""
        async with call.write() as tx:
            fact = await service.add_fact(tx, decision, FactKind.NOTE, {"text": body.text})
            return FactView.of(fact)

    return [
        Route(method="GET", path="/decisions", permission=READ, handler=list_decisions),
        Route(method="GET", path=ONE, permission=READ, handler=get_decision),
        Route(
            method="POST",
            path=f"{ONE}/notes",
            permission="governance.decision.annotate",
            handler=add_note,
            status=201,
        ),
        *_log_routes(service),
    ]


def decision_raw_routes(
    service: Decisions, identity: IdentityService, bundles: Bundles
) -> list[RawRoute]:
    """List the routes of what people and machines keep of a decision: its page, its bundle."""

    async def page(call: RawCall) -> RawReply:
        """Return the page of a decision: HTML, or Markdown with ``?format=markdown``."""
        async with call.read() as tx:
            known = await find_known(tx, service, identity, call.path["decision"])
        if call.query.get("format") == "markdown":
            return RawReply(
                body=write_markdown(known).encode(), media_type="text/markdown; charset=utf-8"
            )
        return RawReply(body=write_html(known).encode(), media_type="text/html; charset=utf-8")

    async def bundle(call: RawCall) -> RawReply:
        """Return the signed bundle of a decision."""
        made = await bundles.make(call.actor, call.path["decision"])
        return RawReply(body=made, media_type="application/json")

    return [
        RawRoute(method="GET", path=f"{ONE}/page", permission=READ, handler=page),
        RawRoute(method="GET", path=f"{ONE}/bundle", permission=READ, handler=bundle),
    ]


async def find_known(
    tx: Tx, service: Decisions, identity: IdentityService, decision_id: str
) -> Known:
    """Return a decision with its facts and the names of the people in them."""
    decision = await service.get(tx, decision_id)
    facts = await service.list_facts(tx, decision_id)
    names = {}
    for person in list_people(decision, facts):
        try:
            names[person] = (await identity.get_principal(tx, person)).name
        except PilotageError:  # the system itself, and people who are no longer there
            continue
    return Known(decision=decision, facts=facts, names=names)


def _log_routes(service: Decisions) -> list[Route]:
    async def deployment_log(  # noqa: PLR0917 - the server passes them by name
        call: ApiCall,
        kind: DecisionKind | None = None,
        subject: str = "",
        by: str = "",
        since: str | None = None,
        until: str | None = None,
        limit: int = 50,
        after: int = 0,
    ) -> Page[DeploymentView]:
        """List every change of traffic or of a stage in order, a line each."""
        async with call.read() as tx:
            found = await service.list(
                tx,
                after,
                limit + 1,
                kinds=() if kind is None else (kind,),
                subject=subject,
                by=by,
                since_us=_find_time(since, "since"),
                until_us=_find_time(until, "until"),
            )
            return make_page(found, limit, _show_deployment, "seq")

    async def intervention_log(
        call: ApiCall, limit: int = 50, after: int = 0
    ) -> Page[InterventionView]:
        """List freeze overrides, forced changes and rollbacks by hand, in order, with reasons."""
        async with call.read() as tx:
            found = await service.list_interventions(tx, after, limit + 1)
            return make_page([_show_intervention(*item) for item in found], limit, _same, "seq")

    return [
        Route(method="GET", path="/deployment-log", permission=READ, handler=deployment_log),
        Route(method="GET", path="/intervention-log", permission=READ, handler=intervention_log),
    ]


def _show(decision: Decision) -> DecisionView:
    return DecisionView.of(
        decision,
        summary=summarise(decision),
        evidence=list(decision.evidence),
        revisions=list(decision.revisions),
    )


def _show_whole(known: Known) -> WholeDecisionView:
    return WholeDecisionView.of(
        known.decision,
        summary=summarise(known.decision),
        evidence=list(known.decision.evidence),
        revisions=list(known.decision.revisions),
        facts=_show_facts(known.facts),
        answers=[
            AnswerView.of(item, lines=list(item.lines), missing=list(item.missing))
            for item in answer_all(known)
        ],
        names=known.names,
    )


def _show_facts(facts: Sequence[Fact]) -> list[FactView]:
    return [FactView.of(fact) for fact in facts]


def _show_deployment(decision: Decision) -> DeploymentView:
    return DeploymentView.of(decision, decision_id=decision.id, summary=summarise(decision))


def _show_intervention(decision: Decision, fact: Fact) -> InterventionView:
    said = {name: fact.content[name] for name in ("what", "by", "role", "reason", "detail")}
    return InterventionView.of(fact, decision_id=decision.id, subject=decision.subject, **said)


def _same(item: InterventionView) -> InterventionView:
    return item


def _find_time(text: str | None, param: str) -> int | None:
    return None if text is None else read_time(text, param)
