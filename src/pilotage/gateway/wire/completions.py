"""The wire of ``/v1/completions``: one text goes on, or each of a list of texts does."""

from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.gateway.wire.bounds import bound_texts
from pilotage.gateway.wire.door import Wire, read_request
from pilotage.gateway.wire.openai import (
    MAX_CHOICES,
    Positive,
    StreamOptions,
    encode_error,
    encode_stream_error,
)

DEFAULT_OUTPUT = 16  # what this wire has always meant by no limit
Count = Positive | None


class CompletionsRequest(msgspec.Struct):
    """The part of a completions request that the gateway reads.

    A prompt is a text, a list of texts, a list of tokens or a list of lists of tokens.
    """

    model: str
    prompt: str | list[Any]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n_predict: int | None = None
    n: Count = None
    best_of: Count = None
    suffix: str | None = None
    user: str = ""

    @property
    def prompts(self) -> int:
        """How many prompts there are."""
        return count_texts(self.prompt)

    @property
    def choices(self) -> int:
        """How many answers are made, those included of which the best are chosen."""
        return self.prompts * max(self.n or 1, self.best_of or 1)

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for the usage chunk of a stream."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def session(self) -> str:
        """None: the wire has no metadata."""
        return ""

    @property
    def names_prompt(self) -> bool:
        """No: the wire has no messages."""
        return False

    def limit_output(self, ceiling: int) -> int:
        """Return the client's limit, or this wire's default, or ours if it is less."""
        given = [limit for limit in (self.max_tokens, self.n_predict) if limit is not None]
        return min([ceiling, *(given or [DEFAULT_OUTPUT])])

    def bound_input(self, body: bytes) -> int:
        """Return more tokens than the prompts can have, each with what shall follow it."""
        del body
        return bound_texts(self.prompt) + self.prompts * len((self.suffix or "").encode())


_REQUEST = msgspec.json.Decoder(CompletionsRequest)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


def decode_request(body: bytes) -> CompletionsRequest:
    """Read a completions request; raise ``invalid_json`` or ``invalid_request``."""
    request = read_request(_REQUEST, body)
    check_texts(request.prompt, "prompt")
    for name in ("max_tokens", "n_predict"):
        if (getattr(request, name) or 0) < 0:  # 0 is for who wants an echo only
            raise PilotageError("invalid_request", f"{name!r} must be 0 or more.", param=name)
    if request.choices > MAX_CHOICES:
        raise PilotageError(
            "invalid_request",
            f"There may be {MAX_CHOICES} answers, and there would be {request.choices}: "
            "prompts times 'n' or 'best_of'.",
            param="n",
        )
    return request


def check_texts(texts: str | list[Any], param: str) -> None:
    """Raise ``invalid_request`` unless this is a text, tokens, or a list of texts or of tokens."""
    if isinstance(texts, str):
        return
    if not texts:
        raise PilotageError("invalid_request", f"{param!r} is empty.", param=param)
    if not (
        _all_are(texts, str)
        or _all_are(texts, int)
        or (_all_are(texts, list) and all(_all_are(tokens, int) for tokens in texts))
    ):
        raise PilotageError(
            "invalid_request",
            f"{param!r} must be a text, a list of texts, a list of tokens or a list of such lists.",
            param=param,
        )


def count_texts(texts: str | list[Any]) -> int:
    """Return how many texts these are; a list of tokens is one."""
    return 1 if isinstance(texts, str) or isinstance(texts[0], int) else len(texts)


def limit_request(
    body: bytes, request: CompletionsRequest, output_limit: int, upstream_model: str = ""
) -> bytes:
    """Return the body with an explicit output limit and, for a stream, with usage asked for.

    The original bytes come back when nothing needs to change.
    """
    changed: dict[str, Any] = {}
    if request.max_tokens != output_limit:
        changed["max_tokens"] = output_limit
    if request.n_predict is not None and request.n_predict != output_limit:
        changed["n_predict"] = output_limit
    if upstream_model and upstream_model != request.model:
        changed["model"] = upstream_model
    if request.stream and not request.wants_usage:
        changed["stream_options"] = {"include_usage": True}
    return _ENCODE({**_FIELDS.decode(body), **changed}) if changed else body


def _all_are(values: list[Any], kind: type) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


COMPLETIONS = Wire("completions", decode_request, encode_error, encode_stream_error)
