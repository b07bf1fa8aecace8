"""The chat wire for models of another wire: requests read whole, answers written anew.

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
    is_said,
    pick,
    read_exactly,
    refuse,
    refuse_other_values,
)

Dropped = Any


class TextPart(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A part of words."""

    text: str
    prompt_cache_breakpoint: Dropped = None


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    """A part of an earlier answer that declined."""

    refusal: str


class ImageUrl(msgspec.Struct, forbid_unknown_fields=True):
    """Where a picture is."""

    url: str
    detail: str | None = None


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url", forbid_unknown_fields=True):
    """A picture."""

    image_url: ImageUrl
    prompt_cache_breakpoint: Dropped = None


class FileBody(msgspec.Struct, forbid_unknown_fields=True):
    """A document's bytes; one that was uploaded to a provider cannot be carried over."""

    file_data: str
    filename: str = "document"


class FilePart(msgspec.Struct, tag_field="type", tag="file", forbid_unknown_fields=True):
    """A document."""

    file: FileBody
    prompt_cache_breakpoint: Dropped = None


class FunctionCall(msgspec.Struct, forbid_unknown_fields=True):
    """The function of a tool call."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """A tool call of an earlier answer."""

    id: str
    function: FunctionCall
    index: Dropped = None


class SystemMessage(msgspec.Struct, tag_field="role", tag="system", forbid_unknown_fields=True):
    """Instructions."""

    content: str | list[TextPart]
    name: Dropped = None


class DeveloperMessage(
    msgspec.Struct, tag_field="role", tag="developer", forbid_unknown_fields=True
):
    """Instructions, by their newer name."""

    content: str | list[TextPart]
    name: Dropped = None


class UserMessage(msgspec.Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    """What the user says and shows."""

    content: str | list[TextPart | ImagePart | FilePart]
    name: Dropped = None


class AssistantMessage(
    msgspec.Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True
):
    """An earlier answer; its reasoning is not said again."""

    content: str | list[TextPart | RefusalPart] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: None = None
    audio: None = None
    name: Dropped = None
    annotations: Dropped = None
    reasoning_content: Dropped = None
    reasoning: Dropped = None


class ToolMessage(msgspec.Struct, tag_field="role", tag="tool", forbid_unknown_fields=True):
    """What a tool returned."""

    tool_call_id: str
    content: str | list[TextPart]
    name: Dropped = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(msgspec.Struct, forbid_unknown_fields=True):
    """A function that the client offers."""

    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None


class FunctionTool(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """A tool that is a function."""

    function: Function


class FunctionName(msgspec.Struct, forbid_unknown_fields=True):
    """A function by name."""

    name: str


class NamedTool(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """The one tool that must be called."""

    function: FunctionName


class JsonSchema(msgspec.Struct, forbid_unknown_fields=True):
    """The schema of an answer."""

    name: str
    schema: msgspec.Raw = ABSENT
    description: str | None = None
    strict: bool | None = None


class TextFormat(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """An answer in words."""


class ObjectFormat(msgspec.Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    """An answer that is any JSON object."""


class SchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    """An answer after a schema."""

    json_schema: JsonSchema


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """A chat request, all of it."""

    model: str
    messages: list[Message]
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | ObjectFormat | SchemaFormat | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    stream: bool | None = None
    # the door has read them
    stream_options: Dropped = None
    max_tokens: Dropped = None
    max_completion_tokens: Dropped = None
    n_predict: Dropped = None
    # said to the provider's store, cache and safety desk, not to the model
    metadata: Dropped = None
    prediction: Dropped = None
    prompt_cache_key: Dropped = None
    prompt_cache_options: Dropped = None
    prompt_cache_retention: Dropped = None
    safety_identifier: Dropped = None
    # allowed as long as they ask for nothing
    audio: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    modalities: Any = None
    n: Any = None
    n_cmpl: Any = None
    presence_penalty: Any = None
    seed: Any = None
    service_tier: Any = None
    store: Any = None
    top_logprobs: Any = None
    verbosity: Any = None
    web_search_options: Any = None


ASK_NOTHING: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
    "n": (None, 1),
    "n_cmpl": (None, 1),
    "presence_penalty": (None, 0),
    "seed": (None,),
    "service_tier": (None, "auto", "default"),
    "store": (None, False),
    "top_logprobs": (None, 0),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
}
_REQUEST = msgspec.json.Decoder(Request)
_ENCODE = msgspec.json.Encoder().encode
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
_FINISH = {
    talk.Finish.STOP: "stop",
    talk.Finish.STOP_SEQUENCE: "stop",
    talk.Finish.LENGTH: "length",
    talk.Finish.TOOLS: "tool_calls",
    talk.Finish.REFUSAL: "content_filter",
}


def read_request(body: bytes, target: str) -> talk.Talk:
    """Read a chat request whole; raise ``unsupported`` for what no other wire can say."""
    request = read_exactly(_REQUEST, body, target)
    refuse_other_values(request, ASK_NOTHING, target)
    choice, name = _read_choice(request.tool_choice, target)
    return talk.Talk(
        turns=[_read_message(message) for message in request.messages],
        tools=[_read_tool(tool.function) for tool in request.tools or []],
        tool_choice=choice,
        tool_name=name,
        is_parallel=request.parallel_tool_calls,
        schema=_read_format(request.response_format),
        stop=[request.stop] if isinstance(request.stop, str) else request.stop or [],
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        effort=request.reasoning_effort,
        user=request.user or "",
    )


class Head:
    """What all chunks of an answer have in common."""

    def __init__(self, call_id: str, created_s: int, model: str) -> None:
        self.id = f"chatcmpl-{call_id.partition('_')[2]}"
        self.created_s = created_s
        self.model = model

    def frame(self, kind: str, choices: list[Any], usage: Usage | None = None) -> bytes:
        """Return a completion or a chunk."""
        fields: dict[str, Any] = {
            "id": self.id,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
            "choices": choices,
        }
        if usage is not None:
            fields["usage"] = show_usage(usage)
        return _ENCODE(fields)


class ChatWriter:
    """Write an answer as chat chunks, or as one completion."""

    def __init__(self, call_id: str, created_s: int, model: str, *, wants_usage: bool) -> None:
        self._head = Head(call_id, created_s, model)
        self._wants_usage = wants_usage
        self._is_open = False

    def begin(self) -> list[bytes]:
        """Return the chunk that says whose turn it is."""
        return [self._chunk({"role": "assistant", "content": ""})]

    def write(self, piece: talk.Piece) -> list[bytes]:
        """Return the chunks of a piece."""
        if isinstance(piece, talk.Text):
            return [self._chunk({"content": piece.text})]
        if isinstance(piece, talk.Thought):
            return [self._chunk({"reasoning_content": piece.text})]
        if isinstance(piece, talk.Refusal):
            return [self._chunk({"refusal": piece.text})]
        if isinstance(piece, talk.ToolWords):
            call: dict[str, Any] = {"index": piece.index, "function": {"arguments": piece.text}}
            return [self._chunk({"tool_calls": [call]})]
        if isinstance(piece, talk.ToolStart):
            function = {"name": piece.name, "arguments": ""}
            call = {"index": piece.index, "id": piece.id, "type": "function", "function": function}
            return [self._chunk({"tool_calls": [call]})]
        return [self._chunk({}, _FINISH[piece.finish])]

    def finish(self, usage: Usage | None) -> list[bytes]:
        """Return what comes after the last piece: the usage, if the client asked for it."""
        if not self._wants_usage or usage is None:
            return []
        return [_event(self._head.frame("chat.completion.chunk", [], usage))]

    def compose(self, pieces: Iterable[talk.Piece], usage: Usage | None) -> bytes:
        """Return the whole completion."""
        text: list[str] = []
        thoughts: list[str] = []
        refusals: list[str] = []
        calls: dict[int, dict[str, Any]] = {}
        finish = talk.Finish.STOP
        for piece in pieces:
            if isinstance(piece, talk.Text):
                text.append(piece.text)
            elif isinstance(piece, talk.Thought):
                thoughts.append(piece.text)
            elif isinstance(piece, talk.Refusal):
                refusals.append(piece.text)
            elif isinstance(piece, talk.ToolStart):
                function = {"name": piece.name, "arguments": ""}
                calls[piece.index] = {"id": piece.id, "type": "function", "function": function}
            elif isinstance(piece, talk.ToolWords):
                calls[piece.index]["function"]["arguments"] += piece.text
            else:
                finish = piece.finish
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(text) if text or not calls else None,
            "refusal": "".join(refusals) or None,
        }
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        if calls:
            message["tool_calls"] = list(calls.values())
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _FINISH[finish],
        }
        return self._head.frame("chat.completion", [choice], usage)

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event(self._head.frame("chat.completion.chunk", [choice]))


def show_usage(usage: Usage) -> dict[str, Any]:
    """Return a usage as this wire has it: the whole prompt, and what of it was cached."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _read_message(message: Message) -> talk.Turn:
    if isinstance(message, ToolMessage):
        result = talk.ToolResult(message.tool_call_id, [*_read_texts(message.content)])
        return talk.Turn("user", [result])
    if isinstance(message, AssistantMessage):
        return talk.Turn("assistant", _read_answer(message))
    if isinstance(message, UserMessage):
        if isinstance(message.content, str):
            return talk.Turn("user", [talk.Text(message.content)])
        return talk.Turn("user", [_read_part(part) for part in message.content])
    return talk.Turn("system", [*_read_texts(message.content)])


def _read_texts(content: str | list[TextPart]) -> list[talk.Text]:
    if isinstance(content, str):
        return [talk.Text(content)]
    return [talk.Text(part.text) for part in content]


def _read_part(part: TextPart | ImagePart | FilePart) -> talk.Part:
    if isinstance(part, TextPart):
        return talk.Text(part.text)
    if isinstance(part, ImagePart):
        return talk.Image(part.image_url.url, part.image_url.detail)
    return talk.File(part.file.file_data, part.file.filename)


def _read_answer(message: AssistantMessage) -> list[talk.Part]:
    parts: list[talk.Part] = []
    if isinstance(message.content, str):
        parts.append(talk.Text(message.content))
    else:
        parts += [
            talk.Text(part.text if isinstance(part, TextPart) else part.refusal)
            for part in message.content or []
        ]
    if message.refusal:
        parts.append(talk.Text(message.refusal))
    parts += [
        talk.ToolCall(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls or []
    ]
    return parts


def _read_tool(function: Function) -> talk.Tool:
    return talk.Tool(
        function.name,
        function.description,
        pick(function.parameters),
        function.strict,
    )


def _read_choice(choice: str | NamedTool | None, target: str) -> tuple[str, str]:
    if isinstance(choice, NamedTool):
        return "one", choice.function.name
    if choice is None:
        return "", ""
    if choice not in _CHOICES:
        raise refuse("tool_choice", target, f"It may be {', '.join(_CHOICES)} or a function.")
    return _CHOICES[choice], ""


def _read_format(said: TextFormat | ObjectFormat | SchemaFormat | None) -> talk.Schema | None:
    if said is None or isinstance(said, TextFormat):
        return None
    if isinstance(said, ObjectFormat):
        return talk.Schema(None)
    wanted = said.json_schema
    if not is_said(wanted.schema):
        raise PilotageError(
            "invalid_request", "'schema' is missing.", param="response_format.json_schema.schema"
        )
    return talk.Schema(wanted.schema, wanted.name, wanted.description, wanted.strict)
