"""What an endpoint is: a name that clients send, and the deployments that share its traffic."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pilotage.core.data_classes import INTERNAL
from pilotage.core.regions import LOCAL
from pilotage.core.snapshot import Routing
from pilotage.registry.types import Stage

POLICIES = ("weighted", "cheapest", "fastest")
MOST_RETRIES = 5
MAX_CONNECTIONS = 10_000  # of one gateway process to one upstream
PLAIN_ROUTING = Routing()  # by weight, no fallbacks, one retry


class ReplicaState(StrEnum):
    """Where a replica stands, as seen."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"


class Provider(StrEnum):
    """Whose API an upstream speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    VERTEX = "vertex"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSpec:
    """What can be said of an upstream; ``secret`` is a reference (``env:NAME``, ``file:PATH``).

    ``base_url`` is what the provider's paths are below; ``location`` where it runs, in the words of
    residency rules; ``proxy`` an ``http://HOST:PORT`` to connect through; ``ca_file`` the
    certificates to trust instead of the system's; ``accepts`` the closest class of data it may see.
    """

    provider: Provider
    base_url: str
    secret: str = ""
    location: str = ""
    proxy: str = ""
    ca_file: str = ""
    max_connections: int = 256
    accepts: str = INTERNAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream(UpstreamSpec):
    """A provider's API that deployments of a project may name."""

    id: str
    rev: int
    project_id: str
    name: str
    created_at_us: int
    deleted_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An alias of a project.

    ``split`` maps deployment ids to basis points of the traffic: 10,000 in all, or none.
    ``routing`` names deployments by id and tenants by name; ``regions`` are where calls may be
    answered, in the words of :mod:`pilotage.core.regions`.
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
    routing: Routing = PLAIN_ROUTING
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A model on an endpoint: a version of the registry, or an upstream's model.

    ``model`` is what people write: ``MODEL@VERSION``, or ``UPSTREAM/MODEL`` where ``upstream_id``
    and ``upstream_model`` are set; such a one has neither version, artifact nor engine.
    """

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
    upstream_id: str = ""
    upstream_model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePolicy:
    """What a change of traffic needs in a project; revision 0 is what holds before anybody says.

    Versions from ``serve_from_stage`` on may serve, archived ones never; ``approvals`` is how many
    must have agreed to a change of weights or routing.
    """

    id: str
    rev: int
    project_id: str
    serve_from_stage: Stage = Stage.DEVELOPMENT
    approvals: int = 0
    changed_at_us: int = 0
    changed_by: str = ""


def locate(deployment: Deployment, upstreams: Mapping[str, Upstream]) -> str:
    """Return where a deployment answers, "" where nobody said it; ``upstreams`` is by id."""
    if not deployment.upstream_id:
        return LOCAL
    upstream = upstreams.get(deployment.upstream_id)
    return upstream.location if upstream else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """What was last seen of a replica: its state, why it failed, how often it was restarted.

    ``is_spot`` says that it runs on a machine that may be taken away at any time.
    """

    replica_id: str
    deployment_id: str
    state: ReplicaState
    detail: str = ""
    restarts: int = 0
    pid: int = 0
    is_spot: bool = False
