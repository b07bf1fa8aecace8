"""Brings Snapshots into the data folder of a gateway that runs apart, verified, newer ones only.

The gateway processes read them there as they do beside a control plane, and verify them again. What
is on disk is the cache: with the source away they go on with it until it expires.
"""

import asyncio
import hashlib
import logging
import os
import random
import tempfile
from pathlib import Path

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import CURRENT, SECTIONS, Manifest, SectionRef
from pilotage.gateway.snapshots import open_manifest
from pilotage.kit.files import write_private
from pilotage.runtime.snapshot_sources import SnapshotSource

_LOG = logging.getLogger("pilotage.remote")
MOST_SECTION_BYTES = 4 << 30
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0


class SnapshotFetcher:
    """Keeps a folder of Snapshots up to date; ``step`` is called again and again."""

    def __init__(self, source: SnapshotSource, folder: Path, public_key: bytes) -> None:
        self._source = source
        self._folder = folder
        self._public_key = public_key
        self._current = self._find_current()
        self._failures = 0
        self._problem = ""

    @property
    def n(self) -> int:
        """The number of the Snapshot that is here, 0 before the first."""
        return self._current.n if self._current else 0

    async def step(self) -> bool:
        """Wait for a Snapshot and take it; after a failure, pause (longer and longer, up to 3 s).

        Return True: there is always more to do.
        """
        try:
            content = await self._source.wait_manifest(self.n)
            if content is not None:
                await self._take(content)
        except (PilotageError, OSError, ValueError) as failed:
            self._source.forget()
            self._say(str(failed))
            await asyncio.sleep(self._next_pause_s())
            return True
        if self._problem:
            _LOG.warning("Snapshots come again")
        self._problem, self._failures = "", 0
        return True

    async def _take(self, content: bytes) -> None:
        manifest = open_manifest(content, self._public_key)
        if manifest.n < self.n:
            raise ValueError(f"Snapshot {manifest.n} is older than {self.n}, which is here")
        if manifest == self._current:
            return
        for section in manifest.sections.values():
            if not self._has(section):
                await self._fetch(section)
        write_private(self._folder / CURRENT, content)
        self._drop_sections(manifest, self._current)
        self._current = manifest

    async def _fetch(self, section: SectionRef) -> None:
        """Store a section once all of it is here and is what its name says."""
        if section.size > MOST_SECTION_BYTES:
            raise ValueError(f"section {section.sha256} of {section.size} bytes is too large")
        folder = self._folder / SECTIONS
        folder.mkdir(mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                digest, size = hashlib.sha256(), 0
                async with self._source.open_section(section.sha256) as parts:
                    async for part in parts:
                        size += len(part)
                        if size > section.size:
                            break
                        digest.update(part)
                        file.write(part)
                if size != section.size or digest.hexdigest() != section.sha256:
                    raise ValueError(f"section {section.sha256} is not what its name says")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(folder / section.sha256)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _has(self, section: SectionRef) -> bool:
        try:
            content = self._folder / SECTIONS / section.sha256
            return content.stat().st_size == section.size
        except OSError:
            return False

    def _drop_sections(self, current: Manifest, before: Manifest | None) -> None:
        """Remove what neither this manifest nor the one before, being read perhaps, names."""
        named = {section.sha256 for section in current.sections.values()}
        named |= {section.sha256 for section in before.sections.values()} if before else set()
        for path in (self._folder / SECTIONS).iterdir():
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _find_current(self) -> Manifest | None:
        try:
            return open_manifest((self._folder / CURRENT).read_bytes(), self._public_key)
        except (OSError, ValueError):
            return None

    def _next_pause_s(self) -> float:
        """Return a pause around the doubled last one: many gateways shall not ask at once."""
        self._failures = min(self._failures + 1, 16)
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**self._failures)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            _LOG.error("no Snapshot can be had (calls go on with number %d): %s", self.n, problem)
        self._problem = problem
