"""The control-plane route of the past."""

from datetime import datetime

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.endpoints.history import as_of
from pilotage.endpoints.past import Change, PastEndpoint, PastVersion
from pilotage.kit.api import ApiCall, Route, View
from pilotage.kit.clock import parse_time


class PastApprovalView(View):
    """An approval on which a change was made."""

    id: str
    requested_by: str
    approved_by: list[str]


class ChangeView(View):
    """How something came to be as it was; ``decision_id`` is its record, if there is one."""

    seq: int
    at: datetime
    by: str
    reason: str
    decision_id: str
    approvals: list[PastApprovalView]


class PastArmView(View):
    """What took a share of the traffic."""

    deployment_id: str
    model: str
    version_id: str
    artifact_sha256: str
    upstream_model: str
    percent: float


class PastEndpointView(View):
    """An endpoint as it was; ``split`` is how its arms came about, ``routed`` its routing."""

    id: str
    name: str
    arms: list[PastArmView]
    split: ChangeView | None
    fallbacks: list[str]
    shadow: str
    routed: ChangeView | None


class PastVersionView(View):
    """A version and its stage, since ``change``."""

    id: str
    ref: str
    artifact_sha256: str
    stage: str
    change: ChangeView


class PastView(View):
    """What was in production at a moment; nothing after revision ``seq`` was looked at."""

    at: datetime
    seq: int
    endpoints: list[PastEndpointView]
    versions: list[PastVersionView]


def history_route() -> Route:
    """Return the route of the past."""

    async def show_past(
        call: ApiCall,
        at: str = "",
        everything: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    ) -> PastView:
        """Show what was in production at a moment: an RFC 3339 time, a date, or now.

        Endpoints with their arms, and every version that had ever left development by then; with
        ``everything`` those that had not, too. Answered from revisions alone.
        """
        async with call.read() as tx:
            past = await as_of(tx, _read_time(at) if at else tx.now_us, has_all=everything)
        return PastView.of(
            past,
            endpoints=[_show_endpoint(item) for item in past.endpoints],
            versions=[_show_version(item) for item in past.versions],
        )

    return Route(
        method="GET", path="/as-of", permission="endpoints.history.read", handler=show_past
    )


def _read_time(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"{text[:60]!r} is no time.",
            hint="Write it with its offset, such as 2026-06-30T18:00:00Z, or a date.",
            param="at",
        ) from None


def _show_endpoint(item: PastEndpoint) -> PastEndpointView:
    return PastEndpointView.of(
        item,
        arms=[PastArmView.of(arm, percent=arm.points * 100 / FULL_WEIGHT) for arm in item.arms],
        split=_show_change(item.split),
        routed=_show_change(item.routed),
    )


def _show_version(item: PastVersion) -> PastVersionView:
    return PastVersionView.of(item, change=_show_change(item.change))


def _show_change(change: Change | None) -> ChangeView | None:
    if change is None:
        return None
    return ChangeView.of(
        change, approvals=[PastApprovalView.of(approval) for approval in change.approvals]
    )
