"""One replica: an engine child that is started again after every crash, and drained at its end."""

import asyncio
import logging
import os
import secrets
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.launch import Failed, Launch, Launcher, Ready, ReplicaSpec, read_event
from pilotage.endpoints.rules import STEADY_S, is_crash_loop, next_pause_s
from pilotage.endpoints.types import ReplicaState, ReplicaStatus
from pilotage.gateway.targets import ReplicaTarget
from pilotage.kit.clock import Clock
from pilotage.kit.config import child_environment
from pilotage.kit.machine import list_family, read_held_memory
from pilotage.kit.process import end
from pilotage.runtime.addresses import Addresses
from pilotage.runtime.asking import Asking
from pilotage.runtime.cores import Cores
from pilotage.runtime.handover import log_path
from pilotage.runtime.logfile import open_log

_LOG = logging.getLogger("pilotage.fleet")
DRAIN_LOOK_S = 0.05
_MIB = 1 << 20


@dataclass(slots=True, kw_only=True)
class Ground:
    """What replicas of a machine stand on; ``grace_s`` is how long calls may go on at most."""

    engine: Launcher
    addresses: Addresses
    asking: Asking
    cores: Cores
    logs: Path
    clock: Clock
    start_timeout_s: float
    grace_s: float
    is_spot: bool


class Replica:
    """Runs from :meth:`keep` until that is cancelled; ``on_change`` is called after each change."""

    def __init__(
        self, spec: ReplicaSpec, group: ReplicaGroup, ground: Ground, on_change: Callable[[], None]
    ) -> None:
        self.spec = spec
        self.state = ReplicaState.STARTING
        self.serves = group.serves
        self.crashes = 0  # in a row
        self.has_served = False  # whether it ever was ready
        self._group_id = group.deployment_id
        self._ground = ground
        self._on_change = on_change
        self._detail = ""
        self._child: Process | None = None
        self._memory_bytes = 0
        self._ready_at_us = 0
        self._offence = ""

    @property
    def status(self) -> ReplicaStatus:
        """What is seen of it."""
        return ReplicaStatus(
            replica_id=self.spec.replica_id,
            deployment_id=self._group_id,
            state=self.state,
            detail=self._detail,
            restarts=self.crashes,
            pid=self._child.pid if self._child else 0,
            is_spot=self._ground.is_spot,
            shared_by=self.serves if len(self.serves) > 1 else (),
            memory_bytes=self._memory_bytes,
            ready_at_us=self._ready_at_us,
        )

    @property
    def pids(self) -> frozenset[int]:
        """The processes that it is made of, as far as that is known."""
        return list_family(self._child.pid) if self._child else frozenset()

    async def keep(self) -> None:
        """Run it for as long as it is wanted, again after every crash."""
        while True:
            self._see(ReplicaState.STARTING)
            try:
                detail = await self._run_once()
            except OSError as failed:  # no process, file or space to be had: try again later
                detail = f"it cannot be started: {failed}"
            self.crashes += 1
            is_loop = is_crash_loop(self.crashes)
            self._see(ReplicaState.LOOPING if is_loop else ReplicaState.FAILED, detail)
            _LOG.warning(
                "replica %s: %s",
                "is in a crash loop" if is_loop else "ended",
                detail,
                extra={"replica": self.spec.replica_id, "count": self.crashes},
            )
            await asyncio.sleep(next_pause_s(self.crashes))

    def measure(self) -> None:
        """Look at the memory that it holds; one that holds too much is killed, and says so."""
        child = self._child
        if child is None:
            return
        self._memory_bytes = read_held_memory(list_family(child.pid))
        most = self.spec.memory_bytes
        if 0 < most < self._memory_bytes and not self._offence:
            held, allowed = self._memory_bytes / _MIB, most / _MIB
            self._offence = f"it held {held:.0f} MiB of memory and may hold {allowed:.0f}"
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # whatever it has started, too

    async def _run_once(self) -> str:
        """Start the engine, publish where it listens, and return why it ended."""
        ground, spec = self._ground, self.spec
        key = secrets.token_urlsafe(32)
        launch = ground.engine.prepare(spec, key)
        with (
            open_log(log_path(ground.logs, f"engine-{self._group_id}")) as log,
            ground.cores.take(spec.cpu_cores) as cores,
        ):
            child = await asyncio.create_subprocess_exec(
                *launch.argv,
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env=child_environment(**launch.environment),
                start_new_session=True,
            )
            try:
                self._child, self._offence = child, ""
                _bind(child, cores)
                event = await self._hear(child, launch)
                if isinstance(event, Ready):
                    return await self._serve(child, event, key)
                return self._offence or event.reason
            finally:
                self._retract()
                self._child = None
                self._memory_bytes = self._ready_at_us = 0
                await end(child, group=True)

    async def _serve(self, child: Process, ready: Ready, key: str) -> str:
        """Let calls come until the child ends; told to stop, let them finish first."""
        self._ready_at_us = self._ground.clock.now_us()
        self._ground.addresses.put(
            [
                ReplicaTarget(
                    id=target_id,
                    deployment_id=deployment_id,
                    host=ready.host,
                    port=ready.port,
                    key=key,
                    ready_at_us=self._ready_at_us,
                    adapters=tuple(adapter.name for adapter in self.spec.adapters),
                    slots=self.spec.slots,
                )
                for deployment_id, target_id in self._list_targets()
            ]
        )
        self.has_served = True
        self._see(ReplicaState.READY)
        ready_s = self._ground.clock.monotonic_s()
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            targets_n = self._retract()
            self._see(ReplicaState.STOPPING)
            await self._let_finish(child, targets_n)
            raise
        if self._ground.clock.monotonic_s() - ready_s > STEADY_S:
            self.crashes = 0
        return self._offence or f"it ended with code {code}"

    async def _hear(self, child: Process, launch: Launch) -> Ready | Failed:
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("the child has no pipes")
        child.stdin.write(launch.config)
        limit_s = launch.start_timeout_s or self._ground.start_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await child.stdin.drain()
                child.stdin.close()
                line = await child.stdout.readline()
        except TimeoutError:
            return Failed(reason=f"it did not start within {limit_s:g} s")
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        try:
            return read_event(line)
        except ValueError:
            return Failed(reason="it ended without a word; see its log")

    async def _let_finish(self, child: Process, targets_n: int) -> None:
        """Wait until the calls that are there have ended, or their time is over."""
        targets = [target_id for _, target_id in self._list_targets()]
        asking, clock = self._ground.asking, self._ground.clock
        until_s = clock.monotonic_s() + self._ground.grace_s
        while child.returncode is None and clock.monotonic_s() < until_s:
            asking.look()
            if asking.has_left(targets, targets_n):
                return
            await asyncio.sleep(DRAIN_LOOK_S)

    def _retract(self) -> int:
        return self._ground.addresses.drop([target_id for _, target_id in self._list_targets()])

    def _list_targets(self) -> Sequence[tuple[str, str]]:
        """Return the deployments that it answers for, and the name it has as each one's."""
        number = self.spec.replica_id.rpartition(".")[2]
        return [(deployment_id, f"{deployment_id}.{number}") for deployment_id in self.serves]

    def _see(self, state: ReplicaState, detail: str = "") -> None:
        self.state, self._detail = state, detail
        self._on_change()


def _bind(child: Process, cores: Sequence[int]) -> None:
    """Keep a child that was just started, and whatever it starts, on some cores."""
    if cores:
        with suppress(OSError):  # it is gone already, or the machine has lost the cores
            os.sched_setaffinity(child.pid, cores)
