"""The OpenAI wire: what is read of requests and replies, and how errors look.

Bodies pass through as the bytes they came in; only the fields that the gateway decides on are
decoded, and only what it must change (model, output limit, usage request) is rewritten.
"""

from typing import Annotated, Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.usage import Usage
from pilotage.gateway.wire.bounds import bound_chat
from pilotage.gateway.wire.door import (
    ABSENT,
    BROKEN_JSON,
    Wire,
    is_said,
    read_request,
    read_session,
)
from pilotage.gateway.wire.prompts import expand_chat

DONE = b"data: [DONE]\n\n"
MAX_CHOICES = 128
Positive = Annotated[int, msgspec.Meta(ge=1)]


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
    max_tokens: Positive | msgspec.UnsetType | None = msgspec.UNSET
    max_completion_tokens: Positive | msgspec.UnsetType | None = msgspec.UNSET
    n_predict: Positive | msgspec.UnsetType | None = msgspec.UNSET
    n: Positive | None = None
    n_cmpl: Positive | None = None
    user: str = ""
    tools: msgspec.Raw = ABSENT
    response_format: msgspec.Raw = ABSENT
    service_tier: str | None = None
    web_search_options: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return max(self.n or 1, self.n_cmpl or 1)

    @property
    def session(self) -> str:
        """The ``session_id`` of its metadata."""
        return read_session(self.metadata)

    @property
    def names_prompt(self) -> bool:
        """Whether a prompt's messages come first."""
        return is_said(self.prompt)

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
        """Return more tokens than the prompt can have."""
        is_instructed = bool(self.tools or self.response_format)
        return bound_chat(body, len(self.messages), is_instructed=is_instructed)


class PromptDetails(msgspec.Struct):
    """``usage.prompt_tokens_details``."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """``usage.completion_tokens_details``."""

    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """``usage`` of a reply: overlapping counts, made disjoint by :func:`normalise_usage`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int | None = None
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
    timings: msgspec.Raw = ABSENT  # only llama.cpp has them


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
    timings: msgspec.Raw = ABSENT
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


_REQUEST = msgspec.json.Decoder(ChatRequest)
_COMPLETION = msgspec.json.Decoder(Completion)
_CHUNK = msgspec.json.Decoder(Chunk)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode
_BROKEN = BROKEN_JSON
_LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")
_NULL = msgspec.Raw(b"null")
_LIST_PRICE_TIERS = ("auto", "default", "flex")


def decode_request(body: bytes) -> ChatRequest:
    """Read a chat request; raise ``invalid_json``, ``invalid_request`` or ``unsupported``."""
    request = read_request(_REQUEST, body)
    if not request.messages:
        raise PilotageError("invalid_request", "'messages' is empty.", param="messages")
    if request.choices > MAX_CHOICES:
        raise PilotageError("invalid_request", f"'n' must be {MAX_CHOICES} or less.", param="n")
    if request.service_tier is not None:
        refuse_other_prices(request.service_tier)
    if is_said(request.web_search_options):
        raise PilotageError(
            "unsupported",
            "The provider's web search is billed besides the model's tokens.",
            param="web_search_options",
        )
    return request


def refuse_other_prices(service_tier: str) -> None:
    """Raise ``unsupported`` for a tier that costs more than the price list's."""
    if service_tier not in _LIST_PRICE_TIERS:
        raise PilotageError(
            "unsupported",
            f"Calls of the service tier {service_tier!r} cost more than the model's price.",
            hint=f"Send one of {', '.join(repr(tier) for tier in _LIST_PRICE_TIERS)}.",
            param="service_tier",
        )


def limit_request(
    body: bytes,
    request: ChatRequest,
    output_limit: int,
    upstream_model: str = "",
    limit_name: str = "max_tokens",
) -> bytes:
    """Return the body with an explicit output limit and, for a stream, with usage asked for.

    ``upstream_model`` is what the target calls the model, "" if it does not mind; ``limit_name``
    is what it calls the limit that the client has not given. The original bytes come back when
    nothing needs to change.
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
        place = added if getattr(request, limit_name) is msgspec.UNSET else replaced
        place[limit_name] = output_limit
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
    """Return disjoint counts, or None where the parts do not add up.

    Cached tokens are part of the prompt, reasoning is part of the completion; but where the total
    says that tokens came on top of both, they are reasoning that the completion leaves out, as
    Gemini has it behind its OpenAI path, whether it names them or not.
    """
    cached = written = reasoning = 0
    if (prompt := wire.prompt_tokens_details) is not None:
        cached, written = prompt.cached_tokens or 0, prompt.cache_write_tokens or 0
    if (completion := wire.completion_tokens_details) is not None:
        reasoning = completion.reasoning_tokens or 0
    said = wire.completion_tokens
    if wire.total_tokens:
        beyond = wire.total_tokens - wire.prompt_tokens - said
        if beyond and beyond != (reasoning or beyond):
            return None
        said, reasoning = said + beyond, reasoning or beyond
    plain = wire.prompt_tokens - cached - written
    if min(plain, cached, written, said - reasoning, reasoning) < 0:
        return None
    return Usage(
        input=plain,
        cache_read=cached,
        cache_write=written,
        output=said - reasoning,
        reasoning=reasoning,
    )


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


CHAT = Wire("chat", decode_request, encode_error, encode_stream_error, expand=expand_chat)
