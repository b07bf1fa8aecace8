"""The OpenAI wire: whatever is in a body, only what the gateway decides on is changed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_lab import speak
from pilotage.core.errors import PilotageError
from pilotage.gateway.wire import openai as wire

TRICKY = ['"model":"old"', '{"model":"old"}', "}],", '"max_tokens":9', "\\", "\u2028", "\x00", "é"]
texts = st.text() | st.sampled_from(TRICKY)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
READ = set(wire.ChatRequest.__struct_fields__)
extras = st.dictionaries(texts.filter(lambda name: name not in READ), values, max_size=4)
limits = st.integers(1, 10**20) | st.none()
layouts = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")])


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """Return a chat request and bytes of it, with spaces, escapes and members in any order."""
    known: dict[str, Any] = {"model": draw(texts), "messages": draw(st.lists(values, min_size=1))}
    for name in ("max_tokens", "max_completion_tokens", "n_predict"):
        if draw(st.booleans()):
            known[name] = draw(limits)
    if draw(st.booleans()):
        known["stream"] = draw(st.booleans() | st.none())
    if draw(st.booleans()):
        asks = st.fixed_dictionaries(
            {}, optional={"include_usage": st.booleans() | st.none(), "x": values}
        )
        known["stream_options"] = draw(asks | st.none())
    members = draw(st.permutations([*known.items(), *draw(extras).items()]))
    layout, is_ascii = draw(layouts), draw(st.booleans())
    text = json.dumps(dict(members), separators=layout, ensure_ascii=is_ascii)
    if draw(st.booleans()):
        text = text.replace("max_tokens", "max\\u005ftokens")
    return dict(members), f"{draw(st.sampled_from(['', ' ']))}{text}\n".encode()


@given(requests(), st.integers(1, 10**6))
def test_a_limited_request_differs_only_in_limit_and_usage(
    made: tuple[dict[str, Any], bytes], ceiling: int
) -> None:
    _, body = made
    given_body = json.loads(body)  # after escapes in names have been read
    request = wire.decode_request(body)
    limit = request.limit_output(ceiling)
    limited = wire.limit_request(body, request, limit)
    sent = json.loads(limited)

    names = ("max_tokens", "max_completion_tokens", "n_predict")
    asked = [given_body[name] for name in names if isinstance(given_body.get(name), int)]
    sent_limits = [sent[name] for name in names if isinstance(sent.get(name), int)]
    assert limit == min([ceiling, *asked])
    assert sent_limits
    assert set(sent_limits) == {limit}
    touched = [*names, "stream_options"]
    assert without(sent, *touched) == without(given_body, *touched)
    options = given_body.get("stream_options")
    if given_body.get("stream"):
        assert sent["stream_options"] == {**(options or {}), "include_usage": True}
    else:
        assert sent.get("stream_options", "none") == given_body.get("stream_options", "none")

    again = wire.limit_request(limited, wire.decode_request(limited), limit)
    assert again == limited


@given(requests())
def test_a_request_that_needs_nothing_keeps_its_bytes(
    made: tuple[dict[str, Any], bytes],
) -> None:
    body = made[1]
    request = wire.decode_request(body)
    limit = request.limit_output(10**30)
    needs_usage = request.stream and not request.wants_usage
    names = ("max_tokens", "max_completion_tokens", "n_predict")
    asked = {value for name in names if isinstance(value := getattr(request, name), int)}
    if asked == {limit} and not needs_usage:
        assert wire.limit_request(body, request, limit) is body


@given(extras, texts, texts, layouts, st.booleans(), st.data())
def test_only_the_outermost_model_is_renamed(
    others: dict[str, Any],
    old: str,
    new: str,
    layout: tuple[str, str],
    is_ascii: bool,
    data: st.DataObject,
) -> None:
    nested = {"model": old, "again": [{"model": old}]}
    choices = [{"delta": {"content": f'"model":{json.dumps(old)}'}}]
    members = [*others.items(), ("model", old), ("choices", choices), ("nested", nested)]
    reply = dict(data.draw(st.permutations(members)))
    payload = json.dumps(reply, separators=layout, ensure_ascii=is_ascii).encode()
    renamed = wire.rename_model(payload, old, new)
    assert json.loads(renamed) == {**reply, "model": new}
    assert wire.decode_completion(renamed).model == new


@given(extras, texts)
def test_a_reply_without_a_model_gets_one(others: dict[str, Any], new: str) -> None:
    payload = json.dumps(others).encode()
    renamed = wire.rename_model(payload, wire.decode_completion(payload).model, new)
    if new:
        assert json.loads(renamed) == {**others, "model": new}


counts = st.integers(-5, 1000)


@given(counts, counts, counts | st.none(), counts | st.none())
def test_usage_is_made_of_disjoint_parts(
    prompt: int, completion: int, cached: int | None, reasoning: int | None
) -> None:
    usage = wire.normalise_usage(
        wire.WireUsage(
            prompt,
            completion,
            None,
            None if cached is None else wire.PromptDetails(cached),
            None if reasoning is None else wire.CompletionDetails(reasoning),
        )
    )
    fits = 0 <= (cached or 0) <= prompt and 0 <= (reasoning or 0) <= completion
    assert (usage is not None) == fits
    if usage is not None:
        assert (usage.prompt_tokens, usage.completion_tokens) == (prompt, completion)
        assert (usage.cache_read, usage.reasoning) == (cached or 0, reasoning or 0)
        assert min(usage.input, usage.cache_read, usage.output, usage.reasoning) >= 0


@pytest.mark.parametrize(
    ("delta", "has_content"),
    [
        ({}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"role": "assistant", "content": None, "tool_calls": None}, False),
        ({"tool_calls": []}, False),
        ({"content": "a"}, True),
        ({"reasoning_content": "a"}, True),
        ({"reasoning": "a"}, True),
        ({"refusal": "no"}, True),
        ({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}, True),
    ],
)
def test_content_is_what_a_reader_sees(delta: dict[str, Any], has_content: bool) -> None:
    chunk = wire.decode_chunk(json.dumps({"choices": [{"delta": delta}]}).encode())
    assert (chunk.has_content, chunk.finish_reason) == (has_content, None)


@pytest.mark.parametrize("error", [{"message": "x", "code": 500}, {}, "x", ""])
def test_an_error_in_a_stream_is_seen(error: object) -> None:
    assert wire.decode_chunk(json.dumps({"error": error}).encode()).error is not None
    assert wire.decode_chunk(b'{"error":null,"choices":[]}').error is None


DEEP = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize("payload", [DEEP, b"", b"[1]", b"\xff", b'{"model":5}', b'{"choices":5}'])
def test_what_cannot_be_read_is_no_crash(payload: bytes) -> None:
    with pytest.raises(PilotageError) as caught:
        wire.decode_chunk(payload)
    assert caught.value.code == "upstream_invalid"
    if payload != b'{"choices":5}':
        with pytest.raises(PilotageError) as caught:
            wire.decode_completion(payload)
        assert caught.value.code == "upstream_invalid"


def test_an_error_is_what_the_sdk_reads() -> None:
    error = PilotageError("no_replica", "What.", hint="Do this.", param="p")
    assert json.loads(wire.encode_error(error)) == {
        "error": {
            "message": "What. Do this.",
            "type": "api_error",
            "param": "p",
            "code": "no_replica",
        }
    }


@pytest.mark.parametrize(
    ("is_ours", "given", "sent"),
    [
        (True, {}, {"max_tokens": 64}),
        (False, {}, {"max_completion_tokens": 64}),
        (False, {"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 64}),
        (False, {"max_completion_tokens": None}, {"max_completion_tokens": 64}),
        (False, {"max_tokens": 9}, {"max_tokens": 9}),
        (True, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        (False, {"max_tokens": 99}, {"max_tokens": 64}),
    ],
)
def test_a_limit_nobody_gave_is_named_as_the_model_wants_it(
    is_ours: bool, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], **given}
    limited = speak("chat", "openai", body, is_ours=is_ours).sent
    assert without(limited, "messages", "model") == sent


def test_a_provider_is_asked_under_its_own_name() -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}
    assert speak("chat", "openai", body).sent["model"] == "their-name"
    assert speak("chat", "openai", body, is_ours=True).sent["model"] == "chat"
