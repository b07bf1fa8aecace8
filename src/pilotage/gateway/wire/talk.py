"""What every wire of conversations can say: turns and tools in, one answer out.

A call that comes by one wire and leaves by another is read into a :class:`Talk` and written again;
its answer comes back as :class:`Piece` after piece, whole or streamed. So each wire is known in one
place, and nobody translates between two of them.
"""

from enum import StrEnum

import msgspec


class Text(msgspec.Struct, frozen=True):
    """Words; as a piece of an answer, the next ones."""

    text: str


class Image(msgspec.Struct, frozen=True):
    """A picture: an ``https:`` address, or its bytes as a ``data:`` address."""

    url: str
    detail: str | None = None


class File(msgspec.Struct, frozen=True):
    """A document as a ``data:`` address."""

    url: str
    name: str


class ToolCall(msgspec.Struct, frozen=True):
    """A tool that the model wants run; ``arguments`` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool returned."""

    call_id: str
    parts: list[Text | Image]
    is_error: bool = False


Part = Text | Image | File | ToolCall | ToolResult


class Turn(msgspec.Struct, frozen=True):
    """What one side said; ``role`` is system, user or assistant. Tools answer as the user."""

    role: str
    parts: list[Part]


class Tool(msgspec.Struct, frozen=True):
    """A function that the client offers."""

    name: str
    description: str | None
    schema: msgspec.Raw | None
    is_strict: bool | None = None


class Schema(msgspec.Struct, frozen=True):
    """What an answer must look like; ``schema`` None is any JSON object."""

    schema: msgspec.Raw | None
    name: str = "answer"
    description: str | None = None
    is_strict: bool | None = None


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    """A request, free of any wire. The output limit is the call's.

    ``tool_choice`` is auto, any, none or one, which names ``tool_name``; "" is the model's default.
    ``effort`` is how much the model shall reason (none, minimal, low, medium, high, xhigh, max).
    """

    turns: list[Turn]
    tools: list[Tool] = []
    tool_choice: str = ""
    tool_name: str = ""
    is_parallel: bool | None = None
    schema: Schema | None = None
    stop: list[str] = []
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    effort: str | None = None
    user: str = ""


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    TOOLS = "tools"
    REFUSAL = "refusal"


class Thought(msgspec.Struct, frozen=True):
    """Reasoning that the model shows; the next words of it."""

    text: str


class Refusal(msgspec.Struct, frozen=True):
    """Words with which the model declines; the next ones."""

    text: str


class ToolStart(msgspec.Struct, frozen=True):
    """A tool call begins; ``index`` counts the tool calls of the answer."""

    index: int
    id: str
    name: str


class ToolWords(msgspec.Struct, frozen=True):
    """The next letters of a tool call's arguments."""

    index: int
    text: str


class End(msgspec.Struct, frozen=True):
    """The answer is whole; ``sequence`` is the stop sequence it met."""

    finish: Finish
    sequence: str | None = None


Piece = Text | Thought | Refusal | ToolStart | ToolWords | End
