"""Control-plane routes of drift: how far answers have moved, and from which references."""

from datetime import datetime

from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
from pilotage.kit.clock import parse_time
from pilotage.monitoring.drift.rules import find_furthest
from pilotage.monitoring.drift.service import CheckEndpoint, DriftService
from pilotage.monitoring.drift.types import (
    Comparison,
    Frozen,
    Measure,
    MeasureShift,
    Reference,
    Subject,
)

READ, CHANGE = "monitoring.drift.read", "monitoring.drift.freeze"


class ReferenceBody(Body):
    """A reference to freeze: the calls of an endpoint that a model's version answered.

    ``model`` is ``NAME@VERSION`` or the version's id. ``since`` and ``until`` are times; without
    them it is all that is kept. An earlier reference of the version is replaced.
    """

    endpoint: str
    model: str
    since: str = ""
    until: str = ""


class FrozenView(View):
    """What a reference holds of a measure: of so many values, from one time to before another."""

    measure: Measure
    n: int
    since: datetime
    until: datetime
    p50: float | None
    p95: float | None
    words: dict[str, int]


class ReferenceView(RevisedView):
    """What windows are compared with. Lengths are letters, scores millionths, times us."""

    endpoint: str
    model: str
    version_id: str
    is_automatic: bool
    frozen_at: datetime
    frozen_by: str
    measures: list[FrozenView]


class ShiftView(View):
    """How far a measure has moved: ``n`` values since then against ``m`` of the reference.

    ``psi`` above ``psi_limit`` is a shift; ``calibrated`` is the same on a scale where the limit is
    0.1. ``js`` is in bits, from 0 to 1; ``ks`` is absent for words.
    """

    measure: Measure
    subject: Subject
    is_shifted: bool
    since: datetime
    n: int
    m: int
    bins: int
    psi: float
    psi_limit: float
    calibrated: float
    js: float
    ks: float | None
    ks_limit: float | None


class DriftView(View):
    """How far the answers of a version are from its reference.

    ``shift`` is the calibrated PSI of the answers' measure that moved most, ``score`` the largest
    Jensen-Shannon divergence of prompts' and answers' measures; both are absent with too few calls.
    """

    endpoint: str
    model: str
    version_id: str
    reference_id: str
    until: datetime
    shift: float | None
    score: float | None
    is_shifted: bool
    measures: list[ShiftView]


def drift_routes(drift: DriftService, check_endpoint: CheckEndpoint) -> list[Route]:
    """List the routes of drift; of endpoints that are gone what is known is shown."""

    async def show_drift(
        call: ApiCall, endpoint: str | None = None, limit: int = 50, after: str = ""
    ) -> Page[DriftView]:
        """Compare the newest calls of every version with its reference."""
        async with call.read() as tx:
            found = await drift.compare(tx, tx.now_us, endpoint)
            if endpoint and not found:
                await check_endpoint(tx, endpoint)
            behind = [item for item in found if item.reference.id > after]
            return make_page(behind[: limit + 1], limit, _show_drift, "reference_id")

    async def list_references(
        call: ApiCall, endpoint: str | None = None, limit: int = 50, after: str = ""
    ) -> Page[ReferenceView]:
        """List the references."""
        async with call.read() as tx:
            found = await drift.list_references(tx, endpoint, after, limit + 1)
            if endpoint and not found and not after:
                await check_endpoint(tx, endpoint)
            return make_page(found, limit, _show_reference, "id")

    async def show_reference(call: ApiCall, reference: str) -> ReferenceView:
        """Show a reference."""
        async with call.read() as tx:
            return _show_reference(await drift.get_reference(tx, reference))

    async def freeze(call: ApiCall, body: ReferenceBody) -> ReferenceView:
        """Freeze the calls of a span as the reference of a model's version."""
        since_us, until_us = _read_time(body.since, "since"), _read_time(body.until, "until")
        async with call.write() as tx:
            return _show_reference(
                await drift.freeze(tx, body.endpoint, body.model, since_us, until_us)
            )

    async def delete_reference(call: ApiCall, reference: str) -> None:
        """Delete a reference; another is frozen once there are enough calls."""
        async with call.write() as tx:
            await drift.delete_reference(tx, reference)

    one = "/drift-references/{reference}"
    return [
        Route(method="GET", path="/drift", permission=READ, handler=show_drift),
        Route(method="GET", path="/drift-references", permission=READ, handler=list_references),
        Route(
            method="POST",
            path="/drift-references",
            permission=CHANGE,
            handler=freeze,
            status=201,
        ),
        Route(method="GET", path=one, permission=READ, handler=show_reference),
        Route(method="DELETE", path=one, permission=CHANGE, handler=delete_reference, status=204),
    ]


def _show_reference(reference: Reference) -> ReferenceView:
    return ReferenceView.of(
        reference,
        endpoint=reference.alias,
        measures=[_show_frozen(measure, frozen) for measure, frozen in reference.measures.items()],
    )


def _show_frozen(measure: Measure, frozen: Frozen) -> FrozenView:
    numbers = frozen.held.numbers
    return FrozenView.of(
        frozen,
        measure=measure,
        n=frozen.held.count,
        p50=numbers.quantile(0.5),
        p95=numbers.quantile(0.95),
        words=frozen.held.words,
    )


def _show_drift(found: Comparison) -> DriftView:
    reference = found.reference
    furthest = find_furthest(found.shifts, (Subject.ANSWER,))
    divergences = [
        moved.shift.js for moved in found.shifts if moved.measure.subject is not Subject.SPEED
    ]
    return DriftView.of(
        found,
        endpoint=reference.alias,
        model=reference.model,
        version_id=reference.version_id,
        reference_id=reference.id,
        shift=furthest.shift.calibrated if furthest else None,
        score=max(divergences, default=None),
        is_shifted=furthest is not None and furthest.shift.is_shifted,
        measures=[_show_shift(moved) for moved in found.shifts],
    )


def _show_shift(moved: MeasureShift) -> ShiftView:
    shift = moved.shift
    return ShiftView.of(
        moved,
        **shift._asdict(),
        subject=moved.measure.subject,
        is_shifted=shift.is_shifted,
        calibrated=shift.calibrated,
    )


def _read_time(text: str, param: str) -> int | None:
    if not text:
        return None
    try:
        return parse_time(text)
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"{param}: {text[:40]!r} is not a time.",
            hint="Write 2026-01-31 or 2026-01-31T12:00:00Z.",
            param=param,
        ) from None
