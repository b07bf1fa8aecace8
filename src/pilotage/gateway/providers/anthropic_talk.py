"""Models that speak the Anthropic wire, for clients of another: requests written, answers read."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call
from pilotage.gateway.providers.answer import note_usage, upstream_model
from pilotage.gateway.wire import anthropic as wire
from pilotage.gateway.wire import talk
from pilotage.gateway.wire.door import ABSENT, BROKEN_JSON, is_said, refuse

NAME = "anthropic"
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
_FINISH = {
    "end_turn": talk.Finish.STOP,
    "pause_turn": talk.Finish.STOP,
    "stop_sequence": talk.Finish.STOP_SEQUENCE,
    "max_tokens": talk.Finish.LENGTH,
    "model_context_window_exceeded": talk.Finish.LENGTH,
    "tool_use": talk.Finish.TOOLS,
    "refusal": talk.Finish.REFUSAL,
}
_NO_SCHEMA = {"type": "object", "properties": {}}


class ReplyBlock(msgspec.Struct):
    """One block of a reply, or the one that an event opens."""

    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = ABSENT


class Reply(msgspec.Struct):
    """A whole reply."""

    content: list[ReplyBlock]
    model: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: wire.MessageUsage | None = None


class EventDelta(msgspec.Struct):
    """What an event adds."""

    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class Event(msgspec.Struct):
    """A stream event, with its words."""

    type: str
    index: int = 0
    message: wire.Message | None = None
    content_block: ReplyBlock | None = None
    delta: EventDelta | None = None
    usage: wire.MessageUsage | None = None
    error: wire.ErrorBody | None = None


_REPLY = msgspec.json.Decoder(Reply)
_EVENT = msgspec.json.Decoder(Event)
_ANY = msgspec.json.Decoder()
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


class AnthropicSpeech:
    """How a talk is said to an Anthropic model."""

    path = b"/messages"
    name = NAME

    def write(self, call: Call, said: talk.Talk) -> bytes:
        """Return the body of the request; raise ``unsupported`` for what the wire cannot say."""
        if said.temperature is not None and said.temperature > 1:
            raise refuse("temperature", NAME, "It goes from 0 to 1 there.")
        if said.turns[-1].role == "assistant":
            raise refuse("messages", NAME, "An answer at their end would be continued there.")
        system, messages = _write_turns(said.turns)
        body: dict[str, Any] = {
            "model": upstream_model(call) or call.alias_name,
            "max_tokens": call.output_limit,
            "messages": messages,
            "system": system,
            "stream": True if call.request.stream else None,
            "stop_sequences": said.stop or None,
            "temperature": said.temperature,
            "top_p": said.top_p,
            "top_k": said.top_k,
            "metadata": {"user_id": said.user} if said.user else None,
            "tools": [_write_tool(tool) for tool in said.tools] or None,
            "tool_choice": _write_choice(said),
            "output_config": _write_config(said),
            "thinking": {"type": "disabled"} if said.effort == "none" else None,
        }
        return _ENCODE({name: value for name, value in body.items() if value is not None})

    def read(self, call: Call, payload: bytes) -> list[talk.Piece]:
        """Return the pieces of a whole reply, and note on the call what it says of itself."""
        try:
            reply = _REPLY.decode(payload)
        except BROKEN_JSON:
            raise PilotageError(
                "upstream_invalid", "The model's answer is not a message."
            ) from None
        call.answered_by = reply.model
        call.finish_reason = reply.stop_reason or ""
        if reply.usage is not None:
            note_usage(call, wire.normalise_usage(reply.usage))
        pieces = list(_read_blocks(reply.content))
        pieces.append(
            talk.End(_FINISH.get(call.finish_reason, talk.Finish.STOP), reply.stop_sequence)
        )
        return pieces

    def open(self, call: Call) -> "AnthropicReader":
        """Return what reads a streamed answer."""
        return AnthropicReader(call)


class AnthropicReader:
    """Read the events of one answer."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._usage = wire.MessageUsage()
        self._tools: dict[int, int] = {}  # which tool call of the answer a block is
        self._silent: set[int] = set()  # tool calls of which no argument has come yet
        self.is_done = False

    def read(self, data: bytes) -> list[talk.Piece]:
        """Return the pieces in one event's data."""
        try:
            event = _EVENT.decode(data)
        except BROKEN_JSON:
            raise PilotageError(
                "upstream_invalid", "An event of the model's answer is not valid JSON."
            ) from None
        if event.type == "content_block_delta" and event.delta is not None:
            return self._read_delta(event.index, event.delta)
        if event.type == "content_block_start" and event.content_block is not None:
            return self._read_start(event.index, event.content_block)
        if event.type == "content_block_stop" and event.index in self._silent:
            return [talk.ToolWords(self._tools[event.index], "{}")]
        if event.type == "message_start" and event.message is not None:
            self._call.answered_by = event.message.model
            self._usage.update(event.message.usage or wire.MessageUsage())
        elif event.type == "message_delta" and event.delta is not None:
            return self._read_end(event, event.delta)
        elif event.type == "message_stop":
            self.is_done = True
        elif event.type == "error":
            wire.raise_stream_error(event.error)
        return []

    def _read_start(self, index: int, block: ReplyBlock) -> list[talk.Piece]:
        if block.type != "tool_use":
            return list(_read_blocks([block]))
        self._tools[index] = len(self._tools)
        self._silent.add(index)
        return [talk.ToolStart(self._tools[index], block.id, block.name)]

    def _read_delta(self, index: int, delta: EventDelta) -> list[talk.Piece]:
        if delta.text:
            return [talk.Text(delta.text)]
        if delta.thinking:
            return [talk.Thought(delta.thinking)]
        if delta.partial_json and index in self._tools:
            self._silent.discard(index)
            return [talk.ToolWords(self._tools[index], delta.partial_json)]
        return []

    def _read_end(self, event: Event, delta: EventDelta) -> list[talk.Piece]:
        call = self._call
        if event.usage is not None:
            self._usage.update(event.usage)
            note_usage(call, wire.normalise_usage(self._usage))
        if not delta.stop_reason:
            return []
        call.finish_reason = delta.stop_reason
        finish = _FINISH.get(delta.stop_reason, talk.Finish.STOP)
        return [talk.End(finish, delta.stop_sequence)]


def _read_blocks(blocks: list[ReplyBlock]) -> Iterator[talk.Piece]:
    tools = 0
    for block in blocks:
        if block.type == "text" and block.text:
            yield talk.Text(block.text)
        elif block.type == "thinking" and block.thinking:
            yield talk.Thought(block.thinking)
        elif block.type == "tool_use":
            yield talk.ToolStart(tools, block.id, block.name)
            yield talk.ToolWords(tools, _write_input(block.input))
            tools += 1


def _write_input(arguments: msgspec.Raw) -> str:
    return bytes(arguments).decode() if is_said(arguments) else "{}"


def _write_turns(turns: list[talk.Turn]) -> tuple[Any, list[dict[str, Any]]]:
    """Return the system prompt and the messages: two turns of one side become one."""
    system: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for index, turn in enumerate(turns):
        blocks = [block for part in turn.parts if (block := _write_part(part, index))]
        if not blocks:
            continue
        if turn.role == "system" and not messages:
            system += blocks
        elif messages and messages[-1]["role"] == turn.role:
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": turn.role, "content": blocks})
    for message in messages:
        message["content"] = _shorten(message["content"])
    return _shorten(system) if system else None, messages


def _shorten(blocks: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - a text, or the blocks
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks


def _write_part(part: talk.Part, index: int) -> dict[str, Any] | None:
    if isinstance(part, talk.Text):
        return {"type": "text", "text": part.text} if part.text else None  # empty ones are refused
    if isinstance(part, talk.Image):
        return {"type": "image", "source": _write_source(part.url, _IMAGES, index)}
    if isinstance(part, talk.File):
        source = _write_source(part.url, frozenset({"application/pdf"}), index)
        return {"type": "document", "title": part.name, "source": source}
    if isinstance(part, talk.ToolCall):
        return {
            "type": "tool_use",
            "id": part.id,
            "name": part.name,
            "input": _read_arguments(part.arguments, index),
        }
    content = [block for each in part.parts if (block := _write_part(each, index))]
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.call_id}
    if content:
        result["content"] = _shorten(content)
    if part.is_error:
        result["is_error"] = True
    return result


def _write_source(url: str, kinds: frozenset[str], index: int) -> dict[str, str]:
    """Return where a picture or document is: its address, or its bytes."""
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    head, comma, data = url.partition(",")
    kind, _, encoding = head.removeprefix("data:").partition(";")
    if not url.startswith("data:") or not comma or encoding != "base64" or kind not in kinds:
        raise PilotageError(
            "invalid_request",
            f"The media of message {index} must be a URL or 'data:TYPE;base64,BYTES' with one of "
            f"the types {', '.join(sorted(kinds))}.",
            param=f"messages[{index}].content",
        )
    try:
        base64.b64decode(data, validate=True)
    except binascii.Error:
        raise PilotageError(
            "invalid_request",
            f"The media of message {index} is not valid base64.",
            param=f"messages[{index}].content",
        ) from None
    return {"type": "base64", "media_type": kind, "data": data}


def _read_arguments(arguments: str, index: int) -> msgspec.Raw:
    """Return a tool call's arguments as the object that this wire wants."""
    text = arguments.strip().encode() or b"{}"
    try:
        _OBJECT.decode(text)
    except BROKEN_JSON:
        raise PilotageError(
            "invalid_request",
            f"The arguments of a tool call in message {index} are not a JSON object.",
            param=f"messages[{index}].tool_calls",
        ) from None
    return msgspec.Raw(text)


def _write_tool(tool: talk.Tool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": tool.name,
        "input_schema": tool.schema if tool.schema is not None else _NO_SCHEMA,
    }
    if tool.description is not None:
        fields["description"] = tool.description
    if tool.is_strict is not None:
        fields["strict"] = tool.is_strict
    return fields


def _write_choice(said: talk.Talk) -> dict[str, Any] | None:
    kind = {"one": "tool"}.get(said.tool_choice, said.tool_choice)
    if not said.tools:
        return None
    if said.is_parallel is not False or kind == "none":
        if not kind:
            return None
        return {"type": kind, "name": said.tool_name} if kind == "tool" else {"type": kind}
    choice: dict[str, Any] = {"type": kind or "auto", "disable_parallel_tool_use": True}
    if kind == "tool":
        choice["name"] = said.tool_name
    return choice


def _write_config(said: talk.Talk) -> dict[str, Any] | None:
    config: dict[str, Any] = {}
    if said.effort is not None and said.effort != "none":
        if said.effort not in _EFFORTS:
            raise refuse("reasoning_effort", NAME, f"It may be {', '.join(_EFFORTS)} or none.")
        config["effort"] = _EFFORTS[said.effort]
    if said.schema is not None:
        if said.schema.schema is None:
            raise refuse("response_format", NAME, "Give a schema: {'type': 'json_schema', ...}.")
        config["format"] = {"type": "json_schema", "schema": said.schema.schema}
    return config or None
