"""What the publisher keeps: where the line of Snapshots stands."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The last Snapshot: its number, the hash of its manifest, and the base of its keys.

    Keys changed up to revision ``base_seq`` are in the base section, later ones in the delta.
    """

    n: int = 0
    parent: str = ""
    base_seq: int = 0
    base_sha256: str = ""
    base_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpublished:
    """An endpoint that clients cannot use yet, and why."""

    project_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A deployment that calls of its endpoint cannot reach, although others can be, and why."""

    project_id: str
    endpoint: str
    deployment: str
    reason: str


class Boxes(NamedTuple):
    """What gateways seal with for a tenant: comments on its answers, and samples of its calls."""

    comments: str
    samples: str
