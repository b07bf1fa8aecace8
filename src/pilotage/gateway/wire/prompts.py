"""How each wire says what a prompt asks for: its messages, its schema, and parameters.

A prompt's messages come before the client's own. What the client says of parameters and of the
answer's schema counts; the prompt fills in what is left open. What a wire cannot say is refused.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.prompts import Filled, ReadyPrompt
from pilotage.gateway.wire.door import ABSENT, is_said

Fields = dict[str, msgspec.Raw]

_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT_OR_LIST = msgspec.json.Decoder(str | list[msgspec.Raw])
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode
_CHAT_LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME = 64


def expand_chat(fields: Fields, prompt: ReadyPrompt, messages: Sequence[Filled]) -> bytes:
    """Write a chat request."""
    own = _read(fields, "messages", _LIST) or []
    added: dict[str, Any] = {"messages": [*_show(messages), *own]}
    asked = prompt.content.parameters
    if not any(is_said(fields.get(name, ABSENT)) for name in _CHAT_LIMITS):
        added["max_tokens"] = asked.max_tokens
    added |= _open(fields, temperature=asked.temperature, top_p=asked.top_p, stop=asked.stop)
    if prompt.content.response_schema is not None:
        schema = {"name": _name(prompt), "schema": prompt.content.response_schema}
        added |= _open(fields, response_format={"type": "json_schema", "json_schema": schema})
    return _write(fields, added)


def expand_messages(fields: Fields, prompt: ReadyPrompt, messages: Sequence[Filled]) -> bytes:
    """Write a messages request: instructions stand apart from what is said."""
    own = _read(fields, "messages", _LIST) or []
    system = [_block(message.content) for message in messages if message.role == "system"]
    said = [message for message in messages if message.role != "system"]
    added: dict[str, Any] = {"messages": [*_show(said), *own]}
    if system:
        more = _read(fields, "system", _TEXT_OR_LIST) or []
        added["system"] = [*system, *([_block(more)] if isinstance(more, str) else more)]
    asked = prompt.content.parameters
    added |= _open(
        fields,
        temperature=asked.temperature,
        top_p=asked.top_p,
        max_tokens=asked.max_tokens,
        stop_sequences=asked.stop,
    )
    if prompt.content.response_schema is not None:
        form = {"type": "json_schema", "schema": prompt.content.response_schema}
        added |= _open_within(fields, "output_config", "format", form)
    return _write(fields, added)


def expand_responses(fields: Fields, prompt: ReadyPrompt, messages: Sequence[Filled]) -> bytes:
    """Write a responses request."""
    own = _read(fields, "input", _TEXT_OR_LIST) or []
    asked = prompt.content.parameters
    if asked.stop:
        raise PilotageError(
            "unsupported",
            f"The prompt {prompt.ref} has stop sequences, which this wire cannot say.",
            hint="Call it on /v1/chat/completions or /v1/messages.",
            param="prompt",
        )
    more = _show([Filled("user", own)]) if isinstance(own, str) else own
    added: dict[str, Any] = {"input": [*_show(messages), *more]}
    added |= _open(
        fields,
        temperature=asked.temperature,
        top_p=asked.top_p,
        max_output_tokens=asked.max_tokens,
    )
    if prompt.content.response_schema is not None:
        schema = prompt.content.response_schema
        form = {"type": "json_schema", "name": _name(prompt), "schema": schema}
        added |= _open_within(fields, "text", "format", form)
    return _write(fields, added)


def _read(fields: Fields, name: str, decoder: "msgspec.json.Decoder[Any]") -> Any:  # noqa: ANN401
    """Return a member, None if it is not there; raise ``invalid_request`` if it is another kind."""
    member = fields.get(name, ABSENT)
    if not is_said(member):
        return None
    try:
        return decoder.decode(member)
    except msgspec.DecodeError as wrong:
        detail = f"{name!r}: {str(wrong).replace('`', chr(39))}."
        raise PilotageError("invalid_request", detail, param=name) from None


def _open(fields: Fields, **wanted: object) -> dict[str, object]:
    """Return what a prompt asks for and the client leaves open."""
    return {
        name: value
        for name, value in wanted.items()
        if value not in (None, []) and not is_said(fields.get(name, ABSENT))
    }


def _open_within(fields: Fields, name: str, inner: str, value: object) -> dict[str, object]:
    """Return a member with one more member in it, nothing if the client says that one."""
    own: Fields = _read(fields, name, _OBJECT) or {}
    return {} if is_said(own.get(inner, ABSENT)) else {name: {**own, inner: value}}


def _show(messages: Sequence[Filled]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in messages]


def _block(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _name(prompt: ReadyPrompt) -> str:
    """Return a name for the schema of a prompt's answers, as OpenAI's wire wants it."""
    return _NO_NAME.sub("_", prompt.ref.partition("@")[0])[:_LONGEST_NAME]


def _write(fields: Fields, added: Mapping[str, object]) -> bytes:
    given = {name: value for name, value in added.items() if value is not None}
    return _ENCODE({**fields, **given})
