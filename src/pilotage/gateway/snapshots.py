"""The gateway's side of the Snapshot: read from a folder, verified, mapped, switched at once.

What is on disk is believed only as far as its signature by the pinned key and its hashes go; a
Snapshot older than the one in use is refused.
"""

import hashlib
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pilotage.core.ids import uuid_bytes
from pilotage.core.key_scopes import KEY_SCOPES, NOTHING, UNBOUNDED, KeyScope, unpack_scopes
from pilotage.core.prompt_table import PROMPTS, PromptTable
from pilotage.core.snapshot import (
    CURRENT,
    SECTIONS,
    AliasEntry,
    KeyRecord,
    KeyTable,
    LimitEntry,
    Manifest,
    SectionRef,
    SignedManifest,
    TenantEntry,
    UpstreamEntry,
    decode_directory,
    decode_manifest,
    unpack_digests,
)
from pilotage.core.usage import worst_cost_nano
from pilotage.gateway.prompts import PromptBook
from pilotage.gateway.routing.choice import Routes, list_reachable
from pilotage.kit.crypto import is_signed

_SECTIONS = frozenset({"directory", "keys", "keys-delta", "revoked"})


class AliasView:
    """An alias with what every call needs of it worked out."""

    __slots__ = ("_routes", "arms", "dearest_input", "dearest_output", "entry")

    def __init__(self, entry: AliasEntry) -> None:
        reachable = list_reachable(entry)
        self._routes: dict[tuple[str, ...], Routes] = {}
        self.entry = entry
        self.arms = {arm.id: arm for arm in entry.arms}
        self.dearest_input = max((arm.rates.dearest_input for arm in reachable), default=0)
        self.dearest_output = max((arm.rates.dearest_output for arm in reachable), default=0)

    def worst_nano(self, input_bound: int, output_limit: int) -> int:
        """Return the most that a call can cost at any target it can reach, in nano-USD."""
        return worst_cost_nano(input_bound, output_limit, self.dearest_input, self.dearest_output)

    def find_routes(self, tenant: TenantEntry) -> Routes:
        """Return the routing of a tenant's calls.

        It is worked out once for all with the same regions and class of data.
        """
        bounds = (tenant.data_class, *tenant.regions)
        routes = self._routes.get(bounds)
        if routes is None:
            routes = self._routes[bounds] = Routes(self.entry, tenant)
        return routes


class SnapshotView:
    """One verified Snapshot, ready to be looked things up in."""

    def __init__(  # noqa: PLR0913 - a part of each section
        self,
        *,
        manifest: Manifest,
        tenants: dict[bytes, TenantEntry],
        aliases: dict[tuple[str, str], AliasView],
        revoked: frozenset[bytes],
        base: KeyTable,
        delta: KeyTable,
        upstreams: Sequence[UpstreamEntry] = (),
        limits: Sequence[LimitEntry] = (),
        prompts: PromptBook | None = None,
        scopes: Mapping[int, KeyScope] | None = None,
    ) -> None:
        self.manifest = manifest
        self.n = manifest.n
        self.expires_at_us = manifest.expires_at_us
        self.tenants = tenants
        self.aliases = aliases
        self.upstreams = upstreams
        self.limits = limits
        self.prompts = prompts or PromptBook(PromptTable(b""))
        self._scopes = {0: UNBOUNDED} | dict(scopes or {})
        self._revoked = revoked
        self._base = base
        self._delta = delta

    def find_key(self, digest: bytes) -> KeyRecord | None:
        """Return the record of a key, None if there is none or it is revoked.

        The delta is newer than the base.
        """
        if digest in self._revoked:
            return None
        return self._delta.find(digest) or self._base.find(digest)

    def find_scope(self, record: KeyRecord) -> KeyScope:
        """Return what a key is for: nothing, if the Snapshot does not say."""
        return self._scopes.get(record.scope, NOTHING)

    def list_aliases(self, project_id: str, scope: KeyScope = UNBOUNDED) -> list[AliasView]:
        """Return the aliases of a project that a scope names, in order of their names."""
        return [
            view
            for (project, name), view in sorted(self.aliases.items())
            if project == project_id and scope.has_alias(name)
        ]


class SnapshotReader:
    """Reads Snapshots from a folder; keeps what did not change from one to the next."""

    def __init__(self, folder: Path, public_key: bytes) -> None:
        self._folder = folder
        self._public_key = public_key
        self._stamp = (0, 0, 0)
        self._mapped: tuple[str, KeyTable] = ("", KeyTable(b""))
        self._book: tuple[str, PromptBook] = ("", PromptBook(PromptTable(b"")))

    def has_changed(self) -> bool:
        """Say whether another Snapshot has been put there since the last :meth:`load`."""
        return self._read_stamp() != self._stamp

    def load(self, in_use: SnapshotView | None) -> SnapshotView:
        """Return the current Snapshot; raise ValueError, saying why, if it is not to be trusted."""
        self._stamp = self._read_stamp()
        manifest = self._read_manifest()
        if in_use is not None and manifest.n < in_use.n:
            raise ValueError(f"Snapshot {manifest.n} is older than {in_use.n}, which is in use")
        sections = manifest.sections
        if missing := _SECTIONS - sections.keys():
            raise ValueError(f"Snapshot {manifest.n} has no section {min(missing)}")
        revoked = unpack_digests(self._read_section(sections["revoked"]))
        directory = decode_directory(self._read_section(sections["directory"]))
        return SnapshotView(
            manifest=manifest,
            tenants={uuid_bytes(entry.id): entry for entry in directory.tenants},
            aliases={
                (entry.project_id, entry.name): AliasView(entry) for entry in directory.aliases
            },
            upstreams=directory.upstreams,
            limits=directory.limits,
            revoked=revoked,
            base=self._map_keys(sections["keys"], manifest.v),
            delta=KeyTable(self._read_section(sections["keys-delta"]), manifest.v),
            prompts=self._map_prompts(sections.get(PROMPTS)),
            scopes=self._read_scopes(sections.get(KEY_SCOPES)),
        )

    def _read_stamp(self) -> tuple[int, int, int]:
        try:
            found = (self._folder / CURRENT).stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_ino, found.st_size)

    def _read_manifest(self) -> Manifest:
        try:
            content = (self._folder / CURRENT).read_bytes()
        except OSError as missing:
            raise ValueError(f"no Snapshot can be read: {missing}") from missing
        return open_manifest(content, self._public_key)

    def _path(self, section: SectionRef) -> Path:
        return self._folder / SECTIONS / section.sha256

    def _read_section(self, section: SectionRef) -> bytes:
        try:
            content = self._path(section).read_bytes()
        except OSError as missing:
            raise ValueError(f"section {section.sha256} is missing") from missing
        _check(section, content)
        return content

    def _map_keys(self, section: SectionRef, version: int) -> KeyTable:
        if self._mapped[0] != section.sha256:
            self._mapped = (section.sha256, KeyTable(self._map(section), version))
        return self._mapped[1]

    def _map_prompts(self, section: SectionRef | None) -> PromptBook | None:
        if section is None:
            return None
        if self._book[0] != section.sha256:
            self._book = (section.sha256, PromptBook(PromptTable(self._map(section))))
        return self._book[1]

    def _read_scopes(self, section: SectionRef | None) -> dict[int, KeyScope]:
        return {} if section is None else unpack_scopes(self._read_section(section))

    def _map(self, section: SectionRef) -> bytes | memoryview:
        """Return a section's verified bytes as they lie on disk."""
        if section.size == 0:
            return b""
        try:
            with self._path(section).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as missing:
            raise ValueError(f"section {section.sha256} is missing") from missing
        _check(section, mapped)
        return memoryview(mapped)


def open_manifest(content: bytes, public_key: bytes) -> Manifest:
    """Return what a signed manifest says; raise ValueError if it is not to be believed."""
    try:
        signed = msgspec.json.decode(content, type=SignedManifest)
        signature = bytes.fromhex(signed.signature)
    except (msgspec.DecodeError, ValueError) as broken:
        raise ValueError(f"no Snapshot can be read: {broken}") from broken
    if not is_signed(public_key, signed.manifest.encode(), signature):
        raise ValueError("the Snapshot is not signed by the pinned key")
    return decode_manifest(signed.manifest)


def _check(section: SectionRef, content: bytes | mmap.mmap) -> None:
    if len(content) != section.size or hashlib.sha256(content).hexdigest() != section.sha256:
        raise ValueError(f"section {section.sha256} is damaged")
