"""What an endpoint is: a name that clients send, and the deployments that share its traffic."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from pilotage.core.data_classes import INTERNAL
from pilotage.core.regions import LOCAL
from pilotage.core.snapshot import Routing
from pilotage.registry.types import Stage

POLICIES = ("weighted", "cheapest", "fastest")
MOST_RETRIES = 5
MAX_CONNECTIONS = 10_000  # of one gateway process to one upstream
LONGEST_AWAKE_US = 7 * 86_400 * 1_000_000  # that anybody may keep a deployment from falling asleep
PLAIN_ROUTING = Routing()  # by weight, no fallbacks, one retry


class ReplicaState(StrEnum):
    """Where a replica stands, as seen; one that is looping has failed again and again."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    LOOPING = "crash loop"
    STOPPING = "stopping"


class Scaling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many replicas a deployment has, and how much of the machine each of them gets.

    There are as many as keep each at ``target_in_flight`` calls (0: as many as it has slots), let
    no call wait longer than ``max_wait_ms`` for its first byte and no GPU work more than
    ``target_duty_percent`` of its time (0: these two do not count). With ``min_replicas`` 0 it
    falls asleep when it had no call for ``idle_after_s``; the next call wakes it up. A replica that
    takes more than ``memory_bytes`` is stopped; it runs on ``cpu_cores`` cores. 0 of any of the
    last five is what the installation gives.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    target_in_flight: int = 0
    max_wait_ms: int = 0
    target_duty_percent: int = 0
    scale_down_delay_s: int = 60
    idle_after_s: int = 300
    memory_bytes: int = 0
    cpu_cores: int = 0
    threads: int = 0
    slots: int = 0
    context_tokens: int = 0

    @property
    def can_sleep(self) -> bool:
        """Whether it may have no replica at all."""
        return self.min_replicas == 0


PLAIN_SCALING = Scaling()  # one replica, always


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The machine that replicas shall have, where a backend has several to choose from.

    Names are those of the backend; "" and 0 leave it to it.
    """

    type: str = ""
    accelerator: str = ""
    accelerators: int = 0
    is_spot: bool = False


class Traits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is said of an endpoint beside its traffic.

    The replicas of one that ``is_dedicated`` serve nobody else. ``region`` is where this
    installation runs them, in the words of residency rules; "" is
    :data:`pilotage.core.regions.LOCAL`. Its deployments begin with ``scaling``.
    """

    display_name: str = ""
    labels: dict[str, str] = {}
    is_dedicated: bool = False
    region: str = ""
    machine: Machine = Machine()
    scaling: Scaling = PLAIN_SCALING


PLAIN_TRAITS = Traits()


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
    answered, in the words of :mod:`pilotage.core.regions`. ``rollout`` is the step
    (``ROLLOUT_ID/STEP``) that the split belongs to, and ``unit`` what its coin is tossed for; the
    split names both arms then, also one without a share.
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
    rollout: str = ""
    unit: str = ""
    traits: Traits = PLAIN_TRAITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A model on an endpoint: a version of the registry, or an upstream's model.

    ``model`` is what people write: ``MODEL@VERSION``, or ``UPSTREAM/MODEL`` where ``upstream_id``
    and ``upstream_model`` are set; such a one has neither version, artifact nor engine. It does not
    fall asleep before ``awake_until_us``. A version that is an adapter has its own file in
    ``adapter_sha256``, and ``artifact_sha256`` is the model that it is put on.
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
    scaling: Scaling = PLAIN_SCALING
    awake_until_us: int = 0
    adapter_sha256: str = ""

    @property
    def priced_as(self) -> tuple[str, str]:
        """The model and the version that its price is for; an upstream's model has no version."""
        if self.upstream_id:
            return self.upstream_model, ""
        name, _, version = self.model.rpartition("@")
        return name, version

    @property
    def can_wake(self) -> bool:
        """Whether a call may wait for it: it may be asleep, and wakes when somebody calls."""
        return not self.upstream_id and self.scaling.can_sleep

    def find_context(self, most: int) -> int:
        """Return the context of a call in tokens; ``most`` is what the installation gives."""
        most = self.scaling.context_tokens or most
        return min(self.context_tokens or most, most)


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


def locate(deployment: Deployment, upstreams: Mapping[str, Upstream], endpoint: Endpoint) -> str:
    """Return where a deployment answers, "" where nobody said it; ``upstreams`` is by id."""
    if not deployment.upstream_id:
        return endpoint.traits.region or LOCAL
    upstream = upstreams.get(deployment.upstream_id)
    return upstream.location if upstream else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """What was last seen of a replica: its state, why it failed, how often it was restarted.

    ``is_spot`` says that it runs on a machine that may be taken away at any time. ``shared_by`` are
    the deployments whose calls it answers, if not only the one it is named for; ``memory_bytes`` is
    what it holds (0: not known), ``ready_at_us`` when it became ready.
    """

    replica_id: str
    deployment_id: str
    state: ReplicaState
    detail: str = ""
    restarts: int = 0
    pid: int = 0
    is_spot: bool = False
    shared_by: tuple[str, ...] = ()
    memory_bytes: int = 0
    ready_at_us: int = 0

    @property
    def serves(self) -> tuple[str, ...]:
        """The deployments whose calls it answers."""
        return self.shared_by or (self.deployment_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of a deployment's replicas, and how many there shall be: 0 while it sleeps.

    ``oldest_wait_ms`` is how long the oldest call has been without the first byte of an answer.
    """

    deployment_id: str
    wanted: int
    in_flight: int = 0
    waiting: int = 0
    oldest_wait_ms: int = 0
