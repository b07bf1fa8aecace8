"""Where backends are tried: whoever runs replicas, engines that do as told, and calls to them.

The suite of ``tests/contract/test_backend.py`` sees an :class:`Arena` and nothing of how replicas
are run. Another backend passes it with an arena of its own.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.launch import Launch, ReplicaSpec
from pilotage.endpoints.ports import Fleet
from pilotage.endpoints.types import Load, ReplicaState, ReplicaStatus, Scaling
from pilotage.gateway.demand import Demand, DemandFile, DeploymentDemand
from pilotage.gateway.targets import ReplicaTarget, TargetsFile
from pilotage.kit.clock import SystemClock
from pilotage.kit.resources import Background
from pilotage.kit.spool import open_spool
from pilotage.runtime.fleet import LocalFleet

PATIENCE_S = 20.0
LOOK_S = 0.01
CLOCK = SystemClock()
_SLOT = "gateway-0"
_ENGINE = """
import json, socket, sys, threading
told = json.loads(sys.stdin.readline())
what = open(told["file"]).read()
if what == "crash":
    sys.exit(3)
held = bytearray(int(what[4:]) << 20) if what.startswith("eat ") else b""
door = socket.create_server(("127.0.0.1", 0))
print(json.dumps({"event": "ready", "host": "127.0.0.1", "port": door.getsockname()[1],
                  "context_tokens": told["slots"]}), flush=True)
def answer(line):
    with line:
        line.sendall(told["name"].encode() + b"\\n")
        line.recv(1)
        line.sendall(b"done\\n")
while True:
    threading.Thread(target=answer, args=door.accept()[:1], daemon=True).start()
"""


class OpenCall(Protocol):
    """A call that a replica has taken and not answered yet."""

    replica_id: str

    async def finish(self) -> bool:
        """Have it answered; say whether it was."""
        ...


class Arena(Protocol):
    """A backend, and what one does to it from outside."""

    fleet: Fleet

    def make_group(self, name: str, scaling: Scaling, *, does: str = "") -> ReplicaGroup:
        """Return a deployment of an engine that works, or does ``crash`` or ``eat MIB``."""
        ...

    def mend(self, name: str) -> None:
        """Have the engine of a deployment work from its next start on."""
        ...

    async def begin_call(self, deployment_id: str) -> OpenCall:
        """Call a deployment, as a gateway does: wait until there is a replica to take the call."""
        ...

    async def crash(self, status: ReplicaStatus) -> None:
        """Kill a replica from outside."""
        ...


class ScriptEngine:
    """Starts a few lines of Python that take calls and answer when told."""

    name = "script"

    def prepare(self, spec: ReplicaSpec, key: str) -> Launch:
        """Return the command."""
        del key
        told = {"file": spec.artifact_path, "slots": spec.slots, "name": spec.replica_id}
        config = json.dumps(told).encode() + b"\n"
        argv = [sys.executable, "-I", "-S", "-c", _ENGINE]
        return Launch(argv=argv, environment={}, config=config)

    def check(self) -> str | None:
        """Say that it can run."""
        return None


class LocalCall:
    """A call over a socket of this machine."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, end: Callable[[], None]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._end = end
        self.replica_id = ""

    async def hear(self) -> None:
        """Learn who has taken the call."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                self.replica_id = (await self._reader.readline()).decode().strip()
        except BaseException:
            self._writer.close()
            raise

    async def finish(self) -> bool:
        """Have it answered; say whether it was."""
        try:
            self._writer.write(b".")
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._reader.readline()
        except ConnectionError:
            answer = b""
        finally:
            self._writer.close()
        self._end()
        return answer == b"done\n"


class LocalArena:
    """The replicas of this machine, and a gateway that writes what it asks of them."""

    def __init__(self, path: Path, fleet: LocalFleet, targets: TargetsFile) -> None:
        self._path = path
        self._local = fleet
        self._targets = targets
        self._file = DemandFile(targets.folder, _SLOT)
        self._open: list[tuple[str, str]] = []  # deployment and replica of each call
        self._waiting: dict[str, int] = {}
        self._calls: dict[str, int] = {}
        self.fleet: Fleet = _AtOnce(fleet)

    def make_group(self, name: str, scaling: Scaling, *, does: str = "") -> ReplicaGroup:
        """Return a deployment whose engine reads what it does from a file."""
        (self._path / name).write_text(does)
        replica = ReplicaSpec(
            replica_id=name,
            artifact_path=str(self._path / name),
            alias="chat",
            threads=1,
            slots=scaling.slots or 1,
            context_tokens=64,
            memory_bytes=scaling.memory_bytes,
            cpu_cores=scaling.cpu_cores,
        )
        return ReplicaGroup(deployment_id=name, replica=replica, scaling=scaling)

    def mend(self, name: str) -> None:
        """Let the file say that there is nothing to do but work."""
        (self._path / name).write_text("")

    async def begin_call(self, deployment_id: str) -> OpenCall:
        """Wait for a replica, take the least busy one, say so."""
        self._waiting[deployment_id] = self._waiting.get(deployment_id, 0) + 1
        self._calls[deployment_id] = self._calls.get(deployment_id, 0) + 1
        self.tell()
        try:
            async with asyncio.timeout(PATIENCE_S):
                target = await self._find_target(deployment_id)
        finally:
            self._waiting[deployment_id] -= 1
        entry = (deployment_id, target.id)
        self._open.append(entry)
        self.tell()

        def end() -> None:
            self._open.remove(entry)
            self.tell()

        call = LocalCall(*await asyncio.open_connection(target.host, target.port), end)
        await call.hear()
        return call

    async def crash(self, status: ReplicaStatus) -> None:
        """Kill its process."""
        os.kill(status.pid, signal.SIGKILL)

    def tell(self) -> None:
        """Write what is asked, as a gateway would."""
        busy = [deployment_id for deployment_id, _ in self._open]
        replicas = [replica_id for _, replica_id in self._open]
        self._file.write(
            Demand(
                at_us=CLOCK.now_us(),
                targets_n=self._targets.read().n,
                deployments={
                    key: DeploymentDemand(
                        in_flight=busy.count(key), waiting=self._waiting[key], calls=calls
                    )
                    for key, calls in self._calls.items()
                },
                replicas={key: replicas.count(key) for key in set(replicas)},
            )
        )

    async def keep_telling(self) -> None:
        """Say it again, and which Targets are known, until cancelled."""
        while True:
            self.tell()
            await asyncio.sleep(LOOK_S)

    async def _find_target(self, deployment_id: str) -> ReplicaTarget:
        while True:
            found = [
                target
                for target in self._targets.read().replicas
                if target.deployment_id == deployment_id
            ]
            if found:
                busy = [replica_id for _, replica_id in self._open]
                return min(found, key=lambda target: busy.count(target.id))
            await asyncio.sleep(LOOK_S)


class _AtOnce:
    """The port of a fleet that is in this process."""

    is_present = True
    has_reported = True

    def __init__(self, fleet: LocalFleet) -> None:
        self._fleet = fleet

    async def set_desired(self, groups: Sequence[ReplicaGroup]) -> None:
        """Have them run, as they are when they have been written and read."""
        self._fleet.apply(msgspec.json.decode(msgspec.json.encode(groups), type=list[ReplicaGroup]))

    def list_statuses(self) -> list[ReplicaStatus]:
        """Return what is seen."""
        return self._fleet.list_statuses()

    def list_loads(self) -> list[Load]:
        """Return what is asked."""
        return self._fleet.list_loads()


@asynccontextmanager
async def open_local_arena(path: Path) -> AsyncIterator[Arena]:
    """Open a fleet of script engines in a folder."""
    (path / "run").mkdir()
    targets = TargetsFile(path / "run" / "targets.json")
    spool = open_spool(
        path / "spool" / _SLOT, segment_bytes=1 << 20, reserve_bytes=16 << 10, sync="none"
    )
    try:
        async with Background() as background:
            fleet = LocalFleet(
                engine=ScriptEngine(),
                targets=targets,
                spools=path / "spool",
                logs=path,
                clock=CLOCK,
                background=background,
                start_timeout_s=PATIENCE_S,
                grace_s=PATIENCE_S,
                is_spot=False,
            )
            arena = LocalArena(path, fleet, TargetsFile(path / "run" / "targets.json"))
            background.start(fleet.run(), "fleet")
            background.start(arena.keep_telling(), "gateway")
            yield arena
            fleet.hurry()
    finally:
        spool.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something holds; fail with its name if it does not in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_S
    while not condition():
        assert loop.time() < end, f"{what} did not come about"
        await asyncio.sleep(LOOK_S)


def list_ready(arena: Arena, deployment_id: str) -> list[ReplicaStatus]:
    """Return the replicas of a deployment that are ready."""
    return [
        status
        for status in arena.fleet.list_statuses()
        if deployment_id in status.serves and status.state is ReplicaState.READY
    ]
