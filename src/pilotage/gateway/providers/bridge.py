"""Between the wire a client speaks and the wire a target speaks: one bridge for each pair."""

from typing import Protocol

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call
from pilotage.gateway.providers.answer import AnswerStream
from pilotage.gateway.providers.anthropic import AnthropicMessages
from pilotage.gateway.providers.anthropic_talk import AnthropicSpeech
from pilotage.gateway.providers.hearings import (
    ChatHearing,
    MessagesHearing,
    ResponsesHearing,
)
from pilotage.gateway.providers.openai import OpenAiChat
from pilotage.gateway.providers.openai_talk import OpenAiSpeech
from pilotage.gateway.providers.texts import OpenAiCompletions, OpenAiEmbeddings
from pilotage.gateway.providers.translated import Translated
from pilotage.gateway.transport.upstream import Exchange
from pilotage.kit.clock import Clock


class Bridge(Protocol):
    """How calls of one wire are asked, and answered, over another (or the same)."""

    path: bytes  # below the target's base path

    def encode(self, call: Call) -> bytes:
        """Return the request's body: the call's, with an explicit output limit.

        Raises ``unsupported`` for what the target's wire cannot say.
        """
        ...

    def decode(self, call: Call, payload: bytes) -> bytes:
        """Return the client's reply, which says the alias as its model.

        Notes usage, finish reason and who answered on the call. Raises ``upstream_invalid``.
        """
        ...

    def open(self, call: Call, exchange: Exchange, clock: Clock) -> AnswerStream:
        """Return the stream that the client reads."""
        ...


_OPENAI, _ANTHROPIC = OpenAiSpeech(), AnthropicSpeech()
_BRIDGES: dict[tuple[str, str], Bridge] = {
    ("chat", "openai"): OpenAiChat(),
    ("chat", "anthropic"): Translated(ChatHearing(), _ANTHROPIC),
    ("messages", "anthropic"): AnthropicMessages(),
    ("messages", "openai"): Translated(MessagesHearing(), _OPENAI),
    ("responses", "openai"): Translated(ResponsesHearing(), _OPENAI),
    ("responses", "anthropic"): Translated(ResponsesHearing(), _ANTHROPIC),
    ("completions", "openai"): OpenAiCompletions(),
    ("embeddings", "openai"): OpenAiEmbeddings(),
}


def find_bridge(door: str, target: str) -> Bridge:
    """Return the bridge from a door's wire to a target's; raise ``unsupported``."""
    bridge = _BRIDGES.get((door, target))
    if bridge is None:
        raise PilotageError("unsupported", f"This model's provider does not answer {door!r} calls.")
    return bridge
