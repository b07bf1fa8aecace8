"""What the engine's child process is told over stdin."""

from typing import Annotated, Self

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1)]


class ChildConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One replica, its secret key and the process it must not outlive."""

    replica_id: str
    artifact_path: str
    alias: Annotated[str, msgspec.Meta(min_length=1)]
    threads: _Count
    slots: _Count
    context_tokens: _Count
    # without a key llama.cpp would answer anybody on the machine
    key: Annotated[str, msgspec.Meta(min_length=16)]
    parent_pid: int
    adapter_paths: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return one line of JSON."""
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read one line of JSON; raise ValueError if it is not a whole configuration."""
        return msgspec.json.decode(line, type=cls)
