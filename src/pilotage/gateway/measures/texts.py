"""The words of a request and of its answer, whatever wire they came by.

Only what people and models say is read: not tools, not reasoning, not images. What cannot be read
has no words; nothing here raises.
"""

from typing import Any, NamedTuple

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.gateway.wire.sse import EventSplitter

_SAYING = ("choices", "message", "output", "content", "text", "refusal", "input", "prompt")
_BEFORE = ("system", "instructions")  # what comes before the turns
_JSON_FORMS = ("json_object", "json_schema")
_DELTAS = ("response.output_text.delta", "response.refusal.delta")


UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, LookupError, RecursionError)
"""What may go wrong with texts that somebody else has written."""


class Prompt(NamedTuple):
    """Everything that a model was told, and what was asked last."""

    whole: list[str]
    last: str


def read_prompt(body: bytes) -> Prompt:
    """Return the words of a request."""
    said = _decode(body)
    if not isinstance(said, dict):
        return Prompt([], "")
    turns = said.get("messages") or said.get("input") or said.get("prompt")
    whole = [text for name in _BEFORE for text in _list_texts(said.get(name))]
    last = ""
    for turn in turns if isinstance(turns, list) else [turns]:
        texts = _list_texts(turn)
        whole += texts
        if texts and not (isinstance(turn, dict) and turn.get("role", "user") != "user"):
            last = texts[-1]
    return Prompt(whole, last)


def wants_json(body: bytes) -> bool:
    """Say whether a request asks for an answer in JSON."""
    said = _decode(body)
    if not isinstance(said, dict):
        return False
    text = said.get("text")  # of the responses wire
    form = said.get("response_format") or (text.get("format") if isinstance(text, dict) else None)
    return isinstance(form, dict) and form.get("type") in _JSON_FORMS


def read_answer(body: bytes, *, is_stream: bool) -> str:
    """Return the words of an answer; of several the first one's."""
    if is_stream:
        return "".join(map(_read_event, _split(body)))
    said = _decode(body)
    if isinstance(said, dict) and isinstance(said.get("choices"), list):
        said = said["choices"][:1]
    return "".join(_list_texts(said))


def _list_texts(said: Any) -> list[str]:  # noqa: ANN401 - whatever JSON a client sends
    """Return the words in order, however deep they are; each value is looked at once."""
    texts: list[str] = []
    waiting = [said]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, list):
            waiting.extend(reversed(part))
        elif isinstance(part, dict):
            waiting.extend(part[name] for name in reversed(_SAYING) if name in part)
    return texts


def _read_event(data: bytes) -> str:
    said = _decode(data)
    if not isinstance(said, dict):
        return ""
    delta = said.get("delta")
    if said.get("type") in _DELTAS:
        return delta if isinstance(delta, str) else ""
    if said.get("type") == "content_block_delta" and isinstance(delta, dict):
        return "".join(_list_texts(delta.get("text")))
    choices = said.get("choices")
    if not isinstance(choices, list):
        return ""
    first = [one for one in choices if isinstance(one, dict) and not one.get("index")]
    return "".join(_list_texts([one.get("delta", one) for one in first]))


def _split(body: bytes) -> list[bytes]:
    try:
        return EventSplitter().feed(body)
    except PilotageError:
        return []


def _decode(body: bytes) -> Any:  # noqa: ANN401
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
