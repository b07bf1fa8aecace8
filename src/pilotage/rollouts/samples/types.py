"""What is known of a kept call without opening it, and how many there are."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A call that was kept; ``letter`` is sealed for its tenant, and goes at ``due_us``."""

    id: str
    project_id: str
    tenant_id: str
    alias: str
    call_id: str
    at_us: int
    version_id: str
    model: str
    letter: bytes
    due_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCount:
    """How many calls of an endpoint and a tenant are kept, and from when to when they are."""

    alias: str
    tenant_id: str
    samples: int
    first_us: int
    last_us: int
