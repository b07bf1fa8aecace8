"""What becomes of a version after it was made: described anew, deprecated, deleted."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pilotage.core.errors import PilotageError
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import ApprovalState
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry import lineage_store, store
from pilotage.registry.rules import check_metadata, check_tags, list_words
from pilotage.registry.types import NamedVersion, Node, NodeKind, Stage

InUse = Callable[[Tx, str], Awaitable[bool]]
"""Says whether a model version (by id) is deployed: asked before anything is deleted."""
MOST_CHILDREN = 100
LONGEST_REASON = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionChange:
    """What of a version may be said anew; what it runs never changes."""

    description: str
    display_name: str = ""
    tags: Sequence[str] = ()
    custom_metadata: Mapping[str, object]


class VersionUpkeep:
    """Changes versions that are there; never commits."""

    def __init__(self, governance: GovernanceService | None) -> None:
        self._governance = governance

    async def change(
        self, tx: Tx, version: NamedVersion, change: VersionChange, expected_rev: int | None = None
    ) -> None:
        """Say anew what a version is; raise ``precondition_failed`` if it has changed meanwhile."""
        after = {
            "description": change.description,
            "display_name": change.display_name,
            "tags": check_tags(change.tags),
            "custom_metadata": check_metadata(change.custom_metadata),
        }
        before = {name: getattr(version, name) for name in after}
        _check_rev(version, expected_rev)
        if after == before:
            return
        await self._write(tx, version, "registry.version.changed", after, before)
        text = (version.model_name, version.base_model, change.display_name, change.description)
        await store.reindex_version(tx, version, after["tags"], list_words(*text, *after["tags"]))

    async def deprecate(
        self, tx: Tx, version: NamedVersion, reason: str, replacement: NamedVersion | None
    ) -> None:
        """Mark a version as one that nobody should begin to use, and what to use instead."""
        reason = reason.strip()
        if not reason or len(reason) > LONGEST_REASON:
            raise PilotageError(
                "invalid_request", "Say why the version is deprecated.", param="reason"
            )
        if replacement is not None and replacement.id == version.id:
            raise PilotageError(
                "invalid_request", "A version cannot replace itself.", param="replacement"
            )
        after = {
            "deprecated_at_us": version.deprecated_at_us or tx.now_us,
            "deprecation_reason": reason,
            "replaced_by_id": replacement.id if replacement else None,
        }
        before = {name: getattr(version, name) for name in after}
        if after != before:
            await self._write(tx, version, "registry.version.deprecated", after, before)

    async def delete(
        self, tx: Tx, version: NamedVersion, in_use: InUse, going: Collection[str] = ()
    ) -> None:
        """Delete a version unless something needs it; ``going`` are versions that go with it."""
        await store.hold_versions(tx, [version.id], to_change=True)
        await self._check_needless(tx, version, in_use, going)
        if not await store.mark_version_deleted(tx, version):
            raise _changed(version)
        gone = {"id": version.id, "ref": version.ref}
        await append_revision(
            tx, "registry.version.deleted", version.id, version.rev + 1, gone, version
        )

    async def _write(
        self,
        tx: Tx,
        version: NamedVersion,
        event: str,
        after: Mapping[str, object],
        before: Mapping[str, object],
    ) -> None:
        if not await store.change_version(tx, version, **after):
            raise _changed(version)
        await append_revision(tx, event, version.id, version.rev + 1, after, before)

    async def _check_needless(
        self, tx: Tx, version: NamedVersion, in_use: InUse, going: Collection[str]
    ) -> None:
        if await in_use(tx, version.id):
            raise PilotageError(
                "conflict",
                f"{version.ref} is deployed.",
                hint="Undeploy it first: pilotage endpoints list shows where.",
            )
        if version.stage == Stage.PRODUCTION:
            raise PilotageError(
                "conflict",
                f"{version.ref} is in production.",
                hint="Promote another version, or archive this one, first.",
            )
        children = [item for item in await _list_children(tx, version) if item.id not in going]
        if children:
            names = ", ".join(child.ref for child in children[:3])
            raise PilotageError(
                "conflict",
                f"{version.ref} is what {names} came of.",
                hint=f"Deprecate it instead: pilotage models deprecate {version.ref}",
            )
        await self._check_unasked(tx, version)

    async def _check_unasked(self, tx: Tx, version: NamedVersion) -> None:
        """Raise ``conflict`` while somebody waits for an approval of this version, or has one."""
        if self._governance is None:
            return
        for state in (ApprovalState.PENDING, ApprovalState.APPROVED):
            found = await self._governance.approvals.list(
                tx, limit=1, state=state, subject=version.id
            )
            if found:
                raise PilotageError(
                    "conflict",
                    f"The approval {found[0].id} ({state}) is about {version.ref}.",
                    hint="Withdraw or revoke it first: pilotage approvals list shows them.",
                )


async def _list_children(tx: Tx, version: NamedVersion) -> Sequence[NamedVersion]:
    edges = await lineage_store.list_edges(
        tx,
        version.project_id,
        [Node(NodeKind.VERSION, version.id)],
        is_upwards=False,
        limit=MOST_CHILDREN,
    )
    ids = [edge.to_id for edge in edges if edge.to_kind == NodeKind.VERSION]
    return await store.list_by_ids(tx, ids)


def _check_rev(version: NamedVersion, expected_rev: int | None) -> None:
    if expected_rev not in (None, version.rev):
        raise _changed(version)


def _changed(version: NamedVersion) -> PilotageError:
    return PilotageError(
        "precondition_failed",
        f"{version.ref} has changed meanwhile.",
        hint="Read it again and decide anew.",
    )
