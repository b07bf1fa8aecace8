"""Control-plane routes of approvals: who asks, who agrees, who does not."""

from datetime import datetime

from pilotage.core.duration import parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.governance.approvals import Approvals
from pilotage.governance.rules import assess
from pilotage.governance.types import Approval, ApprovalAsk, ApprovalState, Verdict
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page

ONE = "/approvals/{approval}"


class ApprovalBody(Body):
    """A request for approval.

    ``action`` is what is to be allowed, with its target; ``subject`` a name or an id;
    ``expires_in`` a duration.
    """

    action: str
    subject: str
    reason: str
    evidence: tuple[str, ...] = ()
    needed: int = 1
    role: str = "approver"
    expires_in: str = "7d"

    def to_ask(self) -> ApprovalAsk:
        """Return it as the service takes it."""
        return ApprovalAsk(
            action=self.action,
            subject=self.subject,
            reason=self.reason,
            evidence=self.evidence,
            needed=self.needed,
            role=self.role,
            ttl_us=_read_duration(self.expires_in),
        )


class VoteBody(Body):
    """A word on a request: approvers approve, reject and revoke, who asked withdraws."""

    verdict: Verdict
    reason: str


class VoteView(View):
    """Who said what of a request, in which role, when and why."""

    by: str
    role: str
    verdict: Verdict
    reason: str
    at: datetime


class ApprovalView(RevisedView):
    """A request, and what was said of it."""

    project_id: str
    action: str
    subject_id: str
    subject: str
    subject_hash: str
    reason: str
    evidence: list[str]
    needed: int
    given: int
    role: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime
    state: ApprovalState
    votes: list[VoteView]
    used_at: datetime | None
    decision_id: str


def approval_routes(service: Approvals) -> list[Route]:
    """List the routes of approvals."""

    async def request(call: ApiCall, body: ApprovalBody) -> ApprovalView:
        """Ask that others approve one action on one subject as it is now."""
        async with call.write() as tx:
            return _show(await service.request(tx, body.to_ask()), tx.now_us)

    async def list_approvals(
        call: ApiCall,
        state: ApprovalState | None = None,
        subject: str = "",
        limit: int = 50,
        after: str = "",
    ) -> Page[ApprovalView]:
        """List requests, oldest first; ``subject`` is a name or an id."""
        async with call.read() as tx:
            found = await service.list(tx, after, limit + 1, state=state, subject=subject)
            return make_page(found, limit, lambda item: _show(item, tx.now_us), "id")

    async def get_approval(call: ApiCall, approval: str) -> ApprovalView:
        """Show a request."""
        async with call.read() as tx:
            return _show(await service.get(tx, approval), tx.now_us)

    async def vote(call: ApiCall, approval: str, body: VoteBody) -> ApprovalView:
        """Approve, reject, revoke or withdraw a request."""
        async with call.write() as tx:
            return _show(await service.vote(tx, approval, body.verdict, body.reason), tx.now_us)

    return [
        Route(
            method="POST",
            path="/approvals",
            permission="governance.approval.request",
            handler=request,
            status=201,
        ),
        Route(
            method="GET",
            path="/approvals",
            permission="governance.approval.read",
            handler=list_approvals,
        ),
        Route(method="GET", path=ONE, permission="governance.approval.read", handler=get_approval),
        Route(
            method="POST",
            path=f"{ONE}/votes",
            permission="governance.approval.vote",
            handler=vote,
            status=201,
        ),
    ]


def _show(approval: Approval, now_us: int) -> ApprovalView:
    votes = [VoteView.of(vote) for vote in approval.votes]
    return ApprovalView.of(
        approval, state=assess(approval, now_us), votes=votes, evidence=list(approval.evidence)
    )


def _read_duration(text: str) -> int:
    try:
        return parse_duration_us(text)
    except ValueError as wrong:
        raise PilotageError(
            "invalid_request", f"expires_in: {wrong}.", param="expires_in"
        ) from None
