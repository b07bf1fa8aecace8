"""The replicas of this machine: engine children that the supervisor starts, watches and stops."""

import asyncio
import logging
import secrets
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path

from pilotage.endpoints.launch import Engine, Failed, Ready, ReplicaSpec, read_event
from pilotage.endpoints.rules import STEADY_S, deployment_of, next_pause_s
from pilotage.endpoints.types import ReplicaState, ReplicaStatus
from pilotage.gateway.targets import ReplicaTarget, Targets, TargetsFile
from pilotage.kit.clock import Clock
from pilotage.kit.config import child_environment
from pilotage.kit.process import end
from pilotage.kit.resources import Background
from pilotage.runtime.handover import log_path
from pilotage.runtime.logfile import open_log

_LOG = logging.getLogger("pilotage.fleet")
REWRITE_S = 1.0


class LocalFleet:
    """Keeps one task for each desired replica; says what it sees after every change."""

    def __init__(
        self,
        *,
        engine: Engine,
        targets: TargetsFile,
        logs: Path,
        clock: Clock,
        background: Background,
        start_timeout_s: float,
        grace_s: float,
        is_spot: bool,
    ) -> None:
        self._engine = engine
        self._targets_file = targets
        self._logs = logs
        self._clock = clock
        self._background = background
        self._start_timeout_s = start_timeout_s
        self._grace_s = grace_s
        self._is_spot = is_spot
        self._specs: dict[str, ReplicaSpec] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._targets: dict[str, ReplicaTarget] = {}
        self._statuses: dict[str, ReplicaStatus] = {}
        self._rewriting: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None
        targets.write(Targets())

    def apply(self, desired: Sequence[ReplicaSpec]) -> None:
        """Start what is new or different, stop what is no longer wanted."""
        wanted = {spec.replica_id: spec for spec in desired}
        for replica_id in [
            known for known, spec in self._specs.items() if wanted.get(known) != spec
        ]:
            self._stop(replica_id)
        for replica_id, spec in wanted.items():
            if replica_id not in self._specs:
                self._specs[replica_id] = spec
                self._tasks[replica_id] = self._background.start(
                    self._keep(spec), f"replica {replica_id}"
                )

    def hurry(self) -> None:
        """Stop replicas without waiting for their calls: nobody is left who makes any."""
        self._grace_s = 0.0

    def list_statuses(self) -> list[ReplicaStatus]:
        """Return what is seen of every replica."""
        return list(self._statuses.values())

    def _stop(self, replica_id: str) -> None:
        del self._specs[replica_id]
        self._tasks.pop(replica_id).cancel()

    async def _keep(self, spec: ReplicaSpec) -> None:
        """Run a replica for as long as it is wanted, again after every crash."""
        crashes = 0
        try:
            while True:
                self._see(spec, ReplicaState.STARTING, restarts=crashes)
                started_s = self._clock.monotonic_s()
                try:
                    detail = await self._run_once(spec, crashes)
                except OSError as failed:  # no process, file or space to be had: try again later
                    detail = f"it cannot be started: {failed}"
                if self._clock.monotonic_s() - started_s > STEADY_S:
                    crashes = 0
                crashes += 1
                self._see(spec, ReplicaState.FAILED, detail, crashes)
                _LOG.warning(
                    "replica ended: %s",
                    detail,
                    extra={"replica": spec.replica_id, "count": crashes},
                )
                await asyncio.sleep(next_pause_s(crashes))
        finally:
            self._forget(spec)

    async def _run_once(self, spec: ReplicaSpec, crashes: int) -> str:
        """Start a replica, publish where it listens, and return why it ended."""
        key = secrets.token_urlsafe(32)
        launch = self._engine.prepare(spec, key)
        with open_log(log_path(self._logs, f"engine-{deployment_of(spec.replica_id)}")) as log:
            child = await asyncio.create_subprocess_exec(
                *launch.argv,
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env=child_environment(**launch.environment),
                start_new_session=True,
            )
        try:
            event = await self._hear(child, launch.config)
            if event is None or isinstance(event, Failed):
                return (
                    event.reason
                    if event
                    else f"it did not start within {self._start_timeout_s:g} s"
                )
            self._publish(
                ReplicaTarget(
                    id=spec.replica_id,
                    deployment_id=deployment_of(spec.replica_id),
                    host=event.host,
                    port=event.port,
                    key=key,
                )
            )
            self._see(spec, ReplicaState.READY, restarts=crashes, pid=child.pid)
            return f"it ended with code {await child.wait()}"
        except asyncio.CancelledError:
            self._retract(spec)
            self._see(spec, ReplicaState.STOPPING)
            await self._let_finish(child)
            raise
        finally:
            self._retract(spec)
            await end(child)

    async def _hear(self, child: Process, config: bytes) -> Ready | Failed | None:
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("the child has no pipes")
        child.stdin.write(config)
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await child.stdin.drain()
                child.stdin.close()
                line = await child.stdout.readline()
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            return None
        try:
            return read_event(line)
        except ValueError:
            return Failed(reason="it ended without a word; see its log")

    async def _let_finish(self, child: Process) -> None:
        """Give calls that still run on a removed replica their time."""
        try:
            async with asyncio.timeout(self._grace_s):
                await child.wait()
        except TimeoutError:
            return

    def _publish(self, target: ReplicaTarget) -> None:
        self._targets[target.id] = target
        self._write_targets()

    def _retract(self, spec: ReplicaSpec) -> None:
        if self._targets.pop(spec.replica_id, None) is not None:
            self._write_targets()

    def _write_targets(self) -> None:
        if not self._can_write_targets() and self._rewriting is None:
            self._rewriting = self._background.start(self._rewrite_targets(), "targets")

    def _can_write_targets(self) -> bool:
        try:
            self._targets_file.write(Targets(replicas=list(self._targets.values())))
        except OSError as failed:  # a full disk: gateways see the old targets until there is space
            if self._rewriting is None:
                _LOG.error("the Targets file cannot be written: %s", failed)
            return False
        return True

    async def _rewrite_targets(self) -> None:
        """Try again until the file says what is true."""
        while True:
            await asyncio.sleep(REWRITE_S)
            if self._can_write_targets():
                break
        self._rewriting = None

    def _see(
        self,
        spec: ReplicaSpec,
        state: ReplicaState,
        detail: str = "",
        restarts: int = 0,
        pid: int = 0,
    ) -> None:
        seen = ReplicaStatus(
            replica_id=spec.replica_id,
            deployment_id=deployment_of(spec.replica_id),
            state=state,
            detail=detail,
            restarts=restarts,
            pid=pid,
            is_spot=self._is_spot,
        )
        self._statuses[spec.replica_id] = seen
        self.on_change()

    def _forget(self, spec: ReplicaSpec) -> None:
        if spec.replica_id not in self._specs:
            self._statuses.pop(spec.replica_id, None)
            self.on_change()
