"""The wire of ``:predict``: a list of instances, each of which is asked as a chat call of its own.

An instance is a text, an object with ``prompt`` or ``content``, or one with ``messages``. Sampling
parameters hold for all instances, or stand in one and hold for it. Names are those of OpenAI's chat
wire or of Vertex AI's requests; what is neither is refused, so that no setting is lost.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.gateway.wire.door import ABSENT, BROKEN_JSON, is_said, read_request
from pilotage.gateway.wire.openai import CHAT

VERB = ":predict"
MOST_INSTANCES = 100
MOST_SHARED_BYTES = 16 << 10  # of parameters: every instance gets a copy
_PARAMETERS = {  # by what they may be called: what the chat wire calls them
    name: own
    for own, names in {
        "temperature": (),
        "max_tokens": ("maxOutputTokens", "max_output_tokens"),
        "top_p": ("topP",),
        "stop": ("stopSequences", "stop_sequences"),
        "seed": (),
        "frequency_penalty": ("frequencyPenalty",),
        "presence_penalty": ("presencePenalty",),
    }.items()
    for name in (own, *names)
}
_TEXTS = ("prompt", "content")
_FORMAT = "@requestFormat"  # how Vertex AI's clients say that an instance has messages
_CHAT_FORMAT = "chatCompletions"

Fields = dict[str, msgspec.Raw]


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request."""

    instances: list[msgspec.Raw]
    parameters: Fields = {}


class Asked(NamedTuple):
    """The chat request of one instance; ``is_whole``: its prediction is the whole completion."""

    body: bytes
    is_whole: bool


class Answered(NamedTuple):
    """What one instance came to; ``arm_id`` and ``model`` are "" where they are not shown."""

    call_id: str
    prediction: msgspec.Raw | dict[str, Any]
    arm_id: str
    model: str


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: msgspec.Raw = ABSENT


_REQUEST = msgspec.json.Decoder(PredictRequest)
_INSTANCE = msgspec.json.Decoder(str | Fields)
_TEXT = msgspec.json.Decoder(str)
_COMPLETION = msgspec.json.Decoder(_Completion)
_ENCODE = msgspec.json.Encoder().encode


def find_endpoint(path: str) -> str:
    """Return the endpoint that a path predicts with, "" if it is no path of this wire.

    ``/v1/endpoints/NAME:predict``, or the same behind ``projects/P/locations/L/``.
    """
    if not path.endswith(VERB):
        return ""
    before, _, name = path.removesuffix(VERB).partition("/endpoints/")
    parts = before.split("/")
    is_long = len(parts) == 6 and (parts[2], parts[4]) == ("projects", "locations")
    return name if before == "/v1" or is_long else ""


def decode_request(endpoint: str, body: bytes) -> list[Asked]:
    """Read a request; raise ``invalid_json``, ``invalid_request`` or ``unsupported``."""
    request = read_request(_REQUEST, body)
    if not 0 < len(request.instances) <= MOST_INSTANCES:
        raise PilotageError(
            "invalid_request",
            f"There are {len(request.instances)} instances.",
            hint=f"Send 1 to {MOST_INSTANCES}.",
            param="instances",
        )
    shared = _read_parameters(request.parameters, "parameters")
    if sum(len(value) for value in shared.values()) > MOST_SHARED_BYTES:
        raise PilotageError(
            "invalid_request",
            f"parameters have more than {MOST_SHARED_BYTES} bytes.",
            hint="What is long belongs in the instances.",
            param="parameters",
        )
    return [
        _read_instance(endpoint, item, shared, f"instances[{number}]")
        for number, item in enumerate(request.instances)
    ]


def read_prediction(asked: Asked, reply: bytes) -> msgspec.Raw | dict[str, Any]:
    """Return what the chat reply to an instance predicts; raise ``upstream_invalid``."""
    if asked.is_whole:
        return msgspec.Raw(reply)
    try:
        completion = _COMPLETION.decode(reply)
        choice = completion.choices[0]
    except (*BROKEN_JSON, IndexError):
        raise PilotageError("upstream_invalid", "The model's answer has no text.") from None
    shown: dict[str, Any] = {
        "content": choice.message.content or "",
        "finish_reason": choice.finish_reason,
    }
    return shown | ({"usage": completion.usage} if is_said(completion.usage) else {})


def encode_reply(answered: Sequence[Answered]) -> bytes:
    """Return the body of a reply, as Vertex AI has it.

    ``deployedModelId`` and ``model`` are there where all instances were answered by one.
    """
    reply: dict[str, Any] = {"predictions": [item.prediction for item in answered]}
    arms = {(item.arm_id, item.model) for item in answered}
    if len(arms) == 1:
        reply["deployedModelId"], reply["model"] = arms.pop()
    calls = [
        {"id": item.call_id, "deployedModelId": item.arm_id, "model": item.model}
        for item in answered
    ]
    return _ENCODE(reply | {"metadata": {"calls": calls}})


def _read_instance(
    endpoint: str, raw: msgspec.Raw, shared: Mapping[str, msgspec.Raw], place: str
) -> Asked:
    try:
        said = _INSTANCE.decode(raw)
        if isinstance(said, str):
            said = {_TEXTS[0]: raw}
        messages = said.pop("messages", ABSENT)
        texts = [_TEXT.decode(said.pop(name)) for name in _TEXTS if name in said]
        form = _TEXT.decode(said.pop(_FORMAT, msgspec.Raw(_ENCODE(_CHAT_FORMAT))))
    except BROKEN_JSON as wrong:
        problem = str(wrong).replace("`", "'")
        raise PilotageError("invalid_request", f"{place}: {problem}.", param=place) from None
    if len(texts) + is_said(messages) != 1 or form != _CHAT_FORMAT:
        raise PilotageError(
            "invalid_request",
            f"{place} has to say one thing.",
            hint='Send a text, {"prompt": "..."}, or {"messages": [...]}.',
            param=place,
        )
    fields: dict[str, Any] = {
        "model": endpoint,
        "messages": messages if not texts else [{"role": "user", "content": texts[0]}],
        **shared,
        **_read_parameters(said, place),
    }
    body = _ENCODE(fields)
    CHAT.decode_request(body)  # nobody is asked where one of the instances is wrong
    return Asked(body, not texts)


def _read_parameters(said: Mapping[str, msgspec.Raw], place: str) -> dict[str, msgspec.Raw]:
    found: dict[str, msgspec.Raw] = {}
    for name, value in said.items():
        own = _PARAMETERS.get(name)
        if own is None:
            raise PilotageError(
                "unsupported",
                f"{place}.{name} is no parameter here.",
                hint=f"There are: {', '.join(dict.fromkeys(_PARAMETERS.values()))}.",
                param=f"{place}.{name}",
            )
        if own in found:
            raise PilotageError(
                "invalid_request", f"{place} says {own} twice.", param=f"{place}.{name}"
            )
        if is_said(value):
            found[own] = value
    return found
