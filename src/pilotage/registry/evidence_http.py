"""Control-plane routes of evidence, comparison and lineage."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Body, Page, Route, View, make_page
from pilotage.kit.clock import parse_time
from pilotage.registry.comparison import Difference
from pilotage.registry.evidence import Comparison
from pilotage.registry.lineage import MOST_STEPS, parse_node
from pilotage.registry.metrics import Direction
from pilotage.registry.samples import MOST_SAMPLES, summarise
from pilotage.registry.service import RegistryService
from pilotage.registry.types import (
    Edge,
    Evidence,
    EvidenceDraft,
    Lineage,
    Node,
    NodeKind,
)

MOST_AT_ONCE = 100
Count = Annotated[int, Field(ge=1, le=2**53)]


class EvidenceItem(Body):
    """Something that was found out: a measurement, a judgement (``passed``), or both.

    Numbers are decimal text, or JSON numbers. ``samples`` stand in the place of ``value``, ``n``,
    ``low`` and ``high``, which are then computed; ``expires_at`` is RFC 3339.
    """

    kind: str
    subject: str = ""
    value: Decimal | None = None
    unit: str = ""
    n: Count | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    samples: list[Decimal] = Field(default_factory=list, max_length=MOST_SAMPLES)
    passed: bool | None = None
    hash: str = ""
    run_id: str = ""
    dataset_version_id: str = ""
    tool: str = ""
    note: str = ""
    expires_at: str | None = None


class EvidenceBody(Body):
    """Evidence to add to a version: all of it or, if any cannot be, none."""

    items: list[EvidenceItem] = Field(min_length=1, max_length=MOST_AT_ONCE)


class EvidenceView(View):
    """A row of evidence; numbers are decimal text, ``low`` to ``high`` the 95 % interval."""

    id: str
    project_id: str
    version_id: str
    kind: str
    subject: str
    value: str | None
    unit: str
    n: int | None
    low: str | None
    high: str | None
    passed: bool | None
    hash: str
    run_id: str
    dataset_version_id: str
    tool: str
    note: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    superseded_by: str | None


class AddedEvidence(View):
    """What was added, in the order in which it was given."""

    items: list[EvidenceView]


class DifferenceView(View):
    """A metric of two versions, that of b in the unit of a; what is missing is null."""

    verdict: str
    direction: str
    unit: str
    a: str | None
    b: str | None
    difference: str | None
    low: str | None
    high: str | None
    percent: float | None
    points: float | None
    n_a: int | None
    n_b: int | None
    is_same_data: bool | None


class ComparisonView(View):
    """Two versions side by side."""

    version_a: str
    version_b: str
    performance_diff: dict[str, DifferenceView]
    cost_diff: dict[str, DifferenceView]
    recommendation: str


class NodeView(View):
    """One thing in a lineage; ``steps`` is below 0 for what the middle came of."""

    kind: str
    id: str
    ref: str | None
    steps: int


class EdgeView(View):
    """What came of what: read as SOURCE RELATION TARGET; nodes are ``KIND:ID``."""

    source: str
    target: str
    relation: str
    at: datetime
    by: str


class LineageView(View):
    """The lineage around a node; ``is_cut`` where more lies beyond its bounds."""

    middle: str
    nodes: list[NodeView]
    edges: list[EdgeView]
    is_cut: bool


def evidence_routes(service: RegistryService) -> list[Route]:
    """List the routes of evidence, comparison and lineage."""
    return [*_comparison_routes(service), *_evidence_routes(service), *_lineage_routes(service)]


def _evidence_routes(service: RegistryService) -> list[Route]:
    async def add_evidence(
        call: ApiCall, model: str, version: str, body: EvidenceBody
    ) -> AddedEvidence:
        """Add evidence to a version: metrics, scans, evaluations, with where they come from."""
        drafts = [make_draft(item) for item in body.items]
        named = [(draft.kind, draft.subject) for draft in drafts]
        if len(set(named)) < len(named):
            raise PilotageError(
                "invalid_request",
                "Two items are of the same kind and subject.",
                hint="Add them one after the other, or under different subjects.",
                param="items",
            )
        async with call.write() as tx:
            found = await service.get_version(tx, f"{model}@{version}")
            added = [await service.evidence.report(tx, found, draft) for draft in drafts]
        return AddedEvidence(items=[_show(item) for item in added])

    async def list_evidence(  # noqa: PLR0917 - query parameters
        call: ApiCall,
        model: str,
        version: str,
        kind: str | None = None,
        history: bool = False,  # noqa: FBT001, FBT002
        limit: int = 50,
        after: str = "",
    ) -> Page[EvidenceView]:
        """List the evidence of a version, newest first; with history what was superseded too."""
        async with call.read() as tx:
            found = await service.get_version(tx, f"{model}@{version}")
            rows = await service.evidence.list(
                tx, found.id, kind, has_history=history, after=after, limit=limit + 1
            )
        return make_page(rows, limit, _show, "id")

    path = "/models/{model}/versions/{version}/evidence"
    return [
        Route(
            method="POST",
            path=path,
            permission="registry.evidence.create",
            handler=add_evidence,
            status=201,
        ),
        Route(method="GET", path=path, permission="registry.evidence.read", handler=list_evidence),
    ]


def _comparison_routes(service: RegistryService) -> list[Route]:
    async def compare_versions(
        call: ApiCall, model: str, a: str, b: str, directions: str = ""
    ) -> ComparisonView:
        """Compare two versions of a model by what was measured of them.

        ``directions`` says which way unknown metrics are better: ``score:higher,x:lower``.
        """
        given = _parse_directions(directions)
        async with call.read() as tx:
            version_a = await service.get_version(tx, f"{model}@{a}")
            version_b = await service.get_version(tx, f"{model}@{b}")
            return _show_comparison(await service.evidence.compare(tx, version_a, version_b, given))

    return [
        Route(
            method="GET",
            path="/models/{model}:compare",
            permission="registry.versions.read",
            handler=compare_versions,
        )
    ]


def _lineage_routes(service: RegistryService) -> list[Route]:
    async def get_lineage(
        call: ApiCall,
        of: str,
        direction: Literal["both", "ancestors", "descendants"] = "both",
        steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = MOST_STEPS,
    ) -> LineageView:
        """Show what something came of, and what came of it: ``NAME@VERSION`` or ``KIND:ID``."""
        async with call.read() as tx:
            kind, colon, node_id = of.partition(":")
            if not colon or kind not in set(NodeKind):
                node = Node(NodeKind.VERSION, (await service.get_version(tx, of)).id)
            elif kind == NodeKind.VERSION and "@" in node_id:
                node = Node(kind, (await service.get_version(tx, node_id)).id)
            else:
                node = parse_node(of)
            lineage = await service.lineage.get_lineage(
                tx,
                node,
                steps=steps,
                has_ancestors=direction != "descendants",
                has_descendants=direction != "ancestors",
            )
            ids = [item.id for item in lineage.depths if item.kind == NodeKind.VERSION]
            refs = {item.id: item.ref for item in await service.list_by_ids(tx, ids)}
        return _show_lineage(lineage, refs)

    return [
        Route(
            method="GET",
            path="/lineage",
            permission="registry.lineage.read",
            handler=get_lineage,
        )
    ]


def make_draft(item: EvidenceItem) -> EvidenceDraft:
    """Return what an item says; raise ``invalid_request`` for a bad time or bad samples."""
    values = {
        name: getattr(item, name)
        for name in EvidenceDraft.__dataclass_fields__
        if name != "expires_at_us"
    }
    if item.samples:
        values |= _summarise(item)
    if item.expires_at is None:
        return EvidenceDraft(**values)
    try:
        return EvidenceDraft(**values, expires_at_us=parse_time(item.expires_at))
    except ValueError as wrong:
        raise PilotageError(
            "invalid_request", f"expires_at: {wrong}.", param="expires_at"
        ) from None


def _summarise(item: EvidenceItem) -> dict[str, object]:
    if {item.value, item.n, item.low, item.high} != {None}:
        raise PilotageError(
            "invalid_request",
            "samples stand in the place of value, n, low and high.",
            hint="Leave these out: they are computed.",
            param="samples",
        )
    try:
        found = summarise(item.subject, item.samples)
    except (ValueError, OverflowError) as wrong:
        raise PilotageError("invalid_request", f"samples: {wrong}.", param="samples") from None
    return {
        "value": found.value,
        "n": found.n,
        "low": found.low,
        "high": found.high,
        "hash": item.hash or found.hash,
        "note": item.note or f"{found.statistic} of {found.n} samples",
    }


def _parse_directions(text: str) -> Mapping[str, Direction]:
    given = {}
    for item in filter(None, text.split(",")):
        name, _, direction = item.rpartition(":")
        if not name or direction not in set(Direction):
            raise PilotageError(
                "invalid_request",
                f"directions: {item[:80]!r} says no direction.",
                hint="Write NAME:higher or NAME:lower, with commas between them.",
                param="directions",
            )
        given[name] = Direction(direction)
    return given


def _show(evidence: Evidence) -> EvidenceView:
    texts = {name: _text(getattr(evidence, name)) for name in ("value", "low", "high")}
    return EvidenceView.of(evidence, **texts)


def _show_comparison(found: Comparison) -> ComparisonView:
    return ComparisonView(
        version_a=found.version_a.ref,
        version_b=found.version_b.ref,
        performance_diff={item.name: _show_difference(item) for item in found.performance},
        cost_diff={item.name: _show_difference(item) for item in found.cost},
        recommendation=found.recommendation,
    )


def _show_difference(item: Difference) -> DifferenceView:
    texts = {name: _text(getattr(item, name)) for name in ("a", "b", "difference", "low", "high")}
    return DifferenceView.of(
        item, verdict=item.verdict.value, direction=item.direction.value, **texts
    )


def _show_lineage(lineage: Lineage, refs: Mapping[str, str]) -> LineageView:
    nodes = [
        NodeView(kind=node.kind, id=node.id, ref=refs.get(node.id), steps=steps)
        for node, steps in sorted(lineage.depths.items(), key=lambda item: (item[1], item[0]))
    ]
    edges = [_show_edge(edge) for edge in lineage.edges]
    return LineageView(middle=str(lineage.middle), nodes=nodes, edges=edges, is_cut=lineage.is_cut)


def _show_edge(edge: Edge) -> EdgeView:
    return EdgeView.of(edge, source=str(edge.source), target=str(edge.target))


def _text(number: Decimal | None) -> str | None:
    return None if number is None else str(number)
