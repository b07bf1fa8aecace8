"""What an endpoint is: a name that clients send, and the deployments that share its traffic."""

from dataclasses import dataclass
from enum import StrEnum


class ReplicaState(StrEnum):
    """Where a replica stands, as seen."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An alias of a project.

    ``split`` maps deployment ids to basis points of the traffic: 10,000 in all, or none.
    """

    id: str
    rev: int
    project_id: str
    name: str
    description: str
    max_output_tokens: int
    salt: str
    split: dict[str, int]
    created_at_us: int
    deleted_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A model version on an endpoint; ``model`` is its name and version as people write it."""

    id: str
    rev: int
    project_id: str
    endpoint_id: str
    version_id: str
    model: str
    artifact_sha256: str
    engine: str
    context_tokens: int
    created_at_us: int
    deleted_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """What was last seen of a replica: its state, why it failed, how often it was restarted."""

    replica_id: str
    deployment_id: str
    state: ReplicaState
    detail: str = ""
    restarts: int = 0
    pid: int = 0
