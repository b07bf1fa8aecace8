"""The control-plane route of comparisons."""

from pilotage.core.duration import parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Route, View
from pilotage.rollouts.shadows.service import ShadowService
from pilotage.rollouts.shadows.types import Comparison


class ComparisonView(View):
    """How the answers to copies compare with those to the calls; shares from 0 to 1.

    ``mark`` is the mean difference of marks (an answer that can be used has 1, another 0), within
    ``low`` and ``high``; evidence is the logarithm of an e-value. Absent is what nothing is known
    of.
    """

    endpoint: str
    rollout: str
    baseline: str
    candidate: str
    pairs: int
    exact: float | None
    similarity: float | None
    schema_kept: float | None
    mark: float | None
    low: float
    high: float
    worse: float
    not_worse: float
    baseline_ms: float | None
    candidate_ms: float | None
    baseline_nano: int
    candidate_nano: int
    baseline_letters: float | None
    candidate_letters: float | None


class ComparisonPage(View):
    """Every pair of arms whose answers were compared."""

    items: list[ComparisonView]


def comparison_routes(shadows: ShadowService) -> list[Route]:
    """List the routes of comparisons."""

    async def list_comparisons(
        call: ApiCall, endpoint: str | None = None, rollout: str | None = None, window: str = "7d"
    ) -> ComparisonPage:
        """Compare the answers to calls with those to their copies, in whole days of a window."""
        async with call.read() as tx:
            since_us = max(0, tx.now_us - _read_window(window))
            found = await shadows.read(tx, endpoint, rollout, since_us)
        return ComparisonPage(items=[_show(one) for one in found])

    return [
        Route(
            method="GET",
            path="/comparisons",
            permission="rollouts.comparison.read",
            handler=list_comparisons,
        )
    ]


def _read_window(text: str) -> int:
    try:
        return parse_duration_us(text)
    except ValueError as wrong:
        raise PilotageError(
            "invalid_request", f"window: {wrong}.", hint="Write 7d or 12h.", param="window"
        ) from None


def _show(found: Comparison) -> ComparisonView:
    key = found.key
    return ComparisonView.of(
        found,
        endpoint=key.alias,
        rollout=key.rollout,
        baseline=key.baseline,
        candidate=key.candidate,
    )
