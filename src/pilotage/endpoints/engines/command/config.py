"""What the child process of a command is told over stdin."""

from typing import Annotated, Self

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1)]


class ChildConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command whose words are not filled in yet, and what there is to fill in.

    ``config_text`` goes to a private file at ``config_path``, if it is not empty; the ``port`` is
    for the child to find.
    """

    argv: Annotated[list[str], msgspec.Meta(min_length=1)]
    environment: dict[str, str]
    config_text: str
    config_path: str
    ready_path: str
    model: str
    name: str
    threads: _Count
    slots: _Count
    context_tokens: _Count
    key: Annotated[str, msgspec.Meta(min_length=16)]
    parent_pid: int

    def encode(self) -> bytes:
        """Return one line of JSON."""
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read one line of JSON; raise ValueError if it is not a whole configuration."""
        return msgspec.json.decode(line, type=cls)
