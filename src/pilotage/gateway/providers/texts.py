"""Completions and embeddings over themselves: the original bytes wherever nothing must change."""

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call
from pilotage.gateway.providers.answer import AnswerStream, note_silence, upstream_model
from pilotage.gateway.providers.openai import note_wire_usage
from pilotage.gateway.transport.upstream import Exchange
from pilotage.gateway.wire import completions, embeddings, openai
from pilotage.gateway.wire.door import ABSENT, BROKEN_JSON
from pilotage.kit.clock import Clock


class TextChoice(msgspec.Struct):
    """One choice of a completion, or of a chunk of it."""

    text: str | None = None
    finish_reason: str | None = None


class TextChunk(msgspec.Struct):
    """The part of a completions chunk that the gateway reads."""

    model: str = ""
    system_fingerprint: str | None = None
    choices: list[TextChoice] = []
    usage: openai.WireUsage | None = None
    timings: msgspec.Raw = ABSENT
    error: dict[str, msgspec.Raw] | str | None = None


_CHUNK = msgspec.json.Decoder(TextChunk)


class OpenAiCompletions:
    """Texts that go on."""

    path = b"/completions"

    def encode(self, call: Call) -> bytes:
        """Return the body with an explicit output limit, and the target's name of the model."""
        request = _completions_of(call)
        return completions.limit_request(
            call.body, request, call.output_limit, upstream_model(call)
        )

    def decode(self, call: Call, payload: bytes) -> bytes:
        """Return the reply under the alias's name."""
        return decode_reply(call, payload)

    def open(self, call: Call, exchange: Exchange, clock: Clock) -> AnswerStream:
        """Return the chunks, renamed."""
        return TextChunks(call, exchange, clock)


class OpenAiEmbeddings:
    """Vectors; they have no stream."""

    path = b"/embeddings"

    def encode(self, call: Call) -> bytes:
        """Return the body under the target's name of the model."""
        request = call.request
        if not isinstance(request, embeddings.EmbeddingsRequest):
            raise TypeError(f"{call.wire.name} calls are not embeddings calls")
        return embeddings.name_model(call.body, request, upstream_model(call))

    def decode(self, call: Call, payload: bytes) -> bytes:
        """Return the reply under the alias's name."""
        return decode_reply(call, payload)

    def open(self, call: Call, exchange: Exchange, clock: Clock) -> AnswerStream:
        """Raise: the door has refused streams."""
        del call, exchange, clock
        raise PilotageError("unsupported", "Embeddings are not streamed.", param="stream")


class TextChunks(AnswerStream):
    """Chunks as they came but for the model's name, without a usage chunk nobody asked for."""

    terminator = openai.DONE

    def __init__(self, call: Call, exchange: Exchange, clock: Clock) -> None:
        super().__init__(call, exchange, clock)
        self._wants_usage = _completions_of(call).wants_usage

    def take(self, data: bytes, out: list[bytes]) -> None:
        """Take one chunk."""
        if data == b"[DONE]":
            self.is_terminated = True
            return
        call = self.call
        try:
            chunk = _CHUNK.decode(data)
        except BROKEN_JSON:
            raise PilotageError(
                "upstream_invalid", "A chunk of the model's answer is not valid JSON."
            ) from None
        if chunk.error is not None:
            raise PilotageError("upstream_error", "The model broke off with an error.")
        if not call.answered_by:
            call.answered_by = chunk.model
            call.fingerprint = chunk.system_fingerprint or ""
        note_text_usage(call, chunk.usage, counts_one=bool(chunk.timings))
        if chunk.usage is not None and not chunk.choices and not self._wants_usage:
            return
        for choice in chunk.choices:
            if choice.text:
                self.note_content()
            if choice.finish_reason is not None:
                self.is_finished = True
                call.finish_reason = choice.finish_reason
        line = b"data: " + openai.rename_model(data, chunk.model, call.alias_name) + b"\n\n"
        self.hand_on(line, out)


def decode_reply(call: Call, payload: bytes) -> bytes:
    """Return a reply under the alias's name; note on the call what it says of itself."""
    reply = openai.decode_completion(payload)
    note_text_usage(call, reply.usage, counts_one=bool(reply.timings))
    note_silence(call)
    call.answered_by = reply.model
    call.fingerprint = reply.system_fingerprint or ""
    if reply.choices:
        call.finish_reason = reply.choices[0].finish_reason or ""
    return openai.rename_model(payload, reply.model, call.alias_name)


def note_text_usage(call: Call, usage: openai.WireUsage | None, *, counts_one: bool) -> None:
    """Put a reported usage on the call.

    ``counts_one``: it is llama.cpp's, which counts one choice and one prompt only. Of the others it
    says nothing, so all prompts are billed at the bound that was reserved for them.
    """
    request = call.request
    prompts = request.prompts if isinstance(request, completions.CompletionsRequest) else 1
    if usage is not None and counts_one and prompts > 1:
        usage.prompt_tokens = call.input_bound
        usage.prompt_tokens_details = None
    note_wire_usage(call, usage, counts_one=counts_one)


def _completions_of(call: Call) -> completions.CompletionsRequest:
    if not isinstance(call.request, completions.CompletionsRequest):
        raise TypeError(f"{call.wire.name} calls are not completions calls")
    return call.request
