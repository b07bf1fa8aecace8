"""The verbs of the registry. Never commits: whoever opened the transaction does."""

from collections.abc import Sequence

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.governance.service import GovernanceService
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry import store
from pilotage.registry.artifacts.service import ArtifactService, read_info
from pilotage.registry.artifacts.types import Inspection
from pilotage.registry.cards import ModelCards
from pilotage.registry.evidence import EvidenceBook
from pilotage.registry.gguf import ADAPTER
from pilotage.registry.lineage import LineageGraph
from pilotage.registry.matrices import find_misfit
from pilotage.registry.rules import (
    check_metadata,
    check_source,
    check_tags,
    check_version,
    list_words,
    parse_ref,
)
from pilotage.registry.search import FoundVersion, VersionQuery
from pilotage.registry.search_store import search_versions
from pilotage.registry.types import (
    SOURCE_MANUAL,
    Artifact,
    Edge,
    Evidence,
    EvidenceDraft,
    Model,
    ModelSource,
    NamedVersion,
    Node,
    NodeKind,
    VersionDetails,
)
from pilotage.registry.upkeep import InUse, VersionChange, VersionUpkeep

NO_DETAILS = VersionDetails()
FOREVER_PAGE = 1_000_000


class RegistryService:
    """Models, versions and artifacts."""

    def __init__(self, clock: Clock, governance: GovernanceService | None = None) -> None:
        self.artifacts = ArtifactService()
        self.lineage = LineageGraph(clock)
        self.evidence = EvidenceBook(clock, self.lineage)
        self.cards = ModelCards(clock, self.evidence)
        self._clock = clock
        self._upkeep = VersionUpkeep(governance)

    # models

    async def create_model(self, tx: Tx, name: str, description: str = "") -> Model:
        """Create a model in the transaction's project; raise ``already_exists`` if there is one."""
        check_name(name)
        model = Model(
            id=self._clock.new_id("mdl"),
            rev=1,
            project_id=tx.project_id,
            name=name,
            description=description,
            created_at_us=tx.now_us,
            deleted_at_us=None,
        )
        if await store.find_model(tx, name) or not await store.insert_model(tx, model):
            raise PilotageError(
                "already_exists", f"There is a model {name!r} already.", param="name"
            )
        await append_revision(tx, "registry.model.created", model.id, 1, model)
        return model

    async def get_model(self, tx: Tx, name_or_id: str) -> Model:
        """Return a living model by name or id; raise ``not_found``."""
        model = await store.find_model(tx, name_or_id)
        if model is None:
            raise PilotageError(
                "not_found",
                f"There is no model {name_or_id!r}.",
                hint="List them: pilotage models list",
                param="model",
            )
        return model

    async def list_models(
        self,
        tx: Tx,
        after: str = "",
        limit: int = FOREVER_PAGE,
        *,
        is_newest_first: bool = False,
    ) -> Sequence[Model]:
        """Return living models behind a name by name, or behind an id from the newest on."""
        return await store.list_models(tx, after, limit, is_newest_first=is_newest_first)

    async def change_model(
        self, tx: Tx, name_or_id: str, description: str, expected_rev: int | None = None
    ) -> Model:
        """Change what a model says of itself; raise ``precondition_failed`` if it has changed."""
        model = await self.get_model(tx, name_or_id)
        is_expected = expected_rev in (None, model.rev)
        if is_expected and model.description == description:
            return model
        if not is_expected or not await store.change_model(tx, model, description):
            raise PilotageError(
                "precondition_failed",
                f"Model {model.name} has changed meanwhile.",
                hint="Read it again and decide anew.",
            )
        before, after = {"description": model.description}, {"description": description}
        await append_revision(tx, "registry.model.changed", model.id, model.rev + 1, after, before)
        return await self.get_model(tx, model.id)

    async def delete_model(self, tx: Tx, name_or_id: str, in_use: InUse) -> None:
        """Delete a model and its versions; raise ``conflict`` if one is needed."""
        model = await self.get_model(tx, name_or_id)
        versions = await store.list_versions(tx, model.id, "", FOREVER_PAGE)
        going = {version.id for version in versions}
        for version in versions:
            await self._upkeep.delete(tx, version, in_use, going)
        if not await store.mark_model_deleted(tx, model, f"{model.name}~{model.id}"):
            raise PilotageError("precondition_failed", f"Model {model.name} has changed meanwhile.")
        gone = {"id": model.id, "name": model.name}
        await append_revision(tx, "registry.model.deleted", model.id, model.rev + 1, gone, model)

    # artifacts

    async def add_artifact(
        self, tx: Tx, sha256: str, size_bytes: int, info: Inspection
    ) -> Artifact:
        """Register a file that versions can be made of; :meth:`ArtifactService.add_artifact`."""
        return await self.artifacts.add_artifact(tx, sha256, size_bytes, info)

    async def get_artifact(self, tx: Tx, sha256: str) -> Artifact:
        """Return a registered artifact; raise ``not_found``."""
        return await self.artifacts.get_artifact(tx, sha256)

    # versions

    async def create_version(
        self,
        tx: Tx,
        model: str,
        version: str,
        artifact_sha256: str | None,
        *,
        source: str = SOURCE_MANUAL,
        license: str | None = None,  # noqa: A002 - what everybody calls it
        description: str = "",
        details: VersionDetails = NO_DETAILS,
    ) -> NamedVersion:
        """Create a version of a registered artifact, or of a model that others host (None).

        The licence and the context length default to what the file says. Raises ``already_exists``
        for a taken number, whatever its build metadata.
        """
        number = check_version(version)
        owner = await self.get_model(tx, model)
        parent = await self.get_version(tx, details.parent) if details.parent else None
        info = await self._read_info(tx, artifact_sha256, details)
        base = await self._find_base(tx, info, parent)
        if license is None:
            license = (info.license if info else None) or ""  # noqa: A001
        context_tokens = details.context_tokens
        if context_tokens is None:
            context_tokens = (info.context_length if info else None) or 0
            context_tokens = context_tokens or (base.context_tokens if base else 0)
        made = NamedVersion(
            id=self._clock.new_id("ver"),
            rev=1,
            project_id=owner.project_id,
            model_id=owner.id,
            model_name=owner.name,
            version=str(number),
            artifact_sha256=artifact_sha256,
            source=check_source(source),
            license=license,
            description=description,
            context_tokens=context_tokens,
            created_at_us=tx.now_us,
            created_by=tx.actor.principal_id,
            deleted_at_us=None,
            semver_key=number.text_key(),
            is_release=not number.prerelease,
            display_name=details.display_name,
            base_model=details.base_model,
            parent_version_id=parent.id if parent else None,
            artifact_uri=details.artifact_uri,
            serving_container_uri=details.serving_container_uri,
            custom_metadata=check_metadata(details.custom_metadata),
            tags=check_tags(details.tags),
            updated_at_us=tx.now_us,
        )
        text = (made.model_name, made.base_model, made.display_name, made.description)
        words = list_words(*text, *made.tags)
        taken = await store.find_numbered(tx, owner.id, made.semver_key)
        if taken is not None or not await store.insert_version(tx, made, words):
            raise PilotageError(
                "already_exists",
                f"There is a version {(taken or made).ref} already.",
                hint="Choose a higher version: versions never change.",
                param="version",
            )
        await append_revision(tx, "registry.version.created", made.id, 1, made)
        await self._link(tx, made)
        if artifact_sha256 is not None:
            for draft in await self.artifacts.draft_evidence(tx, artifact_sha256):
                await self.evidence.add(tx, made, draft)
        return made

    async def get_version(self, tx: Tx, ref: str) -> NamedVersion:
        """Return ``NAME@VERSION``, or ``NAME``'s highest release, or a version by its id.

        A transaction of the whole installation must go by id. Raises ``not_found``. A number
        without build metadata finds a version with some; one with build metadata only its own.
        """
        by_id = await store.find_version(tx, ref)
        if by_id is not None:
            return by_id
        wanted = parse_ref(ref)
        owner = await self.get_model(tx, wanted.model)
        if wanted.version is None:
            found = await store.find_highest(tx, owner.id)
        else:
            found = await store.find_numbered(tx, owner.id, wanted.version.text_key())
            if found is not None and wanted.version.build and found.version != str(wanted.version):
                found = None
        if found is None:
            raise PilotageError(
                "not_found",
                f"There is no version {ref!r}.",
                hint=f"List them: pilotage models versions {wanted.model}",
                param="version",
            )
        return found

    async def hold_versions(
        self, tx: Tx, ids: Sequence[str], *, to_change: bool = False
    ) -> Sequence[NamedVersion]:
        """Return living versions as they stay until this transaction ends."""
        await store.hold_versions(tx, ids, to_change=to_change)
        return await store.list_by_ids(tx, ids)

    async def list_by_ids(self, tx: Tx, ids: Sequence[str]) -> Sequence[NamedVersion]:
        """Return the living versions among some ids, oldest first."""
        return await store.list_by_ids(tx, ids)

    async def list_versions(
        self, tx: Tx, model: str, after: str = "", limit: int = FOREVER_PAGE
    ) -> Sequence[NamedVersion]:
        """Return the versions of a model above one, from lowest to highest."""
        owner = await self.get_model(tx, model)
        after_key = check_version(after).text_key() if after else ""
        return await store.list_versions(tx, owner.id, after_key, limit)

    async def search_versions(self, tx: Tx, query: VersionQuery) -> Sequence[FoundVersion]:
        """Return the versions that a query wants, in its order, of all models."""
        return await search_versions(tx, query)

    async def change_version(
        self, tx: Tx, ref: str, change: VersionChange, expected_rev: int | None = None
    ) -> NamedVersion:
        """Say anew what a version is; raise ``precondition_failed`` if it has changed."""
        version = await self.get_version(tx, ref)
        await self._upkeep.change(tx, version, change, expected_rev)
        return await self.get_version(tx, version.id)

    async def deprecate_version(
        self, tx: Tx, ref: str, reason: str, replacement: str = ""
    ) -> NamedVersion:
        """Mark a version as one not to begin with, and what (a ref) to use instead of it."""
        version = await self.get_version(tx, ref)
        instead = await self.get_version(tx, replacement) if replacement else None
        await self._upkeep.deprecate(tx, version, reason, instead)
        return await self.get_version(tx, version.id)

    async def delete_version(self, tx: Tx, ref: str, in_use: InUse) -> None:
        """Delete a version; its artifact stays.

        Raises ``conflict`` that says what needs it: a deployment, production, a version that came
        of it, an open approval.
        """
        await self._upkeep.delete(tx, await self.get_version(tx, ref), in_use)

    async def import_version(
        self,
        tx: Tx,
        model: str,
        version: str,
        artifact_sha256: str,
        *,
        source: str,
        license: str,  # noqa: A002 - what everybody calls it
        description: str,
    ) -> NamedVersion:
        """Make sure that a version of an artifact exists, and its model, and return it.

        Raises ``already_exists`` if the version is there with other bytes.
        """
        found = await self.find_import(tx, model, version, artifact_sha256)
        if found is not None:
            return found
        if await store.find_model(tx, model) is None:
            await self.create_model(tx, model, description)
        return await self.create_version(
            tx,
            model,
            version,
            artifact_sha256,
            source=source,
            license=license,
            description=description,
        )

    async def find_import(
        self, tx: Tx, model: str, version: str, artifact_sha256: str
    ) -> NamedVersion | None:
        """Return a version if it exists with these bytes; raise ``already_exists`` with others."""
        owner = await store.find_model(tx, model)
        key = check_version(version).text_key()
        found = await store.find_numbered(tx, owner.id, key) if owner else None
        if found is not None and found.artifact_sha256 != artifact_sha256:
            raise PilotageError(
                "already_exists",
                f"There is a version {found.ref} already, made of another file.",
                hint="Delete that version first.",
            )
        return found

    async def _read_info(
        self, tx: Tx, artifact_sha256: str | None, details: VersionDetails
    ) -> Inspection | None:
        if artifact_sha256 is not None:
            return read_info(await self.get_artifact(tx, artifact_sha256))
        if not details.artifact_uri and not details.base_model:
            raise PilotageError(
                "invalid_request",
                "A version needs something that it runs.",
                hint="Give artifact_sha256 of an uploaded file, or artifact_uri or base_model.",
                param="artifact_sha256",
            )
        return None

    async def find_base(self, tx: Tx, version: NamedVersion) -> NamedVersion | None:
        """Return the version whose model an adapter is put on; None for one that is no adapter.

        It is the nearest of those it came of that is a model itself. Raises ``conflict`` if there
        is none any more.
        """
        seen = version
        while await self._is_adapter(tx, seen):
            if seen.parent_version_id is None:
                raise PilotageError("conflict", f"{seen.ref} is an adapter of no version.")
            seen = await self.get_version(tx, seen.parent_version_id)
        return None if seen is version else seen

    async def _is_adapter(self, tx: Tx, version: NamedVersion) -> bool:
        if version.artifact_sha256 is None:
            return False
        return read_info(await self.get_artifact(tx, version.artifact_sha256)).kind == ADAPTER

    async def _find_base(
        self, tx: Tx, info: Inspection | None, parent: NamedVersion | None
    ) -> NamedVersion | None:
        """Return what a new adapter is put on, None for what is no adapter."""
        if info is None or info.kind != ADAPTER:
            return None
        if parent is None:
            raise PilotageError(
                "invalid_request",
                "The file is a LoRA adapter, and nothing says what it is put on.",
                hint="Name the version that it was tuned on: --parent NAME@VERSION.",
                param="parent",
            )
        base = await self.find_base(tx, parent) or parent
        if base.artifact_sha256 is None:
            return base
        why = find_misfit(info, read_info(await self.get_artifact(tx, base.artifact_sha256)))
        if why:
            raise PilotageError(
                "invalid_request",
                f"The adapter does not fit {base.ref}: {why}.",
                hint="Name the version that it was tuned on: --parent NAME@VERSION.",
                param="parent",
            )
        return base

    # evidence

    async def add_evidence(self, tx: Tx, ref: str, draft: EvidenceDraft) -> Evidence:
        """Record something that was found out about a version (a ref or an id).

        It supersedes what was current of its kind and subject. Raises ``invalid_request`` for the
        kinds that are written here alone.
        """
        return await self.evidence.report(tx, await self.get_version(tx, ref), draft)

    async def list_evidence(
        self, tx: Tx, version_id: str, kind: str | None = None, *, has_history: bool = False
    ) -> Sequence[Evidence]:
        """Return the current evidence of a version, newest first; with history what was before.

        What has expired is among it: whoever decides by it looks at ``expires_at_us``.
        """
        return await self.evidence.list(tx, version_id, kind, has_history=has_history)

    # lineage

    async def add_edge(
        self, tx: Tx, source: Node, target: Node, relation: str, project_id: str | None = None
    ) -> Edge:
        """Record that one thing came of another; see :meth:`LineageGraph.add_edge`."""
        return await self.lineage.add_edge(tx, source, target, relation, project_id)

    async def _link(self, tx: Tx, version: NamedVersion) -> None:
        """Record what a new version says that it came of."""
        here = Node(NodeKind.VERSION, version.id)
        if version.parent_version_id:
            parent = Node(NodeKind.VERSION, version.parent_version_id)
            await self.add_edge(tx, parent, here, "parent_of", version.project_id)
        if version.base_model:
            base = Node(NodeKind.BASE_MODEL, version.base_model)
            await self.add_edge(tx, base, here, "base_of", version.project_id)
        if version.source == ModelSource.PACKAGE:
            package = Node(NodeKind.PACKAGE, version.ref)
            await self.add_edge(tx, package, here, "pulled_as", version.project_id)
