"""The Anthropic wire for models of another wire: requests read whole, answers written anew.

The types here are the list of what can be carried over: what they do not have is refused by name.
A field typed :data:`Dropped` changes nothing that matters and is left out.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.usage import Usage
from pilotage.gateway.wire import talk
from pilotage.gateway.wire.door import (
    ABSENT,
    BROKEN_JSON,
    pick,
    read_exactly,
    refuse,
    refuse_other_values,
)
from pilotage.gateway.wire.sse import write_event

Dropped = Any


class TextBlock(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """Words."""

    text: str
    cache_control: Dropped = None
    citations: Dropped = None


class Base64Source(msgspec.Struct, tag_field="type", tag="base64", forbid_unknown_fields=True):
    """The bytes of a picture or a document."""

    media_type: str
    data: str


class UrlSource(msgspec.Struct, tag_field="type", tag="url", forbid_unknown_fields=True):
    """Where a picture or a document is."""

    url: str


class TextSource(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A document that is plain text."""

    data: str
    media_type: str = "text/plain"


class ImageBlock(msgspec.Struct, tag_field="type", tag="image", forbid_unknown_fields=True):
    """A picture."""

    source: Base64Source | UrlSource
    cache_control: Dropped = None


class DocumentBlock(msgspec.Struct, tag_field="type", tag="document", forbid_unknown_fields=True):
    """A document, of which nothing is to be cited."""

    source: Base64Source | TextSource
    title: str | None = None
    context: None = None
    citations: None = None
    cache_control: Dropped = None


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use", forbid_unknown_fields=True):
    """A tool call of an earlier answer."""

    id: str
    name: str
    input: msgspec.Raw
    cache_control: Dropped = None
    caller: Dropped = None


class ToolResultBlock(
    msgspec.Struct, tag_field="type", tag="tool_result", forbid_unknown_fields=True
):
    """What a tool returned."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock] = ""
    is_error: bool | None = None
    cache_control: Dropped = None


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking", forbid_unknown_fields=True):
    """Reasoning of an earlier answer, signed by who made it; another model has no use for it."""

    thinking: Dropped = None
    signature: Dropped = None


class RedactedBlock(
    msgspec.Struct, tag_field="type", tag="redacted_thinking", forbid_unknown_fields=True
):
    """Reasoning that only its maker can read."""

    data: Dropped = None


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | ToolUseBlock
    | ToolResultBlock
    | ThinkingBlock
    | RedactedBlock
)


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """What one side said."""

    role: str
    content: str | list[Block]


class Tool(msgspec.Struct, forbid_unknown_fields=True):
    """A tool that the client runs."""

    name: str
    input_schema: msgspec.Raw = ABSENT
    description: str | None = None
    strict: bool | None = None
    type: str | None = None
    cache_control: Dropped = None
    eager_input_streaming: Dropped = None


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True):
    """Which tools may or must be called."""

    type: str
    name: str = ""
    disable_parallel_tool_use: bool | None = None


class Format(msgspec.Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    """What an answer must look like."""

    schema: msgspec.Raw


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    """How much effort an answer is worth, and what it looks like."""

    effort: str | None = None
    format: Format | None = None


class Metadata(msgspec.Struct, forbid_unknown_fields=True):
    """Who the client calls for."""

    user_id: str | None = None


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """A messages request, all of it."""

    model: str
    max_tokens: int
    messages: list[Message]
    system: str | list[TextBlock] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    stream: bool | None = None
    # how the provider works, and how this model family reasons: a matter of the target's own
    cache_control: Dropped = None
    diagnostics: Dropped = None
    service_tier: Dropped = None
    thinking: Dropped = None
    # allowed as long as they ask for nothing
    container: Any = None
    context_management: Any = None
    inference_geo: Any = None
    mcp_servers: Any = None
    speed: Any = None


ASK_NOTHING: dict[str, tuple[Any, ...]] = {
    "container": (None,),
    "context_management": (None,),
    "inference_geo": (None, "global", "not_available"),
    "mcp_servers": (None, []),
    "speed": (None, "standard"),
}
_REQUEST = msgspec.json.Decoder(Request)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode
_CHOICES = {"auto": "auto", "any": "any", "none": "none", "tool": "one"}
_ROLES = ("system", "user", "assistant")
_FINISH = {
    talk.Finish.STOP: "end_turn",
    talk.Finish.STOP_SEQUENCE: "stop_sequence",
    talk.Finish.LENGTH: "max_tokens",
    talk.Finish.TOOLS: "tool_use",
    talk.Finish.REFUSAL: "refusal",
}


def read_request(body: bytes, target: str) -> talk.Talk:
    """Read a messages request whole; raise ``unsupported`` for what no other wire can say."""
    request = read_exactly(_REQUEST, body, target)
    refuse_other_values(request, ASK_NOTHING, target)
    if request.max_tokens < 1:
        raise refuse("max_tokens", target, "It must be 1 or more there.")
    if request.messages[-1].role == "assistant":
        why = "An answer whose beginning is given can only be continued by its own kind of model."
        raise refuse(f"messages[{len(request.messages) - 1}]", target, why)
    turns = [_read_message(message, index) for index, message in enumerate(request.messages)]
    if request.system:
        turns.insert(0, talk.Turn("system", [*_read_texts(request.system)]))
    choice, config = request.tool_choice, request.output_config
    schema = config.format if config else None
    return talk.Talk(
        turns=turns,
        tools=[_read_tool(tool, index, target) for index, tool in enumerate(request.tools or [])],
        tool_choice=_read_choice(choice),
        tool_name=choice.name if choice else "",
        is_parallel=False if choice and choice.disable_parallel_tool_use else None,
        schema=talk.Schema(schema.schema, is_strict=True) if schema else None,
        stop=request.stop_sequences or [],
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        effort=config.effort if config else None,
        user=(request.metadata and request.metadata.user_id) or "",
    )


class MessageWriter:
    """Write an answer as message events, or as one message.

    A stream's prompt is counted at its end only, because that is when other wires say it.
    """

    def __init__(self, call_id: str, model: str) -> None:
        self._id = f"msg_{call_id.partition('_')[2]}"
        self._model = model
        self._index = -1
        self._block = ""
        self._tool = -1
        self._end = talk.End(talk.Finish.STOP)

    def begin(self) -> list[bytes]:
        """Return the event that opens the message."""
        return [_event("message_start", message=self._message([], None, Usage()))]

    def write(self, piece: talk.Piece) -> list[bytes]:
        """Return the events of a piece, with those that close and open blocks before it."""
        if isinstance(piece, talk.Thought):
            opening = self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            return [*opening, self._add({"type": "thinking_delta", "thinking": piece.text})]
        if isinstance(piece, talk.Text | talk.Refusal):
            opening = self._open("text", {"type": "text", "text": "", "citations": None})
            return [*opening, self._add({"type": "text_delta", "text": piece.text})]
        if isinstance(piece, talk.ToolStart):
            self._tool = piece.index
            block = {"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}
            return self._open(f"tool {piece.index}", block)
        if isinstance(piece, talk.ToolWords):
            if piece.index != self._tool:
                raise PilotageError("upstream_invalid", "The model's tool calls are mixed up.")
            return [self._add({"type": "input_json_delta", "partial_json": piece.text})]
        self._end = piece
        return self._close()

    def finish(self, usage: Usage | None) -> list[bytes]:
        """Return the event that says why the answer ended and what it used."""
        delta = {
            "stop_reason": _FINISH[self._end.finish],
            "stop_sequence": self._end.sequence,
        }
        return [_event("message_delta", delta=delta, usage=show_usage(usage or Usage()))]

    def compose(self, pieces: Iterable[talk.Piece], usage: Usage | None) -> bytes:
        """Return the whole message."""
        blocks: list[dict[str, Any]] = []
        end = self._end
        for piece in pieces:
            last = blocks[-1] if blocks else {"type": ""}
            if isinstance(piece, talk.End):
                end = piece
            elif isinstance(piece, talk.ToolStart):
                blocks.append({"type": "tool_use", "id": piece.id, "name": piece.name, "input": ""})
            elif isinstance(piece, talk.ToolWords):
                last["input"] += piece.text
            elif isinstance(piece, talk.Thought):
                if last["type"] != "thinking":
                    blocks.append(last := {"type": "thinking", "thinking": "", "signature": ""})
                last["thinking"] += piece.text
            else:
                if last["type"] != "text":
                    blocks.append(last := {"type": "text", "text": "", "citations": None})
                last["text"] += piece.text
        for block in blocks:
            if block["type"] == "tool_use":
                block["input"] = _read_input(block["input"])
        return _ENCODE(self._message(blocks, end, usage or Usage()))

    def _open(self, name: str, block: dict[str, Any]) -> list[bytes]:
        if name == self._block:
            return []
        closing = self._close()
        self._block = name
        self._index += 1
        return [*closing, _event("content_block_start", index=self._index, content_block=block)]

    def _close(self) -> list[bytes]:
        if not self._block:
            return []
        self._block = ""
        return [_event("content_block_stop", index=self._index)]

    def _add(self, delta: dict[str, str]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _message(
        self, blocks: list[dict[str, Any]], end: talk.End | None, usage: Usage
    ) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": blocks,
            "stop_reason": _FINISH[end.finish] if end else None,
            "stop_sequence": end.sequence if end else None,
            "usage": show_usage(usage),
        }


def show_usage(usage: Usage) -> dict[str, Any]:
    """Return a usage as this wire has it: the prompt without what a cache had to do with."""
    return {
        "input_tokens": usage.input,
        "output_tokens": usage.completion_tokens,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def _event(kind: str, **fields: Any) -> bytes:  # noqa: ANN401 - any JSON
    return write_event(kind, _ENCODE({"type": kind, **fields}))


def _read_input(arguments: str) -> msgspec.Raw:
    """Return the arguments of a tool call as an object; raise ``upstream_invalid``."""
    text = arguments.strip().encode() or b"{}"
    try:
        _OBJECT.decode(text)
    except BROKEN_JSON:
        raise PilotageError(
            "upstream_invalid", "The arguments of the model's tool call are not a JSON object."
        ) from None
    return msgspec.Raw(text)


def _read_message(message: Message, index: int) -> talk.Turn:
    if message.role not in _ROLES:
        raise PilotageError(
            "invalid_request",
            f"The role of a message is one of {', '.join(_ROLES)}.",
            param=f"messages[{index}].role",
        )
    if isinstance(message.content, str):
        return talk.Turn(message.role, [talk.Text(message.content)])
    parts = [part for block in message.content if (part := _read_block(block)) is not None]
    return talk.Turn(message.role, parts)


def _read_texts(content: str | list[TextBlock]) -> list[talk.Text]:
    if isinstance(content, str):
        return [talk.Text(content)]
    return [talk.Text(block.text) for block in content]


def _read_block(block: Block) -> talk.Part | None:
    if isinstance(block, TextBlock | ImageBlock):
        return _read_simple(block)
    if isinstance(block, DocumentBlock):
        if isinstance(block.source, TextSource):
            return talk.Text(
                f"{block.title}\n\n{block.source.data}" if block.title else block.source.data
            )
        return talk.File(_data_url(block.source), block.title or "document.pdf")
    if isinstance(block, ToolUseBlock):
        return talk.ToolCall(block.id, block.name, bytes(block.input).decode())
    if isinstance(block, ToolResultBlock):
        if isinstance(block.content, str):
            parts: list[talk.Text | talk.Image] = [talk.Text(block.content)]
        else:
            parts = [_read_simple(each) for each in block.content]
        return talk.ToolResult(block.tool_use_id, parts, is_error=bool(block.is_error))
    return None


def _read_simple(block: TextBlock | ImageBlock) -> talk.Text | talk.Image:
    if isinstance(block, TextBlock):
        return talk.Text(block.text)
    source = block.source
    return talk.Image(source.url if isinstance(source, UrlSource) else _data_url(source))


def _data_url(source: Base64Source) -> str:
    return f"data:{source.media_type};base64,{source.data}"


def _read_tool(tool: Tool, index: int, target: str) -> talk.Tool:
    if tool.type not in (None, "custom"):
        raise refuse(f"tools[{index}].type", target, "Only tools with an 'input_schema' can.")
    schema = pick(tool.input_schema)
    return talk.Tool(tool.name, tool.description, schema, tool.strict)


def _read_choice(choice: ToolChoice | None) -> str:
    if choice is None:
        return ""
    if choice.type not in _CHOICES:
        raise PilotageError(
            "invalid_request",
            f"'tool_choice.type' is one of {', '.join(_CHOICES)}.",
            param="tool_choice.type",
        )
    return _CHOICES[choice.type]
