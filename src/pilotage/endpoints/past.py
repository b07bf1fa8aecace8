"""What was in production at a moment, folded from revisions alone. Pure.

Each revision of an event holds what that event decides, so the last one of each event of each
object is enough: an endpoint's arms are its last split, a version's stage its last promotion.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pilotage.core.snapshot import Routing
from pilotage.endpoints.types import PLAIN_ROUTING, Deployment
from pilotage.kit.outbox import Revision
from pilotage.registry.types import Stage

ENDPOINT_EVENTS = tuple(
    f"endpoints.{what}"
    for what in ("endpoint.created", "endpoint.split", "endpoint.routed", "endpoint.deleted")
)
DEPLOYMENT_EVENTS = ("endpoints.deployment.created", "endpoints.deployment.deleted")
VERSION_CREATED = "registry.version.created"
VERSION_EVENTS = ("registry.version.promoted", "registry.version.deleted")
DECISION_EVENT, FACT_EVENT = "governance.decision.recorded", "governance.fact.added"


@dataclass(frozen=True, slots=True, kw_only=True)
class PastApproval:
    """An approval on which a change was made: who asked, and who agreed."""

    id: str
    requested_by: str
    approved_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How something came to be as it was: when, by whom, why, and the record of it.

    ``decision_id`` is empty for what no record was made of. ``seq`` is the revision.
    """

    seq: int
    at_us: int
    by: str
    reason: str
    decision_id: str = ""
    approvals: tuple[PastApproval, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PastArm:
    """A deployment that took a share of the traffic, in basis points."""

    deployment_id: str
    model: str
    version_id: str
    artifact_sha256: str
    upstream_model: str
    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEndpoint:
    """An endpoint as it was: its arms and since when, its routing and since when.

    ``fallbacks`` and ``shadow`` name models; ``split`` and ``routed`` are None before the first.
    """

    id: str
    name: str
    arms: tuple[PastArm, ...]
    split: Change | None
    fallbacks: tuple[str, ...]
    shadow: str
    routed: Change | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastVersion:
    """A version and the stage in which it was, since ``change``."""

    id: str
    ref: str
    artifact_sha256: str
    stage: Stage
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What there was at a moment; nothing after revision ``seq`` was looked at."""

    at_us: int
    seq: int
    endpoints: tuple[PastEndpoint, ...]
    versions: tuple[PastVersion, ...]


class _Last:
    """The last revision of each event, by object."""

    def __init__(self, revisions: Iterable[Revision]) -> None:
        self._by_event: dict[str, dict[str, Revision]] = {}
        for revision in revisions:
            self._by_event.setdefault(revision.event, {})[revision.object_id] = revision

    def of(self, event: str) -> Mapping[str, Revision]:
        return self._by_event.get(event, {})

    def living(self, slice_noun: str) -> Iterable[tuple[str, Revision]]:
        """Yield the objects that were created and not deleted."""
        gone = self.of(f"{slice_noun}.deleted")
        created = self.of(f"{slice_noun}.created").items()
        return ((key, item) for key, item in created if key not in gone)


class Changes:
    """What is known of changes beside their revisions: their decisions, and approvals of these."""

    def __init__(self, decisions: Iterable[Revision], facts: Iterable[Revision]) -> None:
        self._decision_of: dict[int, str] = {}
        for decision in decisions:
            for seq in _read(decision)["revisions"]:
                self._decision_of[seq] = decision.object_id
        self._approvals_of: dict[str, list[PastApproval]] = {}
        for fact in facts:
            said = _read(fact)
            if said["kind"] == "approval":
                approvals = self._approvals_of.setdefault(said["decision_id"], [])
                approvals.append(_approval(said["content"]))

    def describe(self, revision: Revision) -> Change:
        """Return how a revision came about."""
        decision_id = self._decision_of.get(revision.seq, "")
        return Change(
            seq=revision.seq,
            at_us=revision.at_us,
            by=revision.actor,
            reason=revision.reason,
            decision_id=decision_id,
            approvals=tuple(self._approvals_of.get(decision_id, ())),
        )


def fold_endpoints(
    endpoints: Sequence[Revision], deployments: Sequence[Revision], changes: Changes
) -> tuple[PastEndpoint, ...]:
    """Return the endpoints that there were, by name."""
    last, placed = _Last(endpoints), _Last(deployments).of(DEPLOYMENT_EVENTS[0])
    there = {key: msgspec.json.decode(item.after, type=Deployment) for key, item in placed.items()}
    folded = []
    for key, created in last.living("endpoints.endpoint"):
        split = last.of("endpoints.endpoint.split").get(key)
        routed = last.of("endpoints.endpoint.routed").get(key)
        routing = _read_routing(routed)
        shadow = routing.shadow.arm if routing.shadow else ""
        shares: dict[str, int] = _read(split)["split"] if split else {}
        folded.append(
            PastEndpoint(
                id=key,
                name=_read(created)["name"],
                arms=tuple(_arm(there[arm], shares[arm]) for arm in sorted(shares) if shares[arm]),
                split=changes.describe(split) if split else None,
                fallbacks=tuple(there[arm].model for arm in routing.fallbacks),
                shadow=there[shadow].model if shadow else "",
                routed=changes.describe(routed) if routed else None,
            )
        )
    return tuple(sorted(folded, key=lambda item: item.name))


def fold_versions(
    created: Iterable[Revision], moved: Sequence[Revision], changes: Changes
) -> tuple[PastVersion, ...]:
    """Return the versions that there were among those that were created, by id."""
    last = _Last(moved)
    gone, promoted = (last.of(f"registry.version.{what}") for what in ("deleted", "promoted"))
    folded = []
    for item in created:
        if item.object_id in gone:
            continue
        said, move = _read(item), promoted.get(item.object_id)
        folded.append(
            PastVersion(
                id=item.object_id,
                ref=f"{said['model_name']}@{said['version']}",
                artifact_sha256=said["artifact_sha256"] or "",
                stage=Stage(_read(move)["stage"]) if move else Stage.DEVELOPMENT,
                change=changes.describe(move or item),
            )
        )
    return tuple(sorted(folded, key=lambda item: item.id))


def _arm(deployment: Deployment, points: int) -> PastArm:
    return PastArm(
        deployment_id=deployment.id,
        model=deployment.model,
        version_id=deployment.version_id,
        artifact_sha256=deployment.artifact_sha256,
        upstream_model=deployment.upstream_model,
        points=points,
    )


def _approval(content: Mapping[str, Any]) -> PastApproval:
    return PastApproval(
        id=content["approval_id"],
        requested_by=content["requested_by"],
        approved_by=tuple(vote["by"] for vote in content["votes"] if vote["verdict"] == "approve"),
    )


def _read_routing(revision: Revision | None) -> Routing:
    if revision is None:
        return PLAIN_ROUTING
    return msgspec.convert(_read(revision)["routing"], Routing)


def _read(revision: Revision) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.json.decode(revision.after)
    return content
