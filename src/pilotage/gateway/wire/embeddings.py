"""The wire of ``/v1/embeddings``: a vector for a text, or for each of a list of texts."""

from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.gateway.wire.bounds import bound_texts
from pilotage.gateway.wire.completions import check_texts, count_texts
from pilotage.gateway.wire.door import Wire, read_request
from pilotage.gateway.wire.openai import encode_error, encode_stream_error

MAX_INPUTS = 2048


class EmbeddingsRequest(msgspec.Struct):
    """The part of an embeddings request that the gateway reads."""

    model: str
    input: str | list[Any]
    stream: bool | None = None
    user: str = ""

    @property
    def choices(self) -> int:
        """One: vectors are no output that is counted in tokens."""
        return 1

    @property
    def session(self) -> str:
        """None: the wire has no metadata."""
        return ""

    @property
    def names_prompt(self) -> bool:
        """No: the wire has no messages."""
        return False

    def limit_output(self, ceiling: int) -> int:
        """Return 0: nothing is generated."""
        del ceiling
        return 0

    def bound_input(self, body: bytes) -> int:
        """Return more tokens than the inputs can have."""
        del body
        return bound_texts(self.input)


_REQUEST = msgspec.json.Decoder(EmbeddingsRequest)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


def decode_request(body: bytes) -> EmbeddingsRequest:
    """Read an embeddings request; raise ``invalid_json`` or ``invalid_request``."""
    request = read_request(_REQUEST, body)
    check_texts(request.input, "input")
    if count_texts(request.input) > MAX_INPUTS:
        raise PilotageError(
            "invalid_request", f"There may be {MAX_INPUTS} inputs at most.", param="input"
        )
    if request.stream:
        raise PilotageError("invalid_request", "Embeddings are not streamed.", param="stream")
    return request


def name_model(body: bytes, request: EmbeddingsRequest, upstream_model: str) -> bytes:
    """Return the body under the target's name of the model; the original bytes if it is that."""
    if not upstream_model or upstream_model == request.model:
        return body
    return _ENCODE({**_FIELDS.decode(body), "model": upstream_model})


EMBEDDINGS = Wire("embeddings", decode_request, encode_error, encode_stream_error)
