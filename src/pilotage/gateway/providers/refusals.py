"""Read error replies of model servers: whatever is there of a message, codes, quotas and waits.

Known shapes: OpenAI and Azure (``error.message/type/code/param``), Anthropic
(``error.type/message``), Google (``error.code/status/details``, sometimes in a list), vLLM (the
same fields without ``error``), FastAPI (``detail``), Hugging Face (``error`` a text,
``estimated_time``). What is not JSON says nothing.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

MAX_MESSAGE = 500
_MAX_BODY = 1024 * 1024
_MAX_CODE = 100

_NUMBER = re.compile(r"[0-9]{1,400}(?:\.[0-9]{0,20})?")
_DELAY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
_TRY_AGAIN = re.compile(
    r"try again in (?:([0-9]{1,4})h)?(?:([0-9]{1,4})m(?!s))?(?:([0-9]{1,6}(?:\.[0-9]{1,9})?)s)?"
    r"(?:([0-9]{1,9})ms)?",
    re.IGNORECASE,
)
_QUOTA_IN_TEXT = re.compile(
    r"quota exceeded for (?:quota metric '[^']{1,200}' and limit '([^']{1,200})'"
    r"|([A-Za-z0-9.-]{1,100}/[A-Za-z0-9_./-]{1,150}))"
    r"|reached for .{1,150}? on ((?:[a-z]+ ){0,2}(?:requests|tokens) per [a-z]+)",
    re.IGNORECASE,
)
_QUOTA_NAME = re.compile(r"[A-Za-z0-9_./: -]{1,200}")


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What an error reply says.

    ``message`` is in the upstream's words, cut; ``text`` the same in lower case; ``codes`` every
    type, code, status and reason in lower case; ``limits`` what says which limit it was; ``quota``
    its name as an addition to a sentence, "" if none is named; ``wait_s`` how long to wait.
    """

    message: str = ""
    text: str = ""
    codes: frozenset[str] = frozenset()
    param: str | None = None
    limits: str = ""
    quota: str = ""
    wait_s: float | None = None


def read_refusal(headers: Sequence[tuple[bytes, bytes]], body: bytes, now_us: int = 0) -> Refusal:
    """Read an error reply; what cannot be read is left out."""
    top = _decode(body)
    error = _dict(top.get("error")) or top
    whole = _read_message(top, error)
    details = [_dict(each) for each in _list(error.get("details"))]
    inner = _dict(error.get("innererror"))
    codes = [error.get(key) for key in ("type", "code", "status", "reason")]
    codes += [inner.get("code"), *(each.get("reason") for each in details)]
    names = list(_find_quotas(details))
    named = _QUOTA_IN_TEXT.search(whole)
    if named and not names:
        names = [named[1] or named[2] or named[3]]
    quota = next((name for name in names if _QUOTA_NAME.fullmatch(name)), "").rstrip(" .")
    param = error.get("param")
    return Refusal(
        message=_cut(whole),
        text=whole[:4000].lower(),
        codes=frozenset(c.lower() for c in codes if isinstance(c, str) and len(c) < _MAX_CODE),
        param=param if isinstance(param, str) and len(param) < _MAX_CODE else None,
        limits=" ".join([*names, whole[:4000]]),
        quota=f": {quota}" if quota else "",
        wait_s=_read_wait(headers, top, details, whole, now_us),
    )


def _decode(body: bytes) -> dict[str, Any]:
    if not body or len(body) > _MAX_BODY:
        return {}
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return _dict(found[0] if isinstance(found, list) and found else found)


def _read_message(top: dict[str, Any], error: dict[str, Any]) -> str:
    for found in (error.get("message"), top.get("error"), top.get("message"), top.get("detail")):
        if isinstance(found, str):
            return found
    problems = []
    for problem in map(_dict, _list(top.get("detail"))):  # without "input", which is the client's
        place = ".".join(str(step) for step in _list(problem.get("loc"))[1:])
        problems.append(f"{place}: {problem.get('msg', '')}")
    return "; ".join(problems)


def _find_quotas(details: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the names of quotas in Google's error details."""
    for detail in details:
        for violation in map(_dict, _list(detail.get("violations"))):
            for key in ("quotaId", "quotaMetric", "subject"):
                if isinstance(violation.get(key), str):
                    yield violation[key]
        metadata = _dict(detail.get("metadata"))
        for key in ("quota_limit", "quota_metric"):
            if isinstance(metadata.get(key), str):
                yield metadata[key]


def _read_wait(
    headers: Sequence[tuple[bytes, bytes]],
    top: dict[str, Any],
    details: Sequence[dict[str, Any]],
    message: str,
    now_us: int,
) -> float | None:
    """Return how long the upstream wants to be left alone, in seconds."""
    lines = {name: value.decode("latin-1").strip() for name, value in headers}
    if _NUMBER.fullmatch(text := lines.get(b"retry-after-ms", "")):
        return float(text) / 1000
    if text := lines.get(b"retry-after", ""):
        found = float(text) if _NUMBER.fullmatch(text) else _until(text, lines, now_us)
        if found is not None:
            return found
    for detail in details:
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and (seconds := _DELAY.fullmatch(delay)):
            return float(seconds[1])
    estimate = top.get("estimated_time")
    if isinstance(estimate, int | float) and 0 <= estimate < 1e9:
        return float(estimate)
    again = _TRY_AGAIN.search(message)
    if again and any(again.groups()):
        hours, minutes, seconds_text, millis = (float(part or 0) for part in again.groups())
        return hours * 3600 + minutes * 60 + seconds_text + millis / 1000
    return None


def _until(text: str, lines: dict[bytes, str], now_us: int) -> float | None:
    """Return the seconds until an HTTP date, by the upstream's own clock if it tells it."""
    at_s, now_s = _date_s(text), _date_s(lines.get(b"date", ""))
    if now_s is None:
        now_s = now_us / 1e6 if now_us else None
    return None if at_s is None or now_s is None else max(at_s - now_s, 0.0)


def _date_s(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _cut(message: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in message[:4000]).split())
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 3] + "..."


def _dict(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []
