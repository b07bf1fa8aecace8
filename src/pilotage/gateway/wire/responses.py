"""The wire of ``/v1/responses``: what is read of requests, and how errors look.

No model is asked on this wire: what it says is said as a chat (:mod:`.responses_talk`), and nothing
is kept between two calls.
"""

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.gateway.wire.bounds import bound_chat
from pilotage.gateway.wire.door import ABSENT, Wire, is_said, read_request, read_session
from pilotage.gateway.wire.openai import Positive, encode_error, refuse_other_prices
from pilotage.gateway.wire.prompts import expand_responses
from pilotage.gateway.wire.sse import write_event


class ResponsesRequest(msgspec.Struct):
    """The part of a responses request that the gateway decides on."""

    model: str
    input: str | list[msgspec.Raw]
    stream: bool | None = None
    max_output_tokens: Positive | None = None
    tools: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    user: str = ""
    service_tier: str | None = None
    prompt: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT

    @property
    def choices(self) -> int:
        """One: the wire has no more."""
        return 1

    @property
    def session(self) -> str:
        """The ``session_id`` of its metadata."""
        return read_session(self.metadata)

    @property
    def names_prompt(self) -> bool:
        """Whether a prompt's messages come first."""
        return is_said(self.prompt)

    def limit_output(self, ceiling: int) -> int:
        """Return the client's limit or ours, whichever is less."""
        return min(self.max_output_tokens or ceiling, ceiling)

    def bound_input(self, body: bytes) -> int:
        """Return more tokens than the prompt can have."""
        items = 1 if isinstance(self.input, str) else len(self.input)
        is_instructed = bool(self.tools or self.text)
        return bound_chat(body, items + 1, is_instructed=is_instructed)


_REQUEST = msgspec.json.Decoder(ResponsesRequest)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


def decode_request(body: bytes) -> ResponsesRequest:
    """Read a responses request; raise ``invalid_json``, ``invalid_request`` or ``unsupported``."""
    request = read_request(_REQUEST, body)
    if not request.input:
        raise PilotageError("invalid_request", "'input' is empty.", param="input")
    if request.service_tier is not None:
        refuse_other_prices(request.service_tier)
    return request


def encode_stream_error(error: PilotageError) -> bytes:
    """Return the event that ends a stream which broke.

    Its members are those of this wire's ``error`` event; ``error`` besides is what clients raise.
    """
    inner = _FIELDS.decode(_FIELDS.decode(encode_error(error))["error"])
    event = {
        "type": "error",
        "code": error.code,
        "message": inner["message"],
        "param": error.param,
        "sequence_number": 0,
        "error": inner,
    }
    return write_event("error", _ENCODE(event))


RESPONSES = Wire(
    "responses", decode_request, encode_error, encode_stream_error, expand=expand_responses
)
