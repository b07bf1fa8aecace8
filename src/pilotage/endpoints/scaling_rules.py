"""How many replicas a deployment shall have: by its calls, how long they wait, the GPUs. Pure.

More replicas come at once; fewer only when no moment of the last ``scale_down_delay_s`` needed
more, so that bursts do not stop and start them in turn. No replica at all is for deployments that
may sleep and had no call for ``idle_after_s``.
"""

from dataclasses import dataclass

from pilotage.core.errors import PilotageError
from pilotage.endpoints.types import Scaling

MOST_REPLICAS = 64
MOST_SLOTS = 256
MOST_THREADS = 1024
MOST_CONTEXT = 1_048_576
LEAST_MEMORY = 16 << 20
MOST_SECONDS = 7 * 86_400
LEAST_IDLE_S = 1  # a first call would find the replica that it woke gone again
MOST_WAIT_MS = 3_600_000
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What calls ask of a deployment now, all gateways together.

    ``in_flight`` are at a replica, ``waiting`` wait for one; ``calls`` is how many were begun by
    the gateways that there are: it grows with every call, and falls when a gateway leaves.
    """

    in_flight: int = 0
    waiting: int = 0
    oldest_wait_ms: int = 0
    calls: int = 0

    @property
    def load(self) -> int:
        """All calls there are."""
        return self.in_flight + self.waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What is seen of the replicas: how many are ready, the calls that each answers at once.

    ``is_starting``: one is on its way, and not once more after a crash. ``duty_percent`` is how
    much of its time the busiest of their GPUs works; None: there is none.
    """

    ready: int
    slots: int
    is_starting: bool = False
    duty_percent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingState:
    """What is remembered between looks.

    ``peaks`` are (time, need) pairs, times rising and needs falling: the most that was needed at
    that time or since. ``busy_at_us`` is when a call was last seen, or a replica that started.
    """

    wanted: int = 0
    peaks: tuple[tuple[int, int], ...] = ()
    busy_at_us: int = 0
    calls: int = 0


def decide(
    scaling: Scaling,
    asked: Asked,
    running: Running,
    state: ScalingState,
    now_us: int,
    awake_until_us: int = 0,
) -> ScalingState:
    """Return how many replicas there shall be now, and what to remember of this look."""
    was_awake = state.wanted > 0
    is_busy = asked.load > 0 or asked.calls > state.calls or running.is_starting
    busy_at_us = now_us if is_busy else state.busy_at_us
    need = find_need(scaling, asked, running)
    if need == 0:
        is_used = was_awake and now_us - busy_at_us < scaling.idle_after_s * _SECOND_US
        if not is_used and now_us >= awake_until_us:
            return ScalingState(busy_at_us=busy_at_us, calls=asked.calls)
        need = 1
    oldest_us = now_us - scaling.scale_down_delay_s * _SECOND_US
    peaks = (
        *((at, peak) for at, peak in state.peaks if at > oldest_us and peak > need),
        (now_us, need),
    )
    wanted = min(peaks[0][1], scaling.max_replicas)
    return ScalingState(wanted=wanted, peaks=peaks, busy_at_us=busy_at_us, calls=asked.calls)


def find_need(scaling: Scaling, asked: Asked, running: Running) -> int:
    """Return how many replicas would do for what is asked now, within the bounds."""
    need = _divide_up(asked.load, scaling.target_in_flight or running.slots)
    if asked.load and 0 < scaling.max_wait_ms < asked.oldest_wait_ms:
        need = max(need, running.ready + 1)
    if scaling.target_duty_percent and running.duty_percent is not None:
        work = running.ready * running.duty_percent
        need = max(need, _divide_up(work, scaling.target_duty_percent) if asked.load else 0)
    return max(scaling.min_replicas, min(need, scaling.max_replicas))


def check_scaling(scaling: Scaling) -> Scaling:
    """Return settings that can be; raise ``invalid_request`` for others, naming the first."""
    for name, least, most in _BOUNDS:
        value = getattr(scaling, name)
        is_default = value == 0 and name in _OR_DEFAULT
        if not is_default and not least <= value <= most:
            zero = ", 0 for what the installation gives" if name in _OR_DEFAULT else ""
            raise PilotageError(
                "invalid_request",
                f"{name}: {value} is out of bounds.",
                hint=f"Use {least} to {most}{zero}.",
                param=name,
            )
    if scaling.min_replicas > scaling.max_replicas:
        raise PilotageError(
            "invalid_request",
            f"min_replicas: {scaling.min_replicas} are more than at most "
            f"{scaling.max_replicas} replicas.",
            hint="Raise max_replicas, or lower min_replicas.",
            param="min_replicas",
        )
    return scaling


_BOUNDS = (
    ("min_replicas", 0, MOST_REPLICAS),
    ("max_replicas", 1, MOST_REPLICAS),
    ("target_in_flight", 1, 10_000),
    ("max_wait_ms", 1, MOST_WAIT_MS),
    ("target_duty_percent", 1, 100),
    ("scale_down_delay_s", 0, MOST_SECONDS),
    ("idle_after_s", LEAST_IDLE_S, MOST_SECONDS),
    ("memory_bytes", LEAST_MEMORY, 1 << 50),
    ("cpu_cores", 1, MOST_THREADS),
    ("threads", 1, MOST_THREADS),
    ("slots", 1, MOST_SLOTS),
    ("context_tokens", 64, MOST_CONTEXT),
)
_OR_DEFAULT = frozenset(
    (
        "target_in_flight",
        "max_wait_ms",
        "target_duty_percent",
        "memory_bytes",
        "cpu_cores",
        "threads",
        "slots",
        "context_tokens",
    )
)


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)
