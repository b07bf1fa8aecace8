"""The responses wire for models of another wire: requests read whole.

The types here are the list of what can be carried over: what they do not have is refused by name.
A field typed :data:`Dropped` changes nothing that matters and is left out.
"""

from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.gateway.wire import talk
from pilotage.gateway.wire.door import ABSENT, pick, read_exactly, refuse, refuse_other_values

Dropped = Any


class InputText(msgspec.Struct, tag_field="type", tag="input_text", forbid_unknown_fields=True):
    """Words."""

    text: str
    prompt_cache_breakpoint: Dropped = None


class OutputText(msgspec.Struct, tag_field="type", tag="output_text", forbid_unknown_fields=True):
    """Words of an earlier answer."""

    text: str
    annotations: Dropped = None
    logprobs: Dropped = None


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    """Words with which an earlier answer declined."""

    refusal: str


class InputImage(msgspec.Struct, tag_field="type", tag="input_image", forbid_unknown_fields=True):
    """A picture; one that was uploaded to a provider cannot be carried over."""

    image_url: str
    detail: str | None = None
    file_id: None = None
    prompt_cache_breakpoint: Dropped = None


class InputFile(msgspec.Struct, tag_field="type", tag="input_file", forbid_unknown_fields=True):
    """A document's bytes."""

    file_data: str
    filename: str = "document"
    file_id: None = None
    prompt_cache_breakpoint: Dropped = None


Content = InputText | OutputText | RefusalPart | InputImage | InputFile


class MessageItem(msgspec.Struct, forbid_unknown_fields=True):
    """What one side said."""

    role: str
    content: str | list[Content]
    type: Dropped = None
    id: Dropped = None
    status: Dropped = None
    phase: Dropped = None


class CallItem(msgspec.Struct, forbid_unknown_fields=True):
    """A tool call of an earlier answer."""

    call_id: str
    name: str
    arguments: str
    type: Dropped = None
    id: Dropped = None
    status: Dropped = None
    caller: Dropped = None


class OutputItem(msgspec.Struct, forbid_unknown_fields=True):
    """What a tool returned."""

    call_id: str
    output: str | list[InputText | InputImage]
    type: Dropped = None
    id: Dropped = None
    status: Dropped = None
    caller: Dropped = None
    name: Dropped = None


class Kind(msgspec.Struct):
    """What kind of item it is; a message need not say so."""

    type: str | None = None


class FunctionTool(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """A function that the client offers. Other tools are the provider's own."""

    name: str
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None
    description: str | None = None


class NamedTool(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """The one tool that must be called."""

    name: str


class TextFormat(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """An answer in words."""


class ObjectFormat(msgspec.Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    """An answer that is any JSON object."""


class SchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    """An answer after a schema."""

    name: str
    schema: msgspec.Raw
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What an answer looks like."""

    format: TextFormat | ObjectFormat | SchemaFormat | None = None
    verbosity: Any = None


class Reasoning(msgspec.Struct, forbid_unknown_fields=True):
    """How much the model shall reason; what it shows of it is its own matter."""

    effort: str | None = None
    summary: Dropped = None
    generate_summary: Dropped = None


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """A responses request, all of it."""

    model: str
    input: str | list[msgspec.Raw]
    instructions: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    user: str | None = None
    stream: bool | None = None
    # the door has read them
    max_output_tokens: Dropped = None
    stream_options: Dropped = None
    # said to the provider's cache and safety desk, not to the model
    metadata: Dropped = None
    prompt_cache_key: Dropped = None
    prompt_cache_options: Dropped = None
    prompt_cache_retention: Dropped = None
    safety_identifier: Dropped = None
    # allowed as long as they ask for nothing
    background: Any = None
    context_management: Any = None
    conversation: Any = None
    include: Any = None
    max_tool_calls: Any = None
    previous_response_id: Any = None
    prompt: Any = None
    service_tier: Any = None
    store: Any = None
    top_logprobs: Any = None
    truncation: Any = None


ASK_NOTHING: dict[str, tuple[Any, ...]] = {
    "background": (None, False),
    "context_management": (None,),
    "conversation": (None,),
    "include": (None, [], ["reasoning.encrypted_content"]),
    "max_tool_calls": (None,),
    "previous_response_id": (None,),
    "prompt": (None,),
    "service_tier": (None, "auto", "default"),
    "store": (None, False),
    "top_logprobs": (None, 0),
    "truncation": (None, "disabled"),
}
_REQUEST = msgspec.json.Decoder(Request)
_KIND = msgspec.json.Decoder(Kind)
_MESSAGE = msgspec.json.Decoder(MessageItem)
_CALL = msgspec.json.Decoder(CallItem)
_OUTPUT = msgspec.json.Decoder(OutputItem)
_KINDS = ("message", "function_call", "function_call_output", "reasoning")
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def read_request(body: bytes, target: str) -> talk.Talk:
    """Read a responses request whole; raise ``unsupported`` for what no other wire can say."""
    request = read_exactly(_REQUEST, body, target)
    refuse_other_values(request, ASK_NOTHING, target)
    choice, name = _read_choice(request.tool_choice, target)
    return talk.Talk(
        turns=_read_turns(request, target),
        tools=[
            talk.Tool(
                tool.name,
                tool.description,
                pick(tool.parameters),
                tool.strict,
            )
            for tool in request.tools or []
        ],
        tool_choice=choice,
        tool_name=name,
        is_parallel=request.parallel_tool_calls,
        schema=_read_format(request.text, target),
        temperature=request.temperature,
        top_p=request.top_p,
        effort=request.reasoning.effort if request.reasoning else None,
        user=request.user or "",
    )


def _read_turns(request: Request, target: str) -> list[talk.Turn]:
    """Return the turns; what an answer said and what it called are one turn again."""
    turns: list[talk.Turn] = []
    if request.instructions:
        turns.append(talk.Turn("system", [talk.Text(request.instructions)]))
    if isinstance(request.input, str):
        return [*turns, talk.Turn("user", [talk.Text(request.input)])]
    for index, raw in enumerate(request.input):
        turn = _read_item(raw, index, target)
        if turn is None:
            continue
        if turns and turn.role == turns[-1].role == "assistant":
            turn = talk.Turn("assistant", [*turns.pop().parts, *turn.parts])
        turns.append(turn)
    if not turns:
        raise PilotageError("invalid_request", "'input' has nothing to answer.", param="input")
    return turns


def _read_item(raw: msgspec.Raw, index: int, target: str) -> talk.Turn | None:
    place = f"input[{index}]"
    try:
        kind = read_exactly(_KIND, raw, target).type or "message"
        if kind == "message":
            return _read_message(read_exactly(_MESSAGE, raw, target), target)
        if kind == "function_call":
            call = read_exactly(_CALL, raw, target)
            return talk.Turn("assistant", [talk.ToolCall(call.call_id, call.name, call.arguments)])
        if kind == "function_call_output":
            output = read_exactly(_OUTPUT, raw, target)
            return talk.Turn("user", [talk.ToolResult(output.call_id, _read_output(output.output))])
    except PilotageError as wrong:
        where = f"{place}.{wrong.param}" if wrong.param else place
        if wrong.code == "unsupported":
            raise refuse(where, target, wrong.hint) from None
        raise PilotageError(wrong.code, wrong.detail, hint=wrong.hint, param=where) from None
    if kind not in _KINDS:
        raise refuse(f"{place}.type", target, f"It may be {', '.join(_KINDS)}.")
    return None  # reasoning of an earlier answer is not said again


def _read_message(message: MessageItem, target: str) -> talk.Turn:
    if message.role not in _ROLES:
        raise refuse("role", target, f"It may be {', '.join(_ROLES)}.")
    if isinstance(message.content, str):
        return talk.Turn(_ROLES[message.role], [talk.Text(message.content)])
    return talk.Turn(_ROLES[message.role], [_read_part(part) for part in message.content])


def _read_output(output: str | list[InputText | InputImage]) -> list[talk.Text | talk.Image]:
    if isinstance(output, str):
        return [talk.Text(output)]
    return [
        talk.Text(part.text)
        if isinstance(part, InputText)
        else talk.Image(part.image_url, part.detail)
        for part in output
    ]


def _read_part(part: Content) -> talk.Part:
    if isinstance(part, InputText | OutputText):
        return talk.Text(part.text)
    if isinstance(part, RefusalPart):
        return talk.Text(part.refusal)
    if isinstance(part, InputImage):
        return talk.Image(part.image_url, part.detail)
    return talk.File(part.file_data, part.filename)


def _read_choice(choice: str | NamedTool | None, target: str) -> tuple[str, str]:
    if isinstance(choice, NamedTool):
        return "one", choice.name
    if choice is None:
        return "", ""
    if choice not in _CHOICES:
        raise refuse("tool_choice", target, f"It may be {', '.join(_CHOICES)} or a function.")
    return _CHOICES[choice], ""


def _read_format(config: TextConfig | None, target: str) -> talk.Schema | None:
    if config is None:
        return None
    if config.verbosity not in (None, "medium"):
        raise refuse("text.verbosity", target)
    wanted = config.format
    if wanted is None or isinstance(wanted, TextFormat):
        return None
    if isinstance(wanted, ObjectFormat):
        return talk.Schema(None)
    return talk.Schema(wanted.schema, wanted.name, wanted.description, wanted.strict)
