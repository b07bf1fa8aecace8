"""Where replicas listen: the Targets file that the supervisor replaces atomically (0600).

It carries no truth: addresses and per-start keys only. A deployment that is not in it has no
replica that is ready, and calls may wait for one only where ``can_wake`` names it.
"""

from pathlib import Path

import msgspec

from pilotage.kit.files import write_private


class ReplicaTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that is ready: where it listens and the key of this start of it.

    ``ready_at_us`` is when it became ready; 0: nobody knows. ``adapters`` are what it can put
    on its base model, in the order of the numbers that its engine knows them by; ``slots`` how many
    calls it answers at once, 0: nobody knows. A replica that several deployments share is there
    once for each.
    """

    id: str
    deployment_id: str
    host: str
    port: int
    key: str
    ready_at_us: int = 0
    adapters: tuple[str, ...] = ()
    slots: int = 0


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas that are ready now, and the deployments that can have one if they need it.

    ``can_wake`` lacks those whose replicas crash in a loop, and those that nobody runs here. None:
    who runs replicas has not heard of any deployment so far, so it may yet be any. ``n`` counts the
    files up, so that a gateway can say which one it goes by.
    """

    replicas: list[ReplicaTarget] = []
    can_wake: list[str] | None = []
    n: int = 0


class TargetsFile:
    """The file, as the supervisor writes it and gateways read it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = (0, 0, 0)

    @property
    def folder(self) -> Path:
        """Where it lies, beside what gateways say of their calls."""
        return self._path.parent

    def write(self, targets: Targets) -> None:
        """Replace the file."""
        write_private(self._path, msgspec.json.encode(targets), is_durable=False)

    def has_changed(self) -> bool:
        """Say whether the file was replaced since the last :meth:`read`."""
        return self._read_stamp() != self._stamp

    def read(self) -> Targets:
        """Return what the file says; nothing is ready where there is none."""
        self._stamp = self._read_stamp()
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Targets)
        except FileNotFoundError:
            return Targets()
        except (OSError, msgspec.DecodeError) as broken:
            raise ValueError(f"the Targets file cannot be read: {broken}") from broken

    def _read_stamp(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_ino, found.st_size)
