"""What clients of each wire say, and how an answer from any other wire is told to them."""

from pilotage.gateway.call import Call
from pilotage.gateway.wire import (
    anthropic,
    chat_talk,
    messages_talk,
    openai,
    responses_talk,
    talk,
)
from pilotage.gateway.wire.responses_writer import ResponseWriter


class ChatHearing:
    """Clients of ``/v1/chat/completions``."""

    terminator = openai.DONE

    def read(self, call: Call, target: str) -> talk.Talk:
        """Return what the client says."""
        return chat_talk.read_request(call.body, target)

    def open(self, call: Call, created_s: int) -> chat_talk.ChatWriter:
        """Return what writes the answer."""
        request = call.request
        wants_usage = isinstance(request, openai.ChatRequest) and request.wants_usage
        return chat_talk.ChatWriter(call.id, created_s, call.alias_name, wants_usage=wants_usage)


class MessagesHearing:
    """Clients of ``/v1/messages``."""

    terminator = anthropic.STOP

    def read(self, call: Call, target: str) -> talk.Talk:
        """Return what the client says."""
        return messages_talk.read_request(call.body, target)

    def open(self, call: Call, created_s: int) -> messages_talk.MessageWriter:
        """Return what writes the answer."""
        del created_s
        return messages_talk.MessageWriter(call.id, call.alias_name)


class ResponsesHearing:
    """Clients of ``/v1/responses``.

    Their last event holds the whole answer. It is sent in its turn, not after the record as other
    terminators are, so that steps which change an answer's words see all of them.
    """

    terminator = b""

    def read(self, call: Call, target: str) -> talk.Talk:
        """Return what the client says."""
        return responses_talk.read_request(call.body, target)

    def open(self, call: Call, created_s: int) -> ResponseWriter:
        """Return what writes the answer."""
        return ResponseWriter(call.id, created_s, call.alias_name, call.body)
