"""Messages in, messages out: targets that speak the Anthropic wire as the client does."""

from pilotage.gateway.call import Call
from pilotage.gateway.providers.answer import (
    AnswerStream,
    note_silence,
    note_usage,
    upstream_model,
)
from pilotage.gateway.transport.upstream import Exchange
from pilotage.gateway.wire import anthropic as wire
from pilotage.gateway.wire.openai import rename_model
from pilotage.gateway.wire.sse import write_event
from pilotage.kit.clock import Clock

PATH = b"/messages"


class AnthropicMessages:
    """Messages over messages: the original bytes wherever nothing must change."""

    path = PATH

    def encode(self, call: Call) -> bytes:
        """Return the body within the output limit, under the target's name of the model."""
        request = call.request
        if not isinstance(request, wire.MessagesRequest):
            raise TypeError(f"{call.wire.name} calls are not messages calls")
        return wire.limit_request(call.body, request, call.output_limit, upstream_model(call))

    def decode(self, call: Call, payload: bytes) -> bytes:
        """Return the reply under the alias's name."""
        message = wire.decode_message(payload)
        if message.usage is not None:
            note_usage(call, wire.normalise_usage(message.usage))
        note_silence(call)
        call.answered_by = message.model
        call.finish_reason = message.stop_reason or ""
        return rename_model(payload, message.model, call.alias_name)

    def open(self, call: Call, exchange: Exchange, clock: Clock) -> AnswerStream:
        """Return the events, renamed."""
        return MessageEvents(call, exchange, clock)


class MessageEvents(AnswerStream):
    """Events as they came but for the model's name; ``message_stop`` follows the record."""

    terminator = wire.STOP

    def __init__(self, call: Call, exchange: Exchange, clock: Clock) -> None:
        super().__init__(call, exchange, clock)
        self._usage = wire.MessageUsage()

    def take(self, data: bytes, out: list[bytes]) -> None:
        """Take one event."""
        event = wire.decode_event(data)
        if event.type == "message_stop":
            self.is_terminated = True
            return
        if event.type == "error":
            wire.raise_stream_error(event.error)
        call = self.call
        if event.message is not None:
            call.answered_by = event.message.model
            self._usage.update(event.message.usage or wire.MessageUsage())
            data = wire.rename_start(data, call.alias_name)
        elif event.type == "message_delta":
            self._end(event)
        if event.has_content:
            self.note_content()
        self.hand_on(write_event(event.type, data), out)

    def _end(self, event: wire.Event) -> None:
        if event.usage is not None:
            self._usage.update(event.usage)
            note_usage(self.call, wire.normalise_usage(self._usage))
        reason = event.delta and event.delta.stop_reason
        if reason:
            self.is_finished = True
            self.call.finish_reason = reason
