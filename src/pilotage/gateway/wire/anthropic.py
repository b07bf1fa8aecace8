"""The Anthropic wire: what is read of requests and replies, and how errors look.

As on the OpenAI wire, bodies pass through as the bytes they came in where a model speaks this wire
itself; what is said to models of another wire is in :mod:`.messages_talk`.
"""

from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.usage import Usage
from pilotage.gateway.wire.bounds import bound_chat
from pilotage.gateway.wire.door import ABSENT, BROKEN_JSON, Wire, is_said, read_request
from pilotage.gateway.wire.prompts import expand_messages
from pilotage.gateway.wire.sse import write_event

STOP = write_event("message_stop", b'{"type":"message_stop"}')
# Tools that the client runs itself. All others are run by the provider, which bills them apart and
# feeds their results to the model as input that no bound knows.
_CLIENT_TOOLS = ("custom", "bash_", "text_editor_", "computer_", "browser_", "memory_")
_AT_LIST_PRICE: dict[str, tuple[str | None, ...]] = {
    "speed": (None, "standard"),
    "inference_geo": (None, "global", "not_available"),
}


class Metadata(msgspec.Struct):
    """``metadata`` of a request."""

    user_id: str | None = None


class ToolKind(msgspec.Struct):
    """What is read of a tool: who runs it."""

    type: str | None = None


class ThinkingBudget(msgspec.Struct):
    """``thinking`` of a request; its budget is part of the output."""

    budget_tokens: int | None = None


class MessagesRequest(msgspec.Struct):
    """The part of a messages request that the gateway reads."""

    model: str
    max_tokens: int
    messages: list[msgspec.Raw]
    stream: bool | None = None
    metadata: Metadata | None = None
    tools: list[ToolKind] | None = None
    output_config: msgspec.Raw = ABSENT
    thinking: ThinkingBudget | None = None
    mcp_servers: list[msgspec.Raw] | None = None
    speed: str | None = None
    inference_geo: str | None = None
    prompt: msgspec.Raw = ABSENT

    @property
    def choices(self) -> int:
        """One: the wire has no more."""
        return 1

    @property
    def user(self) -> str:
        """Who the client says it calls for."""
        return (self.metadata and self.metadata.user_id) or ""

    @property
    def session(self) -> str:
        """None: the wire's metadata names users only."""
        return ""

    @property
    def names_prompt(self) -> bool:
        """Whether a prompt's messages come first."""
        return is_said(self.prompt)

    def limit_output(self, ceiling: int) -> int:
        """Return the client's limit or ours, whichever is less."""
        return min(self.max_tokens, ceiling)

    def bound_input(self, body: bytes) -> int:
        """Return more tokens than the prompt can have."""
        is_instructed = bool(self.tools) or bool(self.output_config)
        return bound_chat(body, len(self.messages) + 1, is_instructed=is_instructed)


class OutputDetails(msgspec.Struct):
    """``usage.output_tokens_details``."""

    thinking_tokens: int | None = None


class MessageUsage(msgspec.Struct):
    """``usage`` of a message, or of a ``message_delta``, where what is missing has not changed.

    ``input_tokens`` are those that no cache had to do with; ``cache_creation_input_tokens`` counts
    entries of every lifetime.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None

    def update(self, later: "MessageUsage") -> None:
        """Take over what a later event says; its counts are totals, not additions."""
        for name in self.__struct_fields__:
            value = getattr(later, name)
            if value is not None:
                setattr(self, name, value)


class Message(msgspec.Struct):
    """The part of a reply that the gateway reads."""

    model: str = ""
    stop_reason: str | None = None
    usage: MessageUsage | None = None


class BlockDelta(msgspec.Struct):
    """What a ``content_block_delta`` adds, or what a ``message_delta`` ends with."""

    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class Block(msgspec.Struct):
    """The block that a ``content_block_start`` opens."""

    type: str = ""


class ErrorBody(msgspec.Struct):
    """The inside of an error."""

    type: str = ""
    message: str = ""


class Event(msgspec.Struct):
    """The part of a stream event that the gateway reads."""

    type: str = ""
    message: Message | None = None
    content_block: Block | None = None
    delta: BlockDelta | None = None
    usage: MessageUsage | None = None
    error: ErrorBody | None = None

    @property
    def has_content(self) -> bool:
        """Whether the event carries anything a reader sees."""
        if self.type == "content_block_delta":
            delta = self.delta
            return delta is not None and bool(delta.text or delta.thinking or delta.partial_json)
        return self.content_block is not None and self.content_block.type not in (
            "text",
            "thinking",
        )


_REQUEST = msgspec.json.Decoder(MessagesRequest)
_MESSAGE = msgspec.json.Decoder(Message)
_EVENT = msgspec.json.Decoder(Event)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
_TYPES_BY_CODE = {
    "insufficient_quota": "billing_error",
    "upstream_overloaded": "overloaded_error",
    "unavailable": "overloaded_error",
    "no_replica": "overloaded_error",
    "draining": "overloaded_error",
    "upstream_stall": "timeout_error",
}


def decode_request(body: bytes) -> MessagesRequest:
    """Read a messages request; raise ``invalid_json``, ``invalid_request`` or ``unsupported``."""
    request = read_request(_REQUEST, body)
    if not request.messages:
        raise PilotageError("invalid_request", "'messages' is empty.", param="messages")
    if request.max_tokens < 0:  # 0 fills the prompt cache
        raise PilotageError(
            "invalid_request", "'max_tokens' must be 0 or more.", param="max_tokens"
        )
    _refuse_what_no_price_covers(request)
    if b'"1h"' in body and _keeps_for_an_hour(msgspec.json.decode(body)):
        raise PilotageError(
            "unsupported",
            "'cache_control.ttl' of '1h' is not offered: no price list says what it costs.",
            hint="Leave 'ttl' out, or use '5m'.",
            param="cache_control.ttl",
        )
    return request


def _keeps_for_an_hour(value: object) -> bool:
    """Whether something within a request asks for a cache entry of the long, dearer kind."""
    if isinstance(value, list):
        return any(_keeps_for_an_hour(each) for each in value)
    if not isinstance(value, dict):
        return False
    control = value.get("cache_control")
    if isinstance(control, dict) and control.get("ttl") == "1h":
        return True
    return any(_keeps_for_an_hour(each) for each in value.values())


def limit_request(
    body: bytes, request: MessagesRequest, output_limit: int, upstream_model: str = ""
) -> bytes:
    """Return the body under the target's name of the model and within the output limit.

    The original bytes come back when nothing needs to change.
    """
    changed: dict[str, Any] = {}
    if request.max_tokens != output_limit:
        changed["max_tokens"] = output_limit
        budget = request.thinking and request.thinking.budget_tokens
        if budget and budget >= output_limit:
            raise PilotageError(
                "invalid_request",
                f"'thinking.budget_tokens' must be less than this model's limit of {output_limit}.",
                param="thinking.budget_tokens",
            )
    if upstream_model and upstream_model != request.model:
        changed["model"] = upstream_model
    return _ENCODE({**_FIELDS.decode(body), **changed}) if changed else body


def decode_message(body: bytes) -> Message:
    """Read a plain reply; raise ``upstream_invalid``."""
    try:
        return _MESSAGE.decode(body)
    except BROKEN_JSON:
        raise PilotageError("upstream_invalid", "The model's answer is not valid JSON.") from None


def decode_event(data: bytes) -> Event:
    """Read one stream event; raise ``upstream_invalid``."""
    try:
        return _EVENT.decode(data)
    except BROKEN_JSON:
        raise PilotageError(
            "upstream_invalid", "An event of the model's answer is not valid JSON."
        ) from None


def rename_start(data: bytes, model: str) -> bytes:
    """Return a ``message_start`` whose message says another model."""
    event = _FIELDS.decode(data)
    event["message"] = msgspec.Raw(_ENCODE({**_FIELDS.decode(event["message"]), "model": model}))
    return _ENCODE(event)


def normalise_usage(said: MessageUsage) -> Usage | None:
    """Return disjoint counts, or None where they are incomplete or do not add up."""
    if said.input_tokens is None or said.output_tokens is None:
        return None
    written = said.cache_creation_input_tokens or 0
    cached = said.cache_read_input_tokens or 0
    details = said.output_tokens_details
    reasoning = (details and details.thinking_tokens) or 0
    counts = (said.input_tokens, said.output_tokens - reasoning, written, cached, reasoning)
    if min(counts) < 0:
        return None
    return Usage(
        input=said.input_tokens,
        cache_read=cached,
        cache_write=written,
        output=said.output_tokens - reasoning,
        reasoning=reasoning,
    )


def raise_stream_error(error: ErrorBody | None) -> None:
    """Raise what an ``error`` event of a model means."""
    if error is not None and error.type in ("overloaded_error", "rate_limit_error"):
        raise PilotageError("upstream_overloaded")
    raise PilotageError("upstream_error", "The model broke off with an error.")


def encode_error(error: PilotageError) -> bytes:
    """Return the body of an error reply; ``details.error_code`` is our code."""
    kind = _TYPES_BY_CODE.get(error.code) or _TYPES.get(error.status) or "api_error"
    if kind == "api_error" and error.status < 499:
        kind = "invalid_request_error"
    inner = {
        "type": kind,
        "message": f"{error.detail} {error.hint}".strip(),
        "details": {"error_code": error.code},
    }
    return _ENCODE({"type": "error", "error": inner})


def encode_stream_error(error: PilotageError) -> bytes:
    """Return the event that ends a stream which broke; clients raise on it."""
    return write_event("error", encode_error(error))


def encode_models(models: list[tuple[str, str]]) -> bytes:
    """Return the list of models, for pairs of alias and creation time (RFC 3339)."""
    data = [_model(name, created) for name, created in models]
    ends = {"first_id": models[0][0], "last_id": models[-1][0]} if models else {}
    return _ENCODE({"data": data, "has_more": False, "first_id": None, "last_id": None, **ends})


def encode_model(name: str, created: str) -> bytes:
    """Return one model."""
    return _ENCODE(_model(name, created))


def _model(name: str, created: str) -> dict[str, str]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created,
        "lifecycle": "active",
    }


def _refuse_what_no_price_covers(request: MessagesRequest) -> None:
    """Refuse what is billed otherwise than by tokens at list price."""
    for index, tool in enumerate(request.tools or []):
        if tool.type is not None and not tool.type.startswith(_CLIENT_TOOLS):
            raise PilotageError(
                "unsupported",
                f"The tool {tool.type!r} is run and billed by the provider.",
                hint="Only tools that the client runs can be paid for by a budget.",
                param=f"tools[{index}].type",
            )
    if request.mcp_servers:
        raise PilotageError(
            "unsupported", "'mcp_servers' are called by the provider.", param="mcp_servers"
        )
    for name, values in _AT_LIST_PRICE.items():
        if getattr(request, name) not in values:
            raise PilotageError(
                "unsupported", f"{name!r} is billed at another price than the model's.", param=name
            )


MESSAGES = Wire(
    "messages", decode_request, encode_error, encode_stream_error, b"request-id", expand_messages
)
