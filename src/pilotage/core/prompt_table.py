"""The Snapshot's section ``prompts``: every version that calls may name, found without being read.

Records of fixed size, sorted by digest, point into the contents behind them. A gateway maps the
file and reads only the versions that calls ask for, so that thousands of them cost it nothing. The
digest is of project, name and either version or label: a label finds the same content.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from struct import Struct as Layout
from typing import NamedTuple

PROMPTS = "prompts"  # the section's name in a manifest; a Snapshot without prompts has none
_COUNT = Layout("<Q")
_RECORD = Layout("<32sQI")
_DIGEST_SIZE = 32


class PublishedPrompt(NamedTuple):
    """A version, the labels that point to it, and its content as canonical JSON."""

    project_id: str
    name: str
    version: str
    labels: Sequence[str]
    content: bytes


class FoundPrompt(NamedTuple):
    """What a reference leads to: the version's ``NAME@VERSION``, and its content."""

    ref: str
    content: bytes


class PromptTable:
    """The section over any buffer (bytes or a mapped file)."""

    def __init__(self, buffer: bytes | memoryview) -> None:
        self._count = _COUNT.unpack_from(buffer)[0] if len(buffer) else 0
        self._records = memoryview(buffer)[_COUNT.size :]
        if len(self._records) < self._count * _RECORD.size:
            raise ValueError(f"a prompt table of {len(buffer)} bytes is cut")
        self._contents = self._records[self._count * _RECORD.size :]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        start = index * _RECORD.size
        return bytes(self._records[start : start + _DIGEST_SIZE])

    def find(self, project_id: str, name: str, release: str) -> FoundPrompt | None:
        """Return what a version or a label of a prompt says, None if there is none."""
        wanted = _digest(project_id, name, release)
        index = bisect_left(self, wanted)
        if index == self._count:
            return None
        digest, start, size = _RECORD.unpack_from(self._records, index * _RECORD.size)
        if digest != wanted:
            return None
        ref, _, content = bytes(self._contents[start : start + size]).partition(b"\n")
        return FoundPrompt(ref.decode(), content)


def pack_prompts(prompts: Iterable[PublishedPrompt]) -> bytes:
    """Return the bytes of a prompt table; none for no prompts."""
    records: list[tuple[bytes, int, int]] = []
    contents: list[bytes] = []
    end = 0
    for prompt in sorted(prompts, key=lambda item: item[:3]):
        body = f"{prompt.name}@{prompt.version}\n".encode() + prompt.content
        records += [
            (_digest(prompt.project_id, prompt.name, release), end, len(body))
            for release in (prompt.version, *prompt.labels)
        ]
        contents.append(body)
        end += len(body)
    if not records:
        return b""
    packed = [_RECORD.pack(*record) for record in sorted(records)]
    return b"".join([_COUNT.pack(len(packed)), *packed, *contents])


def _digest(project_id: str, name: str, release: str) -> bytes:
    return hashlib.sha256(f"{project_id}\0{name}@{release}".encode()).digest()
