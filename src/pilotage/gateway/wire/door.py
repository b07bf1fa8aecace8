"""What every wire that clients speak has in common: a request, and how its errors look."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from pilotage.core.errors import PilotageError


class WireRequest(Protocol):
    """What the gateway reads of a request, whatever wire it came by."""

    model: str
    stream: bool | None

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        ...

    @property
    def user(self) -> str:
        """On whose behalf the client says it calls, "" if it does not say."""
        ...

    def limit_output(self, ceiling: int) -> int:
        """Return the most tokens of each answer: the least of the client's limits and ours."""
        ...

    def bound_input(self, body: bytes) -> int:
        """Return more tokens than the prompt can have."""
        ...


class Wire(NamedTuple):
    """One wire: its name in frames, how requests are read and how errors are written.

    ``decode_request`` raises ``invalid_json`` or ``invalid_request``; ``encode_error`` returns the
    body of an error reply, ``encode_stream_error`` what ends a stream that broke.
    """

    name: str
    decode_request: Callable[[bytes], WireRequest]
    encode_error: Callable[[PilotageError], bytes]
    encode_stream_error: Callable[[PilotageError], bytes]
