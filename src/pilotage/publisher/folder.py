"""Snapshots in a folder: sections by hash, and one signed manifest that is replaced atomically."""

import hashlib
import os
from pathlib import Path

import msgspec

from pilotage.core.snapshot import (
    CURRENT,
    SECTIONS,
    Manifest,
    SectionRef,
    SignedManifest,
    decode_manifest,
    encode_manifest,
)
from pilotage.kit.crypto import Signer
from pilotage.kit.files import write_private

KEPT_S = 3600.0  # a section that no manifest names any more stays this long for a slow reader


class SnapshotFolder:
    """The publisher's side of the folder that gateways read."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self._current = folder / CURRENT
        self._sections = folder / SECTIONS
        self._signer = signer

    def put_section(self, content: bytes) -> SectionRef:
        """Store a section if it is not there yet."""
        reference = SectionRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        path = self._sections / reference.sha256
        if not path.exists() or path.stat().st_size != reference.size:
            write_private(path, content)
        return reference

    def has_section(self, sha256: str, size: int) -> bool:
        """Say whether a section is there in full length."""
        path = self._sections / sha256
        return path.exists() and path.stat().st_size == size

    def put_manifest(self, manifest: Manifest) -> str:
        """Sign a manifest and make it the current one; return its hex SHA-256."""
        text = encode_manifest(manifest)
        signature = self._signer.sign(text.encode()).hex()
        signed = SignedManifest(manifest=text, key_id=self._signer.key_id, signature=signature)
        write_private(self._current, msgspec.json.encode(signed))
        return hashlib.sha256(text.encode()).hexdigest()

    def find_manifest(self) -> Manifest | None:
        """Return the manifest that is current, None if there is none that can be read."""
        try:
            return decode_manifest(
                msgspec.json.decode(self._current.read_bytes(), type=SignedManifest).manifest
            )
        except (OSError, msgspec.DecodeError, ValueError):
            return None

    def drop_sections(self, manifest: Manifest, now_us: int) -> None:
        """Remove sections that the manifest does not name and that are older than an hour."""
        named = {section.sha256 for section in manifest.sections.values()}
        for entry in os.scandir(self._sections):
            if entry.name not in named and now_us / 1e6 - entry.stat().st_mtime > KEPT_S:
                Path(entry.path).unlink(missing_ok=True)
