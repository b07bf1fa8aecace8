"""What requests bring: how long it may take and be, and which texts can be stored."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from fastapi import Request
from pydantic import BaseModel, SecretStr

from pilotage.core.errors import PilotageError

MAX_JSON_BYTES = 1 << 20
MAX_DEPTH = 64
JSON_WITHIN_S = 30.0  # a whole body of JSON
NEXT_WITHIN_S = 30.0  # the next part of a body of any length
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


async def read_json(request: Request) -> Request:
    """Read a body that is not longer than JSON may be."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(JSON_WITHIN_S):
            async for part in request.stream():
                size += len(part)
                if size > MAX_JSON_BYTES:
                    raise PilotageError(
                        "request_too_large", f"A JSON body may have {MAX_JSON_BYTES} bytes at most."
                    )
                parts.append(part)
    except TimeoutError:
        raise PilotageError(
            "request_timeout", f"A JSON body must be here within {JSON_WITHIN_S:g} s."
        ) from None

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"".join(parts), "more_body": False}

    return Request(request.scope, receive)


async def stream_body(request: Request) -> AsyncIterator[bytes]:
    """Stream a raw body, however long it is, as long as it goes on coming."""
    parts = request.stream()
    while True:
        try:
            async with asyncio.timeout(NEXT_WITHIN_S):
                part = await anext(parts, None)
        except TimeoutError:
            raise PilotageError(
                "request_timeout", f"Nothing of the body has come for {NEXT_WITHIN_S:g} s."
            ) from None
        if part is None:
            return
        yield part


def check_text(value: object, place: str, depth: int = 0) -> None:
    """Raise ``invalid_request`` for what no database stores: NUL letters and halves of letters.

    What is nested too deep to be written again is refused as well.
    """
    if depth > MAX_DEPTH:
        raise _refuse(place, f"is nested deeper than {MAX_DEPTH} times")
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise _refuse(place, "has a letter that cannot be stored")
        return
    inside: Iterable[tuple[object, object]] = ()
    if isinstance(value, BaseModel | Mapping):
        inside = dict(value).items()
    elif isinstance(value, list | tuple | set | frozenset):
        inside = enumerate(value)
    for name, item in inside:
        check_text(name, place, depth + 1)
        check_text(item, f"{place}.{name}".strip("."), depth + 1)


def _refuse(place: str, why: str) -> PilotageError:
    shown = place[:200].encode("ascii", "backslashreplace").decode()
    return PilotageError("invalid_request", f"{shown} {why}.", param=shown)
