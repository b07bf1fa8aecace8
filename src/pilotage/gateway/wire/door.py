"""What every wire that clients speak has in common: a request, and how its errors look."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.prompts import Filled, ReadyPrompt

ABSENT = msgspec.Raw()  # stands for a member that is not there; a Raw cannot be None
BROKEN_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NULL = msgspec.Raw(b"null")
_MISSING = "Object missing required field `"
_UNKNOWN = ("Object contains unknown field `", "Invalid value '", "Expected `null`, got")
_Read = TypeVar("_Read")


class _Metadata(msgspec.Struct):
    session_id: str = ""


_METADATA = msgspec.json.Decoder(_Metadata)


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

    @property
    def session(self) -> str:
        """Which conversation the client says the request belongs to, "" if it does not say."""
        ...

    @property
    def names_prompt(self) -> bool:
        """Whether its messages, or the first of them, are a prompt's."""
        ...

    def limit_output(self, ceiling: int) -> int:
        """Return the most tokens of each answer: the least of the client's limits and ours."""
        ...

    def bound_input(self, body: bytes) -> int:
        """Return more tokens than the prompt can have."""
        ...


Expand = Callable[[dict[str, msgspec.Raw], ReadyPrompt, Sequence[Filled]], bytes]
"""Writes a request anew: its other members, what a prompt asks for, and the messages it made."""


class Wire(NamedTuple):
    """One wire: its name in frames, how requests are read and how errors are written.

    ``decode_request`` raises ``invalid_json``, ``invalid_request`` or ``unsupported``;
    ``encode_error`` returns the body of an error reply, ``encode_stream_error`` what ends a stream
    that broke. ``id_header`` is a second name under which its clients look for the call's id;
    ``expand`` puts a prompt's messages into a request, where the wire has messages.
    """

    name: str
    decode_request: Callable[[bytes], WireRequest]
    encode_error: Callable[[PilotageError], bytes]
    encode_stream_error: Callable[[PilotageError], bytes]
    id_header: bytes = b""
    expand: Expand | None = None


def read_request(decoder: "msgspec.json.Decoder[_Read]", body: bytes) -> _Read:
    """Decode a request; raise ``invalid_json`` or ``invalid_request``, naming the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as wrong:
        raise explain(str(wrong)) from None
    except BROKEN_JSON as broken:
        raise PilotageError("invalid_json", f"The body is not valid JSON: {broken}.") from None


def read_exactly(decoder: "msgspec.json.Decoder[_Read]", body: bytes, target: str) -> _Read:
    """Decode a request of which every field must be understood, to say it to ``target``.

    Raises ``unsupported`` for a field or a kind that the decoder's types do not have, and
    ``invalid_request`` for a value of the wrong type.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as wrong:
        error = explain(str(wrong))
        if str(wrong).startswith(_UNKNOWN):
            raise refuse(error.param or "", target) from None
        raise error from None


def is_said(member: msgspec.Raw) -> bool:
    """Whether a member of an object is there and not null."""
    return bool(member) and member != _NULL


def read_session(metadata: msgspec.Raw) -> str:
    """Return ``session_id`` of a request's ``metadata``, "" if it has no text there."""
    try:
        return _METADATA.decode(metadata).session_id if metadata else ""
    except BROKEN_JSON:
        return ""


def pick(member: msgspec.Raw) -> msgspec.Raw | None:
    """Return a member of an object, None if it is not there or null."""
    return member if is_said(member) else None


def refuse(param: str, target: str, why: str = "") -> PilotageError:
    """Return the refusal of something that cannot be said on a target's wire."""
    detail = f"{param!r} cannot be said to this model, which speaks the {target} wire."
    return PilotageError("unsupported", detail, hint=why, param=param or None)


def explain(wrong: str) -> PilotageError:
    """Return the error that names the field: ``messages``, ``stream_options.include_usage``."""
    message, _, where = wrong.partition(" - at `$.")
    message, param = message.removesuffix(" - at `$`"), where.rstrip("`")
    for start in (_MISSING, _UNKNOWN[0]):
        if message.startswith(start):
            name = message[len(start) :].rstrip("`")
            param = f"{param}.{name}" if param else name
    return PilotageError("invalid_request", message.replace("`", "'") + ".", param=param or None)


def refuse_other_values(
    request: object, allowed: dict[str, tuple[Any, ...]], target: str = ""
) -> None:
    """Raise ``unsupported`` for a field that has another value than those named for it."""
    for name, values in allowed.items():
        value = getattr(request, name)
        if value is not msgspec.UNSET and value not in values:
            raise refuse(name, target)
