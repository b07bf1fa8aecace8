"""The verbs of artifacts. Never commits: whoever opened the transaction does."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry.artifacts import store
from pilotage.registry.artifacts.rules import draft_evidence
from pilotage.registry.artifacts.types import Inspection, TreeEntry
from pilotage.registry.types import Artifact, EvidenceDraft

BlobUse = Callable[[Tx, Collection[str]], Awaitable[set[str]]]
"""Says which of some blobs something refers to, in any project."""


class ArtifactService:
    """Artifacts of projects, and the blobs that these are made of.

    Others who refer to blobs say so in ``uses``: what they need is not garbage.
    """

    def __init__(self) -> None:
        self.uses: list[BlobUse] = [store.find_used]

    async def measure(self, tx: Tx) -> dict[str, tuple[int, int]]:
        """Return how many bytes the artifacts of each project have, and since when it has any."""
        return await store.sum_sizes(tx)

    async def add_artifact(
        self,
        tx: Tx,
        sha256: str,
        size_bytes: int,
        info: Inspection,
        files: Sequence[TreeEntry] = (),
    ) -> Artifact:
        """Register a stored and inspected file, or a tree of files.

        Registering it again changes nothing. The blobs must be held until the transaction ends.
        """
        found = await store.find_artifact(tx, sha256)
        if found is not None and found.deleted_at_us is None:
            return found
        artifact = Artifact(
            sha256=sha256,
            project_id=tx.project_id,
            size_bytes=size_bytes,
            format=info.format,
            info=msgspec.json.encode(info, order="sorted").decode(),
            created_at_us=tx.now_us,
            rev=1 if found is None else found.rev + 1,
            file_count=len(files),
        )
        insert = store.insert_artifact if found is None else store.revive_artifact
        if not await insert(tx, artifact, files):
            raise PilotageError(
                "conflict", "The file is being registered by another request.", hint="Try again."
            )
        name = f"{artifact.project_id}/{sha256}"  # a file may be in several projects
        await append_revision(tx, "registry.artifact.added", name, artifact.rev, artifact)
        return artifact

    async def get_artifact(self, tx: Tx, sha256: str) -> Artifact:
        """Return a registered artifact; raise ``not_found``."""
        artifact = await store.find_artifact(tx, sha256)
        if artifact is None or artifact.deleted_at_us is not None:
            raise PilotageError(
                "not_found",
                f"There is no artifact {sha256!r}.",
                hint="Upload it first: pilotage models push NAME@VERSION PATH",
                param="artifact_sha256",
            )
        return artifact

    async def list_files(
        self, tx: Tx, sha256: str, after: str = "", limit: int = 1_000_000
    ) -> Sequence[TreeEntry]:
        """Return the files of an artifact by path; none for one that is a single file."""
        await self.get_artifact(tx, sha256)
        return await store.list_files(tx, sha256, after, limit)

    async def get_file(self, tx: Tx, sha256: str, path: str) -> TreeEntry:
        """Return a file of an artifact that is a tree; raise ``not_found``."""
        await self.get_artifact(tx, sha256)
        found = await store.find_file(tx, sha256, path)
        if found is None:
            raise PilotageError(
                "not_found", f"The artifact has no file {path[:200]!r}.", param="path"
            )
        return found

    async def delete_artifact(self, tx: Tx, sha256: str) -> None:
        """Delete an artifact; raise ``conflict`` while a version is made of it.

        Its blobs go with the next collection of garbage.
        """
        artifact = await self.get_artifact(tx, sha256)
        user = await store.find_user(tx, sha256)
        if user is not None:
            raise PilotageError(
                "conflict",
                f"The artifact is what version {user} is made of.",
                hint="Delete that version first: pilotage models delete NAME@VERSION",
            )
        if not await store.mark_artifact_deleted(tx, artifact):
            raise PilotageError("precondition_failed", "The artifact has changed meanwhile.")
        gone = {"sha256": sha256}
        name = f"{artifact.project_id}/{sha256}"
        await append_revision(
            tx, "registry.artifact.deleted", name, artifact.rev + 1, gone, artifact
        )

    async def draft_evidence(self, tx: Tx, sha256: str) -> Sequence[EvidenceDraft]:
        """Return what the inspection of an artifact says to the gates of its versions."""
        return draft_evidence(sha256, read_info(await self.get_artifact(tx, sha256)))

    # blobs

    async def add_blob(self, tx: Tx, sha256: str, size: int) -> None:
        """Note that the project has uploaded a blob: it may refer to it for a day."""
        await store.put_blob(tx, sha256, size)

    async def list_missing(self, tx: Tx, hashes: Collection[str]) -> Sequence[str]:
        """Return which blobs the project has not uploaded, in order."""
        return sorted(set(hashes) - await store.find_owned(tx, hashes))

    async def check_owned(self, tx: Tx, hashes: Collection[str]) -> None:
        """Raise ``not_found`` for blobs that the project has not uploaded."""
        missing = await self.list_missing(tx, hashes)
        if missing:
            first, *more = missing
            others = f" and {len(more)} more" if more else ""
            raise PilotageError(
                "not_found",
                f"There is no blob {first}{others} of this project.",
                hint="Upload it first: POST /api/v1/blobs. Unused ones are kept for a day.",
                param="files",
            )

    async def find_needed(self, tx: Tx, hashes: Collection[str], since_us: int = 0) -> set[str]:
        """Return which blobs any project refers to, or has uploaded since then."""
        everywhere = replace(tx, actor=replace(tx.actor, project_id=None))
        needed = await store.find_uploaded(everywhere, hashes, since_us)
        for find_used in self.uses:
            needed |= await find_used(everywhere, hashes)
        return needed

    async def forget_blob(self, tx: Tx, sha256: str) -> None:
        """Forget who uploaded a blob that is removed."""
        everywhere = replace(tx, actor=replace(tx.actor, project_id=None))
        await store.drop_blobs(everywhere, sha256)


def read_info(artifact: Artifact) -> Inspection:
    """Return what an artifact says of itself."""
    return msgspec.json.decode(artifact.info, type=Inspection)
