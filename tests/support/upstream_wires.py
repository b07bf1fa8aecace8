"""What a faulty model server says on each wire: the events and bodies of a right answer.

A *dialect* gives the parts of an answer; the faults (upstream_faults.py) send them well or badly,
whatever wire it is. To teach the server another wire, add its dialect and its path to DIALECTS.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

MODEL = "faulty-1"
CREATED = 1_700_000_000
DIMENSIONS = 4


@dataclass(slots=True, kw_only=True)
class Plan:
    """What the last user message asks for."""

    fault: str = "none"
    chunks: int = 5
    delay_ms: float = 0.0
    prompt_tokens: int = 9
    completion_tokens: int | None = None
    after: int = 2
    status: int = 500
    retry_after: float | None = None
    body: Any = None
    bytes: int = 1_000_000
    times: int | None = None
    text: str | None = None
    thinking: str = ""
    calls: list[dict[str, Any]] | None = None
    finish: str | None = None
    cached: int = 0
    written: int = 0
    reasoning: int = 0

    @property
    def output(self) -> int:
        """Return the tokens of the answer; ``lie_usage`` makes parts that cannot be."""
        said = self.chunks if self.completion_tokens is None else self.completion_tokens
        return said * 1000 + 1 if self.fault == "lie_usage" else said

    @property
    def texts(self) -> list[str]:
        """Return the words of the answer, chunk by chunk; tool calls come without any."""
        if self.text is not None:
            return [word for word in self.text.split("|") if word]
        return [] if self.calls else [f"tok{n} " for n in range(self.chunks)]


Event = tuple[str, object]  # its name ("" on wires without) and its data


class Dialect(Protocol):
    """The parts of an answer on one wire."""

    done: bytes

    def __init__(self, plan: Plan, body: Mapping[str, Any], number: int) -> None: ...

    def open(self) -> list[Event]:
        """Return the events before any content."""
        ...

    def contents(self) -> Iterator[list[Event]]:
        """Give the content, chunk by chunk."""
        ...

    def finish(self) -> list[Event]:
        """Return the events that say the answer is finished."""
        ...

    def count(self) -> list[Event]:
        """Return the events after that, before ``done``."""
        ...

    def whole(self) -> dict[str, Any]:
        """Return the answer as one body."""
        ...

    def error(self, message: str, kind: str) -> dict[str, Any]:
        """Return an error's body."""
        ...


def _name_model(plan: Plan, body: Mapping[str, Any]) -> str:
    return "someone-else" if plan.fault == "wrong_model" else str(body.get("model", MODEL))


def make_error(message: str, kind: str) -> dict[str, Any]:
    """Return an error as the OpenAI wire has it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


class Chat:
    """``/chat/completions``."""

    done = b"data: [DONE]\n\n"
    kind = "chat.completion"

    def __init__(self, plan: Plan, body: Mapping[str, Any], number: int) -> None:
        self.plan = plan
        self.body = body
        self.number = number
        self.wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))

    def open(self) -> list[Event]:
        return [self.chunk({"role": "assistant", "content": ""})]

    def contents(self) -> Iterator[list[Event]]:
        if self.plan.thinking:
            yield [self.chunk({"reasoning_content": self.plan.thinking})]
        for text in self.plan.texts:
            yield [self.chunk({"content": text})]
        for index, call in enumerate(self._calls()):
            function, text = call["function"], call["function"]["arguments"]
            head = {**call, "index": index, "function": {**function, "arguments": ""}}
            yield [self.chunk({"tool_calls": [head]})]
            for part in (text[: len(text) // 2], text[len(text) // 2 :]):
                words = {"index": index, "function": {"arguments": part}}
                yield [self.chunk({"tool_calls": [words]})]

    def finish(self) -> list[Event]:
        return [self.chunk({}, self._reason())]

    def count(self) -> list[Event]:
        if not self.wants_usage:
            return []
        return [("", {**self._frame(f"{self.kind}.chunk"), "choices": [], "usage": self.usage()})]

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.plan.texts)}
        if self.plan.thinking:
            message["reasoning_content"] = self.plan.thinking
        if self.plan.calls:
            message |= {"content": message["content"] or None, "tool_calls": self._calls()}
        choice = {"index": 0, "message": message, "finish_reason": self._reason()}
        return {**self._frame(self.kind), "choices": [choice], "usage": self.usage()}

    def error(self, message: str, kind: str) -> dict[str, Any]:
        return make_error(message, kind)

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> Event:
        """Return one chunk."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return "", {**self._frame(f"{self.kind}.chunk"), "choices": [choice]}

    def usage(self) -> dict[str, Any]:
        """Return the usage that belongs to the plan."""
        plan = self.plan
        total = -1 if plan.fault == "lie_usage" else plan.prompt_tokens + plan.output
        usage: dict[str, Any] = {
            "prompt_tokens": plan.prompt_tokens,
            "completion_tokens": plan.output,
            "total_tokens": total,
        }
        if plan.cached or plan.written:
            details = {"cached_tokens": plan.cached, "cache_write_tokens": plan.written}
            usage["prompt_tokens_details"] = details
        if plan.reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": plan.reasoning}
        return usage

    def _reason(self) -> str:
        return self.plan.finish or ("tool_calls" if self.plan.calls else "stop")

    def _calls(self) -> list[dict[str, Any]]:
        return [
            {
                "id": f"call_{n}",
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
            }
            for n, call in enumerate(self.plan.calls or [])
        ]

    def _frame(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.number}",
            "object": kind,
            "created": CREATED,
            "model": _name_model(self.plan, self.body),
        }


class Completions(Chat):
    """``/completions``: text after text."""

    kind = "text_completion"

    def open(self) -> list[Event]:
        return []

    def contents(self) -> Iterator[list[Event]]:
        for text in self.plan.texts:
            yield [self._say(text)]

    def finish(self) -> list[Event]:
        return [self._say("", self._reason())]

    def count(self) -> list[Event]:
        if not self.wants_usage:
            return []
        return [("", {**self._frame(self.kind), "choices": [], "usage": self.usage()})]

    def whole(self) -> dict[str, Any]:
        prompts = self.body.get("prompt", "")
        count = len(prompts) if isinstance(prompts, list) and isinstance(prompts[0], str) else 1
        choices = [
            {"index": n, "text": "".join(self.plan.texts), "finish_reason": self._reason()}
            for n in range(count)
        ]
        return {**self._frame(self.kind), "choices": choices, "usage": self.usage()}

    def _say(self, text: str, finish_reason: str | None = None) -> Event:
        choice = {"index": 0, "text": text, "finish_reason": finish_reason}
        return "", {**self._frame(self.kind), "choices": [choice]}


class Embeddings(Chat):
    """``/embeddings``: a vector for each input, of its number everywhere."""

    kind = "list"

    def whole(self) -> dict[str, Any]:
        inputs = self.body.get("input", "")
        is_one = isinstance(inputs, str) or (bool(inputs) and isinstance(inputs[0], int))
        data = [
            {"object": "embedding", "index": n, "embedding": [float(n)] * DIMENSIONS}
            for n in range(1 if is_one else len(inputs))
        ]
        count = self.plan.prompt_tokens
        usage = {"prompt_tokens": count, "total_tokens": count}
        model = _name_model(self.plan, self.body)
        return {"object": "list", "data": data, "model": model, "usage": usage}


class Messages:
    """``/messages``."""

    done = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'

    def __init__(self, plan: Plan, body: Mapping[str, Any], number: int) -> None:
        self.plan = plan
        self.body = body
        self.number = number

    def open(self) -> list[Event]:
        message = {
            **self._frame(),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**self.usage(), "output_tokens": 1},
        }
        return [_event("message_start", message=message), _event("ping")]

    def contents(self) -> Iterator[list[Event]]:
        for index, (block, deltas) in enumerate(self._blocks()):
            before = [_event("content_block_start", index=index, content_block=block)]
            for delta in deltas:
                yield [*before, _event("content_block_delta", index=index, delta=delta)]
                before = []
            yield [*before, _event("content_block_stop", index=index)]

    def finish(self) -> list[Event]:
        delta = {"stop_reason": self._reason(), "stop_sequence": None}
        return [_event("message_delta", delta=delta, usage={"output_tokens": self.plan.output})]

    def count(self) -> list[Event]:
        return []

    def whole(self) -> dict[str, Any]:
        content = []
        for block, deltas in self._blocks():
            for delta in deltas:
                for name in ("text", "thinking", "signature"):
                    if name in delta:
                        block[name] += delta[name]
            content.append(block)
        for block, call in zip(
            (each for each in content if each["type"] == "tool_use"),
            self.plan.calls or [],
            strict=True,
        ):
            block["input"] = call["arguments"]
        return {
            **self._frame(),
            "content": content,
            "stop_reason": self._reason(),
            "stop_sequence": None,
            "usage": self.usage(),
        }

    def error(self, message: str, kind: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind, "message": message}}

    def usage(self) -> dict[str, Any]:
        """Return the usage that belongs to the plan; the prompt's parts are disjoint here."""
        plan = self.plan
        usage: dict[str, Any] = {
            "input_tokens": plan.prompt_tokens - plan.cached - plan.written,
            "cache_read_input_tokens": plan.cached,
            "cache_creation_input_tokens": plan.written,
            "output_tokens": plan.output,
        }
        if plan.reasoning:
            usage["output_tokens_details"] = {"thinking_tokens": plan.reasoning}
        return usage

    def _blocks(self) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Give each block as it opens, and what is added to it."""
        if self.plan.thinking:
            yield (
                {"type": "thinking", "thinking": "", "signature": ""},
                [
                    {"type": "thinking_delta", "thinking": self.plan.thinking},
                    {"type": "signature_delta", "signature": "c2lnbmVk"},
                ],
            )
        if self.plan.texts:
            deltas = [{"type": "text_delta", "text": text} for text in self.plan.texts]
            yield {"type": "text", "text": ""}, deltas
        for n, call in enumerate(self.plan.calls or []):
            block = {"type": "tool_use", "id": f"toolu_{n}", "name": call["name"], "input": {}}
            text = json.dumps(call["arguments"])
            parts = ("", text[: len(text) // 2], text[len(text) // 2 :])
            yield block, [{"type": "input_json_delta", "partial_json": part} for part in parts]

    def _reason(self) -> str:
        return self.plan.finish or ("tool_use" if self.plan.calls else "end_turn")

    def _frame(self) -> dict[str, Any]:
        return {
            "id": f"msg_{self.number}",
            "type": "message",
            "role": "assistant",
            "model": _name_model(self.plan, self.body),
        }


def _event(name: str, **fields: Any) -> Event:  # noqa: ANN401 - any JSON
    return name, {"type": name, **fields}


DIALECTS: dict[str, type[Dialect]] = {  # by the end of the path; the first that fits counts
    "/chat/completions": Chat,
    "/completions": Completions,
    "/embeddings": Embeddings,
    "/messages": Messages,
    ":rawPredict": Messages,
    ":streamRawPredict": Messages,
}


def find_dialect(path: str) -> type[Dialect] | None:
    """Return what is spoken at a path, or None."""
    return next((found for end, found in DIALECTS.items() if path.endswith(end)), None)


def find_plan_text(body: object) -> str:
    """Return the text of a request that may be a plan: its last user message, prompt or input."""
    if not isinstance(body, dict):
        return ""
    for name in ("prompt", "input"):
        if name in body:
            value = body[name]
            return str(value[0] if isinstance(value, list) and value else value)
    messages = body.get("messages")
    for message in reversed(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                return "".join(str(part.get("text", "")) for part in content)
            return str(content)
    return ""
