"""Models that speak the OpenAI wire, for clients of another: requests written, answers read."""

from collections.abc import Iterator
from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call
from pilotage.gateway.providers.answer import upstream_model
from pilotage.gateway.providers.openai import note_wire_usage
from pilotage.gateway.wire import openai as wire
from pilotage.gateway.wire import talk
from pilotage.gateway.wire.door import BROKEN_JSON, refuse

NAME = "openai"
_FINISH = {
    "stop": talk.Finish.STOP,
    "length": talk.Finish.LENGTH,
    "tool_calls": talk.Finish.TOOLS,
    "function_call": talk.Finish.TOOLS,
    "content_filter": talk.Finish.REFUSAL,
}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class FunctionWords(msgspec.Struct):
    """The function of a tool call, or the next letters of it."""

    name: str | None = None
    arguments: str | None = None


class ToolWords(msgspec.Struct):
    """A tool call, or the next letters of it."""

    index: int | None = None
    id: str | None = None
    function: FunctionWords | None = None


class Words(msgspec.Struct):
    """What an answer says, or a chunk adds."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolWords] | None = None


class Choice(msgspec.Struct):
    """The one choice of an answer or a chunk."""

    message: Words | None = None
    delta: Words | None = None
    finish_reason: str | None = None


class Said(msgspec.Struct):
    """A whole answer or a chunk, with its words."""

    choices: list[Choice] = []
    model: str = ""
    system_fingerprint: str | None = None
    usage: wire.WireUsage | None = None
    error: dict[str, msgspec.Raw] | str | None = None


_SAID = msgspec.json.Decoder(Said)
_ENCODE = msgspec.json.Encoder().encode


class OpenAiSpeech:
    """How a talk is said to an OpenAI model, or a local one."""

    path = b"/chat/completions"
    name = NAME

    def write(self, call: Call, said: talk.Talk) -> bytes:
        """Return the body of the request; raise ``unsupported`` for what the wire cannot say."""
        is_ours = call.arm is None or not call.arm.upstream_id
        if said.top_k is not None and not is_ours:
            raise refuse("top_k", NAME)
        body: dict[str, Any] = {
            "model": upstream_model(call) or call.alias_name,
            "messages": [each for turn in said.turns for each in _write_turn(turn)],
            "max_tokens" if is_ours else "max_completion_tokens": call.output_limit,
            "stream": True if call.request.stream else None,
            "stream_options": {"include_usage": True} if call.request.stream else None,
            "stop": said.stop or None,
            "temperature": said.temperature,
            "top_p": said.top_p,
            "top_k": said.top_k,
            "user": said.user or None,
            "reasoning_effort": said.effort,
            "tools": [_write_tool(tool) for tool in said.tools] or None,
            "tool_choice": _write_choice(said),
            "parallel_tool_calls": said.is_parallel if said.tools else None,
            "response_format": _write_format(said.schema),
        }
        return _ENCODE({name: value for name, value in body.items() if value is not None})

    def read(self, call: Call, payload: bytes) -> list[talk.Piece]:
        """Return the pieces of a whole reply, and note on the call what it says of itself."""
        said = _decode(payload)
        choice = said.choices[0] if said.choices else Choice()
        if choice.message is None:
            raise PilotageError("upstream_invalid", "The model's answer has no choice.")
        call.answered_by = said.model
        call.fingerprint = said.system_fingerprint or ""
        call.finish_reason = choice.finish_reason or ""
        note_wire_usage(call, said.usage)
        reader = OpenAiReader(call)
        pieces = list(reader.read_words(choice.message))
        pieces.append(reader.end(choice.finish_reason or "stop"))
        return pieces

    def open(self, call: Call) -> "OpenAiReader":
        """Return what reads a streamed answer."""
        return OpenAiReader(call)


class OpenAiReader:
    """Read the chunks of one answer."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._calls: dict[int, int] = {}  # place in the answer, by the index that the model gave
        self.is_done = False

    def read(self, data: bytes) -> list[talk.Piece]:
        """Return the pieces in one chunk."""
        if data == b"[DONE]":
            self.is_done = True
            return []
        chunk, call = _decode(data), self._call
        if chunk.error is not None:
            raise PilotageError("upstream_error", "The model broke off with an error.")
        if not call.answered_by:
            call.answered_by = chunk.model
            call.fingerprint = chunk.system_fingerprint or ""
        note_wire_usage(call, chunk.usage)
        if not chunk.choices:
            return []
        choice = chunk.choices[0]
        pieces = list(self.read_words(choice.delta)) if choice.delta is not None else []
        if choice.finish_reason is not None:
            call.finish_reason = choice.finish_reason
            pieces.append(self.end(choice.finish_reason))
        return pieces

    def read_words(self, words: Words) -> Iterator[talk.Piece]:
        """Give the pieces of an answer's words, or of a chunk's."""
        if thought := words.reasoning_content or words.reasoning:
            yield talk.Thought(thought)
        if words.content:
            yield talk.Text(words.content)
        if words.refusal:
            yield talk.Refusal(words.refusal)
        for place, call in enumerate(words.tool_calls or []):
            yield from self._read_call(call, place)

    def end(self, reason: str) -> talk.End:
        """Return the end of an answer; one with tool calls waits for them, whatever it says."""
        finish = _FINISH.get(reason, talk.Finish.STOP)
        if finish is talk.Finish.STOP and self._calls:
            finish = talk.Finish.TOOLS
        return talk.End(finish)

    def _read_call(self, call: ToolWords, place: int) -> Iterator[talk.Piece]:
        index = place if call.index is None else call.index
        function = call.function or FunctionWords()
        if index not in self._calls:
            self._calls[index] = len(self._calls)
            own_id = call.id or f"call_{self._call.id.partition('_')[2]}_{self._calls[index]}"
            yield talk.ToolStart(self._calls[index], own_id, function.name or "")
        if function.arguments:
            yield talk.ToolWords(self._calls[index], function.arguments)


def _decode(data: bytes) -> Said:
    try:
        return _SAID.decode(data)
    except BROKEN_JSON:
        raise PilotageError("upstream_invalid", "The model's answer is not valid JSON.") from None


def _write_turn(turn: talk.Turn) -> Iterator[dict[str, Any]]:
    """Give the messages of a turn: what tools returned comes first, each in its own."""
    for part in turn.parts:
        if isinstance(part, talk.ToolResult):
            yield _write_result(part)
    said = [part for part in turn.parts if isinstance(part, talk.Text | talk.Image | talk.File)]
    calls = [_write_call(part) for part in turn.parts if isinstance(part, talk.ToolCall)]
    if not said and not calls:
        return
    message: dict[str, Any] = {"role": turn.role, "content": _write_content(said)}
    if calls:
        message["tool_calls"] = calls
    yield message


def _write_content(parts: list[talk.Text | talk.Image | talk.File]) -> Any:  # noqa: ANN401
    """Return a text where there is nothing else, as simple servers want it; else the parts."""
    if not parts:
        return None
    if len(parts) == 1 and isinstance(parts[0], talk.Text):
        return parts[0].text
    return [_write_part(part) for part in parts]


def _write_part(part: talk.Text | talk.Image | talk.File) -> dict[str, Any]:
    if isinstance(part, talk.Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, talk.File):
        return {"type": "file", "file": {"filename": part.name, "file_data": part.url}}
    image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
    return {"type": "image_url", "image_url": image}


def _write_result(result: talk.ToolResult) -> dict[str, Any]:
    texts = [part.text for part in result.parts if isinstance(part, talk.Text)]
    if len(texts) < len(result.parts):
        raise refuse("tool_result.content", NAME, "A tool may return words only there.")
    text = "\n\n".join(texts)
    content = f"Error: {text}" if result.is_error else text
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}


def _write_call(call: talk.ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _write_tool(tool: talk.Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.schema is not None:
        function["parameters"] = tool.schema
    if tool.is_strict is not None:
        function["strict"] = tool.is_strict
    return {"type": "function", "function": function}


def _write_choice(said: talk.Talk) -> Any:  # noqa: ANN401 - a word, or a function
    if not said.tools or not said.tool_choice:
        return None
    if said.tool_choice == "one":
        return {"type": "function", "function": {"name": said.tool_name}}
    return _CHOICES[said.tool_choice]


def _write_format(schema: talk.Schema | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    if schema.schema is None:
        return {"type": "json_object"}
    fields: dict[str, Any] = {"name": schema.name, "schema": schema.schema}
    if schema.description is not None:
        fields["description"] = schema.description
    if schema.is_strict is not None:
        fields["strict"] = schema.is_strict
    return {"type": "json_schema", "json_schema": fields}
