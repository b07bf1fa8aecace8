"""The OpenAI wire: what is read of requests and replies, and how errors look.

Bodies pass through as the bytes they came in; only the fields that the gateway decides on are
decoded, and only what it must change (model, output limit, usage request) is rewritten.
"""

from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.usage import Usage
from pilotage.gateway.wire.door import Wire

DONE = b"data: [DONE]\n\n"
MAX_CHOICES = 128


class StreamOptions(msgspec.Struct):
    """``stream_options`` of a request."""

    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    """The part of a chat request that the gateway reads.

    ``n_predict`` and ``n_cmpl`` are what llama.cpp calls ``max_tokens`` and ``n``; it prefers them.
    """

    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    stream_options: StreamOptions | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: int | msgspec.UnsetType | None = msgspec.UNSET
    max_completion_tokens: int | msgspec.UnsetType | None = msgspec.UNSET
    n_predict: int | msgspec.UnsetType | None = msgspec.UNSET
    n: int | None = None
    n_cmpl: int | None = None
    user: str = ""

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return max(self.n or 1, self.n_cmpl or 1)

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for the usage chunk of a stream."""
        return isinstance(self.stream_options, StreamOptions) and bool(
            self.stream_options.include_usage
        )

    def limit_output(self, ceiling: int) -> int:
        """Return the most tokens of each choice: the least of the client's limits and ours."""
        limit = ceiling
        if isinstance(self.max_tokens, int) and self.max_tokens < limit:
            limit = self.max_tokens
        if isinstance(self.max_completion_tokens, int) and self.max_completion_tokens < limit:
            limit = self.max_completion_tokens
        if isinstance(self.n_predict, int) and self.n_predict < limit:
            limit = self.n_predict
        return limit

    def bound_input(self, body: bytes) -> int:
        """Return more tokens than the prompt can have: no token is shorter than a byte."""
        return len(body)


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


class CompletionChoice(msgspec.Struct):
    """One choice of a plain reply."""

    finish_reason: str | None = None


class Completion(msgspec.Struct):
    """The part of a plain reply that the gateway reads."""

    model: str = ""
    system_fingerprint: str | None = None
    choices: list[CompletionChoice] = []
    usage: WireUsage | None = None


class Delta(msgspec.Struct):
    """What a chunk adds; any of these present and not empty is content."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    refusal: str | None = None

    @property
    def has_content(self) -> bool:
        """Whether the chunk carries anything a reader sees."""
        return bool(
            self.content
            or self.reasoning_content
            or self.reasoning
            or self.tool_calls
            or self.refusal
        )


class ChunkChoice(msgspec.Struct):
    """One choice of a chunk."""

    delta: Delta | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """The part of a stream chunk that the gateway reads."""

    model: str = ""
    system_fingerprint: str | None = None
    choices: list[ChunkChoice] = []
    usage: WireUsage | None = None
    error: dict[str, msgspec.Raw] | str | None = None

    @property
    def has_content(self) -> bool:
        """Whether any choice carries something a reader sees."""
        for choice in self.choices:  # noqa: SIM110 - a generator takes twice the time
            if choice.delta is not None and choice.delta.has_content:
                return True
        return False

    @property
    def finish_reason(self) -> str | None:
        """Why a choice ended, None while all of them go on."""
        for choice in self.choices:
            if choice.finish_reason is not None:
                return choice.finish_reason
        return None


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
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")
_COUNTS = (*_LIMITS, "n", "n_cmpl")
_NULL = msgspec.Raw(b"null")
_MISSING = "Object missing required field `"


def decode_request(body: bytes) -> ChatRequest:
    """Read a chat request; raise ``invalid_json`` or ``invalid_request``, naming the field."""
    try:
        request = _REQUEST.decode(body)
    except msgspec.ValidationError as wrong:
        raise _explain(str(wrong)) from None
    except _BROKEN as broken:
        raise PilotageError("invalid_json", f"The body is not valid JSON: {broken}.") from None
    if not request.messages:
        raise PilotageError("invalid_request", "'messages' is empty.", param="messages")
    for name in _COUNTS:
        value = getattr(request, name)
        if isinstance(value, int) and value < 1:
            raise PilotageError("invalid_request", f"{name!r} must be 1 or more.", param=name)
    if request.choices > MAX_CHOICES:
        raise PilotageError("invalid_request", f"'n' must be {MAX_CHOICES} or less.", param="n")
    return request


def limit_request(
    body: bytes, request: ChatRequest, output_limit: int, upstream_model: str = ""
) -> bytes:
    """Return the body with an explicit output limit and, for a stream, with usage asked for.

    ``upstream_model`` is what the target calls the model, "" if it does not mind. The original
    bytes come back when nothing needs to change.
    """
    is_named = not upstream_model or upstream_model == request.model
    if is_named and _is_limited(request, output_limit):
        return body
    limits = _list_limits(request)
    added: dict[str, Any] = {}
    replaced: dict[str, Any] = {
        name: output_limit for name, value in limits if value > output_limit
    }
    if not is_named:
        replaced["model"] = upstream_model
    if not limits:
        place = added if request.max_tokens is msgspec.UNSET else replaced
        place["max_tokens"] = output_limit
    if request.stream and not request.wants_usage:
        place = added if request.stream_options is msgspec.UNSET else replaced
        place["stream_options"] = {"include_usage": True}
    if replaced:
        return _replace(body, {**added, **replaced})
    if not added:
        return body
    start = body.index(b"{") + 1
    return b"{" + _ENCODE(added)[1:-1] + b"," + body[start:]


def decode_completion(body: bytes) -> Completion:
    """Read a plain reply; raise ``upstream_invalid``."""
    try:
        return _COMPLETION.decode(body)
    except _BROKEN:
        raise PilotageError("upstream_invalid", "The model's answer is not valid JSON.") from None


def decode_chunk(data: bytes) -> Chunk:
    """Read one stream chunk; raise ``upstream_invalid``."""
    try:
        return _CHUNK.decode(data)
    except _BROKEN:
        raise PilotageError(
            "upstream_invalid", "A chunk of the model's answer is not valid JSON."
        ) from None


def rename_model(payload: bytes, old: str, new: str) -> bytes:
    """Return a reply or chunk whose own ``model`` (not one deeper within) says the alias.

    A quote inside a JSON string is escaped, so the searched bytes can only be a member of an
    object; it is the outermost one's if nothing else opens before it or closes after it. Anything
    else is rewritten whole.
    """
    if old == new:
        return payload
    member = b'"model":' + _ENCODE(old)
    start = payload.find(member)
    end = start + len(member)
    if start >= 0 and (
        (payload.count(b"{", 0, start) == 1 and payload.find(b"[", 0, start) < 0)
        or (payload.count(b"}", end) == 1 and payload.find(b"]", end) < 0)
    ):
        return b"".join([payload[:start], b'"model":', _ENCODE(new), payload[end:]])
    return _ENCODE({**_FIELDS.decode(payload), "model": new})


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
    except _BROKEN:
        return WireErrorBody()
    return WireErrorBody(message=error) if isinstance(error, str) else error


def encode_error(error: PilotageError) -> bytes:
    """Return the body of an error reply."""
    message = f"{error.detail} {error.hint}".strip()
    kind = "insufficient_quota" if error.code == "insufficient_quota" else error.spec.type
    return _ENCODE(
        {"error": {"message": message, "type": kind, "param": error.param, "code": error.code}}
    )


def encode_stream_error(error: PilotageError) -> bytes:
    """Return the event that ends a stream which broke; clients raise on it."""
    return b"data: " + encode_error(error) + b"\n\n"


def encode_models(models: list[tuple[str, int]]) -> bytes:
    """Return the body of ``/v1/models`` for pairs of alias and creation time in seconds."""
    return _ENCODE({"object": "list", "data": [_model(name, created) for name, created in models]})


def encode_model(name: str, created_s: int) -> bytes:
    """Return the body of ``/v1/models/NAME``."""
    return _ENCODE(_model(name, created_s))


def _model(name: str, created_s: int) -> dict[str, object]:
    return {"id": name, "object": "model", "created": created_s, "owned_by": "pilotage"}


def _explain(wrong: str) -> PilotageError:
    """Return the error that names the field: ``messages``, ``stream_options.include_usage``."""
    message, _, where = wrong.partition(" - at `$.")
    param = where.rstrip("`")
    if message.startswith(_MISSING):
        missing = message[len(_MISSING) :].rstrip("`")
        param = f"{param}.{missing}" if param else missing
    return PilotageError("invalid_request", message.replace("`", "'") + ".", param=param or None)


def _is_limited(request: ChatRequest, output_limit: int) -> bool:
    """Whether a request says all that it has to, as most plain ones do."""
    given = request.max_tokens
    return (
        isinstance(given, int)
        and given <= output_limit
        and request.max_completion_tokens is msgspec.UNSET
        and request.n_predict is msgspec.UNSET
        and (not request.stream or request.wants_usage)
    )


def _list_limits(request: ChatRequest) -> list[tuple[str, int]]:
    return [(name, value) for name in _LIMITS if isinstance(value := getattr(request, name), int)]


def _replace(body: bytes, changed: dict[str, Any]) -> bytes:
    """Write a request anew with other values for some members; stream options keep their others."""
    fields = _FIELDS.decode(body)
    options = changed.get("stream_options")
    if options and fields.get("stream_options", _NULL) != _NULL:
        changed["stream_options"] = {**_FIELDS.decode(fields["stream_options"]), **options}
    return _ENCODE({**fields, **changed})


CHAT = Wire("chat", decode_request, encode_error, encode_stream_error)
