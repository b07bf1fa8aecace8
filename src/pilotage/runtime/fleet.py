"""The replicas of this machine: as many of each deployment as its calls need.

How many there shall be is decided here and not in the control process: a sleeping deployment wakes
up, and a busy one grows, whether that is alive or not.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from itertools import count
from pathlib import Path

from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.launch import Launcher
from pilotage.endpoints.rules import number_of
from pilotage.endpoints.scaling_rules import Running, ScalingState, decide
from pilotage.endpoints.types import Load, ReplicaState, ReplicaStatus
from pilotage.gateway.targets import TargetsFile
from pilotage.kit.clock import Clock
from pilotage.kit.machine import Gpus
from pilotage.kit.resources import Background
from pilotage.kit.worker import Wakeup
from pilotage.runtime.addresses import Addresses
from pilotage.runtime.asking import Asking
from pilotage.runtime.cores import Cores
from pilotage.runtime.replica import Ground, Replica

LOOK_S = 0.05  # while something may grow, shrink or wake up
REST_S = 1.0  # else
MEASURE_S = 0.5  # between two looks at memory
REPORT_S = 1.0  # between two reports of nothing but other calls


class _Group:
    """The replicas of one deployment, and what was decided of them."""

    def __init__(self, order: ReplicaGroup) -> None:
        self.order = order
        self.state = ScalingState()
        self.loads: list[Load] = []
        self.duty_percent: int | None = None
        self.replicas: dict[str, Replica] = {}  # those that shall run, by id

    def list_current(self) -> list[Replica]:
        """Return the replicas that are as they shall be; the others are of former orders."""
        return [item for item in self.replicas.values() if self._is_current(item)]

    def has_enough(self) -> bool:
        """Say whether as many are ready as there shall be."""
        ready = sum(item.state is ReplicaState.READY for item in self.list_current())
        return ready >= self.state.wanted

    def shares(self, serves: Collection[str]) -> bool:
        """Say whether it answers for any of some deployments."""
        return not set(self.order.serves).isdisjoint(serves)

    def _is_current(self, replica: Replica) -> bool:
        wanted = self.order.make_spec(number_of(replica.spec.replica_id))
        return (replica.spec, replica.serves) == (wanted, self.order.serves)


class LocalFleet:
    """Keeps a task for each replica; ``on_change`` is called after every change of what is seen."""

    def __init__(  # noqa: PLR0913 - what its owner gives it
        self,
        *,
        engine: Launcher,
        targets: TargetsFile,
        spools: Path,
        logs: Path,
        clock: Clock,
        background: Background,
        start_timeout_s: float,
        grace_s: float,
        is_spot: bool,
    ) -> None:
        self._clock = clock
        self._background = background
        self._asking = Asking(targets.folder, spools, clock)
        self._ground = Ground(
            engine=engine,
            addresses=Addresses(targets, clock, background),
            asking=self._asking,
            cores=Cores(),
            logs=logs,
            clock=clock,
            start_timeout_s=start_timeout_s,
            grace_s=grace_s,
            is_spot=is_spot,
        )
        self._groups: dict[str, _Group] = {}
        self._running: dict[str, tuple[Replica, asyncio.Task[None]]] = {}  # those that end, too
        self._bell = Wakeup()
        self._gpus: Gpus | None = None
        self._measured_s = self._reported_s = clock.monotonic_s()
        self.on_change: Callable[[], None] = lambda: None

    def apply(self, desired: Sequence[ReplicaGroup]) -> None:
        """Run these groups and no others, as many replicas of each as it needs now."""
        wanted = {order.deployment_id: order for order in desired}
        gone = [self._groups.pop(key) for key in list(self._groups) if key not in wanted]
        for key, order in wanted.items():
            self._groups.setdefault(key, _Group(order)).order = order
        for group in gone:
            self._hand_over(group)
        self.step()
        self._tell()
        self._bell.ring()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        try:
            while True:
                self.step()
                orders = [group.order.scaling for group in self._groups.values()]
                may_move = any(item.can_sleep or item.max_replicas > 1 for item in orders)
                await self._bell.wait(LOOK_S if may_move else REST_S)
        finally:
            if self._gpus is not None:
                self._gpus.close()

    def step(self) -> None:
        """See what is asked and what runs; start and stop what follows from it."""
        self._asking.look()
        now_s = self._clock.monotonic_s()
        if now_s - self._measured_s >= MEASURE_S:
            self._measured_s = now_s
            self._measure()
        loads = self.list_loads()
        for group in self._groups.values():
            self._decide(group)
        for group in self._groups.values():
            self._adjust(group)
        after = self.list_loads()
        is_moved = [item.wanted for item in loads] != [item.wanted for item in after]
        is_due = loads != after and now_s - self._reported_s >= REPORT_S
        if is_moved or is_due:
            self._tell()

    def hurry(self) -> None:
        """Stop replicas without waiting for their calls: nobody is left who makes any."""
        self._ground.grace_s = 0.0

    def list_statuses(self) -> list[ReplicaStatus]:
        """Return what is seen of every replica."""
        return [replica.status for replica, _ in self._running.values()]

    def list_loads(self) -> list[Load]:
        """Return what is asked of each deployment, and how many replicas it shall have."""
        return [load for group in self._groups.values() for load in group.loads]

    def _decide(self, group: _Group) -> None:
        order = group.order
        asked = self._asking.sum_up(order.serves)
        states = [replica.state for replica in group.replicas.values()]
        running = Running(
            ready=states.count(ReplicaState.READY),
            slots=order.replica.slots,
            is_starting=any(map(_is_on_its_way, group.replicas.values())),
            duty_percent=group.duty_percent,
        )
        now_us = self._clock.now_us()
        group.state = decide(
            order.scaling, asked, running, group.state, now_us, order.awake_until_us
        )
        group.loads = [self._describe(one, group.state.wanted) for one in order.serves]

    def _describe(self, deployment_id: str, wanted: int) -> Load:
        asked = self._asking.sum_up([deployment_id])
        return Load(
            deployment_id=deployment_id,
            wanted=wanted,
            in_flight=asked.in_flight,
            waiting=asked.waiting,
            oldest_wait_ms=asked.oldest_wait_ms,
        )

    def _adjust(self, group: _Group) -> None:
        """Start or retire replicas; those of a former order go when the new ones are ready."""
        wanted, current = group.state.wanted, group.list_current()
        for _ in range(wanted - len(current)):
            self._start(group)
        for surplus in sorted(current, key=_order_of_use)[wanted:]:
            self._retire(surplus.spec.replica_id, group)
        current = group.list_current()
        for former in [item for item in group.replicas.values() if item not in current]:
            if not former.has_served or self._is_relieved(former):
                self._retire(former.spec.replica_id, group)

    def _is_relieved(self, former: Replica) -> bool:
        """Say whether others answer for all that a replica of a former order answers for."""
        heirs = [group for group in self._groups.values() if group.shares(former.serves)]
        return all(group.has_enough() for group in heirs)

    def _start(self, group: _Group) -> None:
        taken = {  # an address is named for its deployment and this number
            number_of(item.spec.replica_id)
            for item, _ in self._running.values()
            if group.shares(item.serves)
        }
        number = next(number for number in count() if number not in taken)
        spec = group.order.make_spec(number)
        replica = Replica(spec, group.order, self._ground, self._tell)
        group.replicas[spec.replica_id] = replica
        task = self._background.start(replica.keep(), f"replica {spec.replica_id}")
        self._running[spec.replica_id] = replica, task
        task.add_done_callback(lambda _: self._forget(spec.replica_id))

    def _hand_over(self, gone: _Group) -> None:
        """Leave the replicas of a group to those that answer for it now, else retire them.

        The first heir keeps them until there are enough of its own; heirs that are new want as many
        as it did.
        """
        heirs = [group for group in self._groups.values() if group.shares(gone.order.serves)]
        for heir in heirs:
            if heir.state == ScalingState():
                heir.state = gone.state
        if heirs:
            heirs[0].replicas |= gone.replicas
            return
        for replica_id in gone.replicas:
            self._retire(replica_id)

    def _retire(self, replica_id: str, group: _Group | None = None) -> None:
        if group is not None:
            del group.replicas[replica_id]
        self._running[replica_id][1].cancel()

    def _forget(self, replica_id: str) -> None:
        del self._running[replica_id]
        self._tell()

    def _measure(self) -> None:
        """Look at what replicas hold, and at the GPUs of those that grow with their work."""
        for replica, _ in self._running.values():
            replica.measure()
        by_duty = [g for g in self._groups.values() if g.order.scaling.target_duty_percent]
        if by_duty:
            self._gpus = self._gpus or Gpus()
            gpus = self._gpus.read()
            for group in by_duty:
                pids = set[int]().union(*(item.pids for item in group.replicas.values()))
                busy = [gpu.busy for gpu in gpus if gpu.pids & pids]
                group.duty_percent = round(100 * max(busy)) if busy else None

    def _tell(self) -> None:
        """Say what has changed; whoever waits for what cannot start is told to stop waiting."""
        can_wake: list[str] = []
        for group in self._groups.values():
            states = [replica.state for replica in group.replicas.values()]
            if ReplicaState.LOOPING not in states or ReplicaState.READY in states:
                can_wake += group.order.serves
        self._ground.addresses.set_can_wake(sorted(can_wake))
        self._reported_s = self._clock.monotonic_s()
        self.on_change()


def _is_on_its_way(replica: Replica) -> bool:
    return replica.state is ReplicaState.STARTING and not replica.crashes


def _order_of_use(replica: Replica) -> tuple[bool, int]:
    """Keep those that are ready, and of these the first."""
    return replica.state is not ReplicaState.READY, number_of(replica.spec.replica_id)
