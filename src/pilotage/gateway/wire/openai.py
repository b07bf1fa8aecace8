"""The OpenAI wire: what is read of requests and replies, and how errors look.

Bodies pass through as the bytes they came in; only the fields that the gateway decides on are
decoded, and only what it must change (model, output limit, usage request) is rewritten.
"""

from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.usage import Usage

DONE = b"data: [DONE]\n\n"


class StreamOptions(msgspec.Struct):
    """``stream_options`` of a request."""

    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    """The part of a chat request that the gateway reads."""

    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    stream_options: StreamOptions | None | msgspec.UnsetType = msgspec.UNSET
    max_tokens: int | None | msgspec.UnsetType = msgspec.UNSET
    max_completion_tokens: int | None | msgspec.UnsetType = msgspec.UNSET
    n: int | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for the usage chunk of a stream."""
        return isinstance(self.stream_options, StreamOptions) and bool(
            self.stream_options.include_usage
        )


class PromptDetails(msgspec.Struct):
    """``usage.prompt_tokens_details``."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """``usage.completion_tokens_details``."""

    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """``usage`` of a reply: overlapping counts, made disjoint by :func:`normalise_usage`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Completion(msgspec.Struct):
    """The part of a plain reply that the gateway reads."""

    model: str = ""
    usage: WireUsage | None = None


class Delta(msgspec.Struct):
    """What a chunk adds; any of these present and not empty is content."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: msgspec.Raw | None = None
    refusal: str | None = None

    @property
    def has_content(self) -> bool:
        """Whether the chunk carries anything a reader sees."""
        return bool(self.content or self.reasoning_content or self.tool_calls or self.refusal)


class ChunkChoice(msgspec.Struct):
    """One choice of a chunk."""

    delta: Delta | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """The part of a stream chunk that the gateway reads."""

    model: str = ""
    choices: list[ChunkChoice] = []
    usage: WireUsage | None = None
    error: msgspec.Raw | None = None


class WireErrorBody(msgspec.Struct):
    """The inside of an upstream's error; ``code`` is a number in some servers."""

    message: str = ""
    type: str | None = None
    code: str | int | None = None
    param: str | None = None


class WireError(msgspec.Struct):
    """An upstream's error reply."""

    error: WireErrorBody | str


_REQUEST = msgspec.json.Decoder(ChatRequest)
_COMPLETION = msgspec.json.Decoder(Completion)
_CHUNK = msgspec.json.Decoder(Chunk)
_ERROR = msgspec.json.Decoder(WireError)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


def decode_request(body: bytes) -> ChatRequest:
    """Read a chat request; raise ``invalid_json`` or ``invalid_request``, naming the field."""
    try:
        request = _REQUEST.decode(body)
    except msgspec.ValidationError as wrong:
        message, _, where = str(wrong).partition(" - at `$.")
        param = where.rstrip("`") or None
        raise PilotageError(
            "invalid_request", message.replace("`", "'") + ".", param=param
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as broken:
        raise PilotageError("invalid_json", f"The body is not valid JSON: {broken}.") from None
    if not request.messages:
        raise PilotageError("invalid_request", "'messages' is empty.", param="messages")
    for name in ("max_tokens", "max_completion_tokens", "n"):
        value = getattr(request, name)
        if isinstance(value, int) and value < 1:
            raise PilotageError("invalid_request", f"{name!r} must be 1 or more.", param=name)
    return request


def limit_request(body: bytes, request: ChatRequest, output_limit: int) -> bytes:
    """Return the body with an explicit output limit and, for a stream, with usage asked for.

    The original bytes come back when nothing needs to change.
    """
    added: dict[str, Any] = {}
    replaced: dict[str, Any] = {}
    limits = {
        "max_tokens": request.max_tokens,
        "max_completion_tokens": request.max_completion_tokens,
    }
    given = {name: value for name, value in limits.items() if isinstance(value, int)}
    if not given:
        place = added if request.max_tokens is msgspec.UNSET else replaced
        place["max_tokens"] = output_limit
    replaced.update({name: output_limit for name, value in given.items() if value > output_limit})
    if request.stream and not request.wants_usage:
        place = added if request.stream_options is msgspec.UNSET else replaced
        place["stream_options"] = {"include_usage": True}
    if replaced:
        fields: dict[str, Any] = _FIELDS.decode(body)
        return _ENCODE({**fields, **added, **replaced})
    if not added:
        return body
    start = body.index(b"{") + 1
    return b"{" + _ENCODE(added)[1:-1] + b"," + body[start:]


def output_limit_of(request: ChatRequest, ceiling: int) -> int:
    """Return the most tokens that each choice may have: the least of the client's limits and ours."""
    limits = (request.max_tokens, request.max_completion_tokens)
    return min([ceiling, *(value for value in limits if isinstance(value, int))])


def decode_completion(body: bytes) -> Completion:
    """Read a plain reply; raise ``upstream_invalid``."""
    try:
        return _COMPLETION.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PilotageError("upstream_invalid", "The model's answer is not valid JSON.") from None


def decode_chunk(data: bytes) -> Chunk:
    """Read one stream chunk; raise ``upstream_invalid``."""
    try:
        return _CHUNK.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PilotageError(
            "upstream_invalid", "A chunk of the model's answer is not valid JSON."
        ) from None


def rename_model(payload: bytes, old: str, new: str) -> bytes:
    """Return a reply or chunk whose ``model`` says the alias.

    A quote inside a JSON string is escaped, so the searched bytes can only be a member of an
    object; the first one is the reply's own in every server seen. Anything else is rewritten whole.
    """
    member = b'"model":' + _ENCODE(old)
    if member in payload:
        return payload.replace(member, b'"model":' + _ENCODE(new), 1)
    fields: dict[str, Any] = _FIELDS.decode(payload)
    fields["model"] = new
    return _ENCODE(fields)


def normalise_usage(wire: WireUsage) -> Usage | None:
    """Return disjoint counts, or None where the parts do not add up."""
    cached = (wire.prompt_tokens_details and wire.prompt_tokens_details.cached_tokens) or 0
    reasoning = (
        wire.completion_tokens_details and wire.completion_tokens_details.reasoning_tokens
    ) or 0
    if min(wire.prompt_tokens, wire.completion_tokens, cached, reasoning) < 0:
        return None
    if cached > wire.prompt_tokens or reasoning > wire.completion_tokens:
        return None
    return Usage(
        input=wire.prompt_tokens - cached,
        cache_read=cached,
        output=wire.completion_tokens - reasoning,
        reasoning=reasoning,
    )


def decode_error(body: bytes) -> WireErrorBody:
    """Read an upstream's error reply; anything unreadable is an empty error."""
    try:
        error = _ERROR.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return WireErrorBody()
    return WireErrorBody(message=error) if isinstance(error, str) else error


def encode_error(error: PilotageError) -> bytes:
    """Return the body of an error reply."""
    message = f"{error.detail} {error.hint}".strip()
    kind = "insufficient_quota" if error.code == "insufficient_quota" else error.spec.type
    return _ENCODE(
        {"error": {"message": message, "type": kind, "param": error.param, "code": error.code}}
    )


def encode_models(models: list[tuple[str, int]]) -> bytes:
    """Return the body of ``/v1/models`` for pairs of alias and creation time in seconds."""
    return _ENCODE({"object": "list", "data": [_model(name, created) for name, created in models]})


def encode_model(name: str, created_s: int) -> bytes:
    """Return the body of ``/v1/models/NAME``."""
    return _ENCODE(_model(name, created_s))


def _model(name: str, created_s: int) -> dict[str, object]:
    return {"id": name, "object": "model", "created": created_s, "owned_by": "pilotage"}
