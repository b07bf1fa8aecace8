"""How a replica is started: what an engine is given and what it asks to be run.

An engine is a child process that reads its configuration from stdin, loads one model, listens on
a free port of 127.0.0.1 and then writes one line of JSON to stdout: a :class:`Ready` or a
:class:`Failed`. It speaks the OpenAI wire and answers only to its key. Engines import this module,
so it imports little: whatever they load makes a sleeping model wake up later.
"""

from typing import Protocol

import msgspec


class AdapterFile(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA adapter that an engine loads with its model; ``name`` is the SHA-256 of the file."""

    name: str
    path: str


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: the file it serves, under which name, and how much of the machine it gets.

    ``context_tokens`` is the context of each of the ``slots``, the calls answered at once.
    ``memory_bytes`` is the most that it may hold and ``cpu_cores`` how many it may use; 0: all.
    ``adapters`` may be put on the model, one for a call, and are numbered as they stand here.
    """

    replica_id: str
    artifact_path: str
    alias: str
    threads: int
    slots: int
    context_tokens: int
    memory_bytes: int = 0
    cpu_cores: int = 0
    engine: str = "llamacpp"
    adapters: tuple[AdapterFile, ...] = ()


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A command to run: ``environment`` is added to the runner's own, ``config`` goes to stdin.

    ``start_timeout_s`` is how long it may take to be ready; None: what the runner gives everybody.
    Secrets are in ``config`` alone: arguments and environment can be read by others.
    """

    argv: list[str]
    environment: dict[str, str]
    config: bytes
    start_timeout_s: float | None = None


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="ready"):
    """The engine listens; ``context_tokens`` is what each slot really has."""

    host: str
    port: int
    context_tokens: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="failed"):
    """The engine could not start and has ended."""

    reason: str


def read_event(line: bytes) -> Ready | Failed:
    """Read the line an engine writes; raise ValueError if it is none."""
    return msgspec.json.decode(line, type=Ready | Failed)


class Launcher(Protocol):
    """Whoever knows how replicas are started."""

    def prepare(self, spec: ReplicaSpec, key: str) -> Launch:
        """Return the command that serves a replica; call it in the process that will run it.

        Raises OSError if there is none.
        """
        ...


class Engine(Launcher, Protocol):
    """A way to serve model files."""

    @property
    def name(self) -> str:
        """The name under which it is chosen."""
        ...

    def check(self) -> str | None:
        """Return None if the engine can run here, else what is missing and how to mend it."""
        ...
