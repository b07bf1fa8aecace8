"""Server-sent events as model servers write them: ``data:`` lines, ended by an empty line."""

from pilotage.core.errors import PilotageError

MAX_EVENT_BYTES = 1 << 20


class EventSplitter:
    """Cut a byte stream into the data of its events, however the stream was cut before."""

    def __init__(self) -> None:
        self._rest = b""
        self._held = b""

    def feed(self, part: bytes) -> list[bytes]:
        """Return the data of every event that is complete now.

        Raises ``upstream_invalid`` for an event that does not end.
        """
        if self._held or b"\r" in part:
            part = self._normalise(part)
        text = self._rest + part if self._rest else part
        *events, self._rest = text.split(b"\n\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise PilotageError("upstream_invalid", "An event of the model's answer does not end.")
        return [data for event in events if (data := _data_of(event))]

    def _normalise(self, part: bytes) -> bytes:
        """Return the part with LF as its only line end; a CR at its end waits for what follows."""
        part = self._held + part
        self._held = b"\r" if part.endswith(b"\r") else b""
        if self._held:
            part = part[:-1]
        return part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def write_event(name: str, data: bytes) -> bytes:
    """Return the bytes of a named event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _data_of(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [
        line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")
    ]
    return b"\n".join(lines)
