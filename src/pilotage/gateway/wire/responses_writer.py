"""Answers on the responses wire: items and the events by which they grow.

The order of events is the one that the openai package accepts: a response is created, its items are
added, their parts grow and are done, the items are done, the response is completed.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.usage import Usage
from pilotage.gateway.wire import talk
from pilotage.gateway.wire.sse import write_event

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode
_NULL = msgspec.Raw(b"null")
_ECHOED: dict[str, Any] = {  # of the request, with what stands for those that are not given
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
}
_INCOMPLETE = {
    talk.Finish.LENGTH: "max_output_tokens",
    talk.Finish.REFUSAL: "content_filter",
}


class ResponseWriter:
    """Write an answer as response events, or as one response.

    A reasoning item holds one text, a message one text or one refusal, a function call its
    arguments; :attr:`_item` is the one that grows.
    """

    def __init__(self, call_id: str, created_s: int, model: str, body: bytes) -> None:
        self._own_id = call_id.partition("_")[2]
        self._created_s = created_s
        self._model = model
        request = _FIELDS.decode(body)
        self._echo = {
            name: request[name] if request.get(name, _NULL) != _NULL else default
            for name, default in _ECHOED.items()
        }
        self._number = 0
        self._is_whole = False
        self._items: list[dict[str, Any]] = []
        self._item: dict[str, Any] = {}
        self._part: dict[str, Any] = {}
        self._tool = -1
        self._words: list[str] = []
        self._end = talk.End(talk.Finish.STOP)

    def begin(self) -> list[bytes]:
        """Return the events that open the response."""
        return [
            self._event("response.created", response=self._show("in_progress", None)),
            self._event("response.in_progress", response=self._show("in_progress", None)),
        ]

    def write(self, piece: talk.Piece) -> list[bytes]:
        """Return the events of a piece, with those that close and open items before it."""
        if isinstance(piece, talk.End):
            self._end = piece
            return self._close()
        if isinstance(piece, talk.ToolStart):
            self._tool = piece.index
            item = {"call_id": piece.id, "name": piece.name, "arguments": ""}
            return self._open("function_call", "fc", item)
        if isinstance(piece, talk.ToolWords):
            if piece.index != self._tool or self._item.get("type") != "function_call":
                raise PilotageError("upstream_invalid", "The model's tool calls are mixed up.")
            return [self._grow("response.function_call_arguments.delta", piece.text)]
        if isinstance(piece, talk.Thought):
            part = {"type": "reasoning_text", "text": ""}
            opening = self._open_part("reasoning", "rs", part, {"summary": []})
            return [*opening, self._grow("response.reasoning_text.delta", piece.text)]
        if isinstance(piece, talk.Refusal):
            part = {"type": "refusal", "refusal": ""}
            opening = self._open_part("message", "msg", part, {"role": "assistant"})
            return [*opening, self._grow("response.refusal.delta", piece.text)]
        text: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
        opening = self._open_part("message", "msg", text, {"role": "assistant"})
        return [*opening, self._grow("response.output_text.delta", piece.text, logprobs=[])]

    def finish(self, usage: Usage | None) -> list[bytes]:
        """Return the event that completes the response, or says why it is incomplete."""
        status = self._status()
        return [self._event(f"response.{status}", response=self._show(status, usage))]

    def compose(self, pieces: Iterable[talk.Piece], usage: Usage | None) -> bytes:
        """Return the whole response; its events are of no use then."""
        self._is_whole = True
        for piece in pieces:
            self.write(piece)
        return _ENCODE(self._show(self._status(), usage))

    def _status(self) -> str:
        return "incomplete" if self._end.finish in _INCOMPLETE else "completed"

    def _open_part(
        self, kind: str, prefix: str, part: dict[str, Any], more: dict[str, Any]
    ) -> list[bytes]:
        """Open an item and its one part, unless they are open already."""
        if self._item.get("type") == kind and self._part["type"] == part["type"]:
            return []
        events = self._open(kind, prefix, {**more, "content": []})
        self._part = part
        return [*events, self._place("response.content_part.added", content_index=0, part=part)]

    def _open(self, kind: str, prefix: str, more: dict[str, Any]) -> list[bytes]:
        events = self._close()
        own_id = f"{prefix}_{self._own_id}_{len(self._items)}"
        self._item = {"type": kind, "id": own_id, "status": "in_progress", **more}
        self._items.append(self._item)
        index = len(self._items) - 1
        added = self._event("response.output_item.added", output_index=index, item=self._item)
        return [*events, added]

    def _grow(self, kind: str, words: str, **more: Any) -> bytes:  # noqa: ANN401 - any JSON
        self._words.append(words)
        if self._item["type"] != "function_call":
            more["content_index"] = 0
        return self._place(kind, delta=words, **more)

    def _close(self) -> list[bytes]:
        """Return the events that say an item is done, with all its words."""
        item, words = self._item, "".join(self._words)
        if not item:
            return []
        item["status"] = "completed"
        if item["type"] == "function_call":
            item["arguments"] = words
            done = [
                self._place(
                    "response.function_call_arguments.done", arguments=words, name=item["name"]
                )
            ]
        else:
            done = self._close_part(words)
        index = len(self._items) - 1
        done.append(self._event("response.output_item.done", output_index=index, item=item))
        self._item, self._words = {}, []
        return done

    def _close_part(self, words: str) -> list[bytes]:
        part = self._part
        field = "refusal" if part["type"] == "refusal" else "text"
        part[field] = words
        self._item["content"] = [part]
        more: dict[str, Any] = {"logprobs": []} if part["type"] == "output_text" else {}
        return [
            self._place(f"response.{part['type']}.done", content_index=0, **{field: words}, **more),
            self._place("response.content_part.done", content_index=0, part=part),
        ]

    def _place(self, kind: str, **fields: Any) -> bytes:  # noqa: ANN401 - any JSON
        """Return an event of the item that grows."""
        index = len(self._items) - 1
        return self._event(kind, item_id=self._item["id"], output_index=index, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:  # noqa: ANN401 - any JSON
        if self._is_whole:
            return b""
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return write_event(kind, _ENCODE(event))

    def _show(self, status: str, usage: Usage | None) -> dict[str, Any]:
        reason = _INCOMPLETE.get(self._end.finish)
        return {
            "id": f"resp_{self._own_id}",
            "object": "response",
            "created_at": self._created_s,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": self._model,
            "output": self._items,
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            **self._echo,
            "usage": show_usage(usage) if usage is not None else None,
        }


def show_usage(usage: Usage) -> dict[str, Any]:
    """Return a usage as this wire has it: the whole prompt, and what of it was cached."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }
