"""Snapshots in a folder: sections by hash, and one signed manifest that is replaced atomically."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from pilotage.core.snapshot import (
    CURRENT,
    SECTIONS,
    Directory,
    Manifest,
    SectionRef,
    SignedManifest,
    decode_directory,
    decode_manifest,
    encode_manifest,
)
from pilotage.kit.crypto import Signer
from pilotage.kit.files import write_private

KEPT_S = 3600  # a section that no manifest names any more stays this long for a slow reader


class Current(NamedTuple):
    """The manifest in the folder and the hex SHA-256 of its text."""

    manifest: Manifest
    sha256: str


class SnapshotFolder:
    """The publisher's side of the folder that gateways read."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self._current = folder / CURRENT
        self._sections = folder / SECTIONS
        self._signer = signer

    def put_section(self, content: bytes) -> SectionRef:
        """Store a section if it is not there yet."""
        reference = SectionRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        if not self.has_section(reference):
            write_private(self._sections / reference.sha256, content)
        return reference

    def has_section(self, section: SectionRef) -> bool:
        """Say whether a section is there in full length."""
        path = self._sections / section.sha256
        return path.exists() and path.stat().st_size == section.size

    def is_whole(self, manifest: Manifest) -> bool:
        """Say whether a manifest and all its sections are still there."""
        return self._current.exists() and all(map(self.has_section, manifest.sections.values()))

    def put_manifest(self, manifest: Manifest) -> str:
        """Sign a manifest and make it the current one; return its hex SHA-256."""
        text = encode_manifest(manifest)
        signature = self._signer.sign(text.encode()).hex()
        signed = SignedManifest(manifest=text, key_id=self._signer.key_id, signature=signature)
        write_private(self._current, msgspec.json.encode(signed))
        return hashlib.sha256(text.encode()).hexdigest()

    def find_current(self) -> Current | None:
        """Return the manifest that is current, None if there is none that can be read."""
        try:
            text = msgspec.json.decode(self._current.read_bytes(), type=SignedManifest).manifest
            return Current(decode_manifest(text), hashlib.sha256(text.encode()).hexdigest())
        except (OSError, msgspec.DecodeError, ValueError):
            return None

    def read_directory(self, manifest: Manifest) -> Directory:
        """Return the directory that a manifest names, an empty one if it cannot be read."""
        try:
            section = manifest.sections["directory"]
            return decode_directory((self._sections / section.sha256).read_bytes())
        except (KeyError, OSError, ValueError):
            return Directory(tenants=[], aliases=[])

    def drop_sections(self, current: Manifest, before: Manifest | None, now_us: int) -> None:
        """Remove sections that no manifest has named for an hour; ``before`` was the last one."""
        named = {section.sha256 for section in current.sections.values()}
        for section in before.sections.values() if before else ():
            if section.sha256 not in named and self.has_section(section):
                os.utime(self._sections / section.sha256, ns=(now_us * 1000, now_us * 1000))
        for entry in os.scandir(self._sections):
            age_us = now_us - entry.stat().st_mtime_ns // 1000
            if entry.name not in named and age_us > KEPT_S * 1_000_000:
                Path(entry.path).unlink(missing_ok=True)
