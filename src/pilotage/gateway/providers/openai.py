"""Targets that speak the OpenAI wire: chat in, chat out."""

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag
from pilotage.gateway.call import Call
from pilotage.gateway.providers.answer import (
    AnswerStream,
    note_silence,
    note_usage,
    upstream_model,
)
from pilotage.gateway.transport.upstream import Exchange
from pilotage.gateway.wire import openai as wire
from pilotage.kit.clock import Clock


class OpenAiChat:
    """Chat completions over chat completions: the original bytes wherever nothing must change."""

    path = b"/chat/completions"

    def encode(self, call: Call) -> bytes:
        """Return the body with an explicit output limit, and the target's name of the model."""
        request = _request_of(call)
        return wire.limit_request(
            call.body, request, call.output_limit, upstream_model(call), name_limit(call)
        )

    def decode(self, call: Call, payload: bytes) -> bytes:
        """Return the reply under the alias's name."""
        completion = wire.decode_completion(payload)
        note_wire_usage(call, completion.usage, counts_one=bool(completion.timings))
        note_silence(call)
        call.answered_by = completion.model
        call.fingerprint = completion.system_fingerprint or ""
        if completion.choices:
            call.finish_reason = completion.choices[0].finish_reason or ""
        return wire.rename_model(payload, completion.model, call.alias_name)

    def open(self, call: Call, exchange: Exchange, clock: Clock) -> AnswerStream:
        """Return the chunks, renamed."""
        return ChatChunks(call, exchange, clock)


class ChatChunks(AnswerStream):
    """Chunks as they came but for the model's name, without a usage chunk nobody asked for."""

    terminator = wire.DONE

    def __init__(self, call: Call, exchange: Exchange, clock: Clock) -> None:
        super().__init__(call, exchange, clock)
        self._wants_usage = _request_of(call).wants_usage

    def take(self, data: bytes, out: list[bytes]) -> None:
        """Take one chunk."""
        if data == b"[DONE]":
            self.is_terminated = True
            return
        call = self.call
        chunk = wire.decode_chunk(data)
        if chunk.error is not None:
            raise PilotageError("upstream_error", "The model broke off with an error.")
        if not call.answered_by:
            call.answered_by = chunk.model
            call.fingerprint = chunk.system_fingerprint or ""
        if chunk.usage is not None:
            note_wire_usage(call, chunk.usage, counts_one=bool(chunk.timings))
            if not chunk.choices and not self._wants_usage:
                return
        line = b"data: " + wire.rename_model(data, chunk.model, call.alias_name) + b"\n\n"
        reason = chunk.finish_reason
        if reason is not None:
            self.is_finished = True
            call.finish_reason = reason
        if chunk.has_content:
            self.note_content()
        self.hand_on(line, out)


def _request_of(call: Call) -> wire.ChatRequest:
    if not isinstance(call.request, wire.ChatRequest):
        raise TypeError(f"{call.wire.name} calls are not chat calls")
    return call.request


def name_limit(call: Call) -> str:
    """Return what the call's target calls an output limit that the client has not given.

    Providers' newer models take only ``max_completion_tokens``, local engines ``max_tokens``.
    """
    return "max_completion_tokens" if call.arm and call.arm.upstream_id else "max_tokens"


def note_wire_usage(call: Call, usage: wire.WireUsage | None, *, counts_one: bool = False) -> None:
    """Put a reported usage on the call.

    ``counts_one``: it is llama.cpp's, which counts the output of one choice only. All of them
    are billed as if they were as long, and the call is flagged.
    """
    if usage is None:
        return
    if counts_one and call.request.choices > 1:
        usage.completion_tokens *= call.request.choices
        usage.total_tokens = None
        call.flags.add(Flag.USAGE_INVALID)
    note_usage(call, wire.normalise_usage(usage))
