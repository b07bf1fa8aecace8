"""Control-plane routes of the release policy."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from pilotage.endpoints.policies import MOST_APPROVALS, ReleasePolicies
from pilotage.endpoints.types import ReleasePolicy
from pilotage.kit.api import ApiCall, Body, RevisedView, Route
from pilotage.kit.clock import to_datetime
from pilotage.registry.types import Stage

PATH = "/release-policy"


class ReleasePolicyBody(Body):
    """From which stage on versions may serve, and how many others must agree to a change."""

    serve_from_stage: Literal["development", "staging", "production"] = "development"
    approvals: int = Field(0, ge=0, le=MOST_APPROVALS)


class ReleasePolicyView(RevisedView):
    """What a change of traffic needs; revision 0 is the default."""

    serve_from_stage: str
    approvals: int
    changed_at: datetime | None
    changed_by: str


def policy_routes(service: ReleasePolicies) -> list[Route]:
    """List the routes of the release policy."""

    async def get_release_policy(call: ApiCall) -> ReleasePolicyView:
        """Show what a change of traffic needs in the project."""
        async with call.read() as tx:
            return _show(await service.get(tx))

    async def replace_release_policy(call: ApiCall, body: ReleasePolicyBody) -> ReleasePolicyView:
        """Replace what a change of traffic needs; what serves already goes on."""
        async with call.write() as tx:
            policy = await service.replace(
                tx, Stage(body.serve_from_stage), body.approvals, call.expected_rev
            )
        return _show(policy)

    return [
        Route(
            method="GET",
            path=PATH,
            permission="endpoints.release_policy.read",
            handler=get_release_policy,
        ),
        Route(
            method="PUT",
            path=PATH,
            permission="endpoints.release_policy.change",
            handler=replace_release_policy,
        ),
    ]


def _show(policy: ReleasePolicy) -> ReleasePolicyView:
    return ReleasePolicyView.of(policy, changed_at=to_datetime(policy.changed_at_us or None))
