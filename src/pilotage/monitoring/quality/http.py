"""Control-plane routes of quality: feedback as it was given, and what it adds up to."""

from datetime import datetime

from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.kit.api import ApiCall, Page, Route, View, make_page
from pilotage.kit.db import Tx
from pilotage.monitoring.drift.service import CheckEndpoint
from pilotage.monitoring.quality.rules import BEST
from pilotage.monitoring.quality.service import QualityService
from pilotage.monitoring.quality.types import (
    Estimate,
    FeedbackState,
    Grouping,
    Quality,
    Said,
)
from pilotage.monitoring.rollups.asking import read_window

_USUAL_WINDOW = "1d"


class FeedbackView(View):
    """What was said of a call; endpoint and model are "" until the call is known.

    ``has_comment`` says that there is one; ``comment`` is absent unless it was asked for.
    """

    id: str
    at: datetime
    tenant_id: str
    key_id: str
    request_id: str
    score: float | None
    label: str
    has_comment: bool
    comment: str | None
    state: FeedbackState
    endpoint: str
    version_id: str
    model: str


class EstimateView(View):
    """A share or a mean, from 0 to 1, of ``n`` opinions, and its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


class QualityView(View):
    """What the opinions on the answers of a group add up to; absent is what nobody judged."""

    group: dict[str, str]
    feedback_score: EstimateView | None
    accuracy: EstimateView | None
    hallucination_rate: EstimateView | None
    toxicity_score: EstimateView | None
    validation_pass_rate: EstimateView | None


class QualityPage(View):
    """The quality of every group in a window."""

    since: datetime
    until: datetime
    items: list[QualityView]


def quality_routes(
    quality: QualityService, identity: IdentityService, check_endpoint: CheckEndpoint
) -> list[Route]:
    """List the routes of quality; of endpoints that are gone what is known is shown."""

    async def list_feedback(
        call: ApiCall,
        endpoint: str | None = None,
        tenant: str | None = None,
        comments: bool = False,  # noqa: FBT001, FBT002 - a query parameter
        limit: int = 50,
        after: str = "",
    ) -> Page[FeedbackView]:
        """List feedback in the order in which it was given.

        With ``comments`` in plain words, which is noted in the audit log.
        """
        if comments:
            await call.require("monitoring.comments.reveal")
        async with call.write() if comments else call.read() as tx:
            tenant_id = await _find_tenant(tx, identity, tenant)
            found = await quality.list_feedback(tx, endpoint, tenant_id, after, limit + 1)
            if endpoint and not found and not after:
                await check_endpoint(tx, endpoint)
            opened = await quality.open_comments(tx, found[:limit]) if comments else {}
            return make_page(found, limit, lambda said: _show_said(said, opened.get(said.id)), "id")

    async def show_quality(
        call: ApiCall,
        endpoint: str | None = None,
        window: str = "",
        since: str = "",
        until: str = "",
        by: str = "alias",
    ) -> QualityPage:
        """Add up the feedback of a window (default: the last day) by alias, version or tenant."""
        groups = _read_groups(by)
        async with call.read() as tx:
            asked = read_window(window or ("" if since else _USUAL_WINDOW), since, until, tx.now_us)
            found = await quality.read_quality(tx, groups, asked.since_us, asked.until_us, endpoint)
            if endpoint and not found:
                await check_endpoint(tx, endpoint)
        return QualityPage.of(asked, items=[_show_quality(groups, item) for item in found])

    return [
        Route(
            method="GET",
            path="/feedback",
            permission="monitoring.feedback.read",
            handler=list_feedback,
        ),
        Route(
            method="GET",
            path="/quality",
            permission="monitoring.quality.read",
            handler=show_quality,
        ),
    ]


async def _find_tenant(tx: Tx, identity: IdentityService, tenant: str | None) -> str | None:
    return None if tenant is None else (await identity.get_tenant(tx, tenant)).id


def _read_groups(text: str) -> list[Grouping]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    try:
        return list(dict.fromkeys(map(Grouping, names)))
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"by: quality is not told apart by {text[:80]!r}.",
            hint=f"There are: {', '.join(Grouping)}.",
            param="by",
        ) from None


def _show_said(said: Said, comment: str | None) -> FeedbackView:
    return FeedbackView.of(
        said,
        request_id=said.call_id,
        score=None if said.score is None else said.score / BEST,
        endpoint=said.alias,
        has_comment=said.comment is not None,
        comment=comment,
    )


def _show_quality(groups: list[Grouping], found: Quality) -> QualityView:
    def show(estimate: Estimate | None) -> EstimateView | None:
        return None if estimate is None else EstimateView(**estimate._asdict())

    return QualityView(
        group={grouping.value: value for grouping, value in zip(groups, found.group, strict=True)},
        feedback_score=show(found.feedback_score),
        accuracy=show(found.accuracy),
        hallucination_rate=show(found.hallucination_rate),
        toxicity_score=show(found.toxicity_score),
        validation_pass_rate=show(found.validation_pass_rate),
    )
