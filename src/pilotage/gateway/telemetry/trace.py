"""Trace contexts: the W3C ``traceparent`` header, read strictly and made anew.

Format: https://www.w3.org/TR/trace-context/ (version 00: ``00-TRACEID-SPANID-FLAGS``, in hex).
"""

import random
import re
from typing import NamedTuple

_HEADER = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED = 1
_DICE = random.SystemRandom()


class Context(NamedTuple):
    """Where a call stands in a trace; ``parent_id`` is "" where the trace begins here."""

    trace_id: str
    span_id: str
    parent_id: str
    is_sampled: bool

    @property
    def header(self) -> str:
        """The ``traceparent`` that continues the trace below this span."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


class Contexts:
    """Makes contexts from a fast source of numbers, seeded once from the system's."""

    def __init__(self, seed: int | None = None) -> None:
        self._numbers = random.Random(_DICE.getrandbits(256) if seed is None else seed)  # noqa: S311

    def begin(self, header: str, share: float) -> Context:
        """Return the context of a call: below the client's, or new if it sent none that is valid.

        A client that samples is followed; otherwise ``share`` of all traces (0 to 1) is sampled, by
        the trace's id, so that all who see the trace decide alike.
        """
        span_id = self.make_span_id()
        found = _read(header)
        if found is not None:
            trace_id, parent_id = found[2], found[3]
            if int(found[4], 16) & _SAMPLED:
                return Context(trace_id, span_id, parent_id, is_sampled=True)
        else:
            trace_id, parent_id = f"{self._numbers.getrandbits(128) or 1:032x}", ""
        is_sampled = int(trace_id[18:], 16) < share * (1 << 56)
        return Context(trace_id, span_id, parent_id, is_sampled)

    def make_span_id(self) -> str:
        """Return the id of a new span."""
        return f"{self._numbers.getrandbits(64) or 1:016x}"


def pass_on(header: str) -> tuple[str, str]:
    """Return the trace's id and the ``traceparent`` to send on where no span is made; "" for none.

    A later version is said as far as it is known, as version 00.
    """
    found = _read(header)
    if found is None:
        return "", ""
    return found[2], f"00-{found[2]}-{found[3]}-{found[4]}"


def _read(header: str) -> re.Match[str] | None:
    """Return what a header says, None if it is not valid.

    Ids are not all zero, and a header of version 00 ends where it should.
    """
    found = _HEADER.fullmatch(header) if header else None
    if found is None or found[2] == _NO_TRACE or found[3] == _NO_SPAN:
        return None
    return None if found[1] == "00" and found[5] else found
