"""The Anthropic wire: errors as its package knows them, and events that nobody knows yet."""

import json
from typing import Any

import pytest

from bridge_lab import speak, stream_events
from pilotage.core.errors import CATALOGUE, PilotageError
from pilotage.gateway.wire import anthropic as wire
from upstream_wires import Messages, Plan

KNOWN = {
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "timeout_error",
    "api_error",
    "overloaded_error",
}
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_every_error_has_a_type_that_clients_know(code: str) -> None:
    error = PilotageError(code, "What.", hint="Do this.")
    body = json.loads(wire.encode_error(error))
    assert body["type"] == "error"
    inner = body["error"]
    assert inner["type"] in KNOWN
    assert (inner["message"], inner["details"]) == ("What. Do this.", {"error_code": code})
    if error.status < 499:
        assert inner["type"] not in ("api_error", "overloaded_error")
    event = wire.encode_stream_error(error).decode()
    assert event == f"event: error\ndata: {wire.encode_error(error).decode()}\n\n"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid_json", "invalid_request_error"),
        ("unsupported", "invalid_request_error"),
        ("invalid_api_key", "authentication_error"),
        ("permission_denied", "permission_error"),
        ("model_not_found", "not_found_error"),
        ("request_too_large", "request_too_large"),
        ("rate_limit_exceeded", "rate_limit_error"),
        ("insufficient_quota", "billing_error"),
        ("upstream_overloaded", "overloaded_error"),
        ("deadline", "timeout_error"),
        ("upstream_error", "api_error"),
    ],
)
def test_types_by_what_happened(code: str, kind: str) -> None:
    assert json.loads(wire.encode_error(PilotageError(code)))["error"]["type"] == kind


def test_events_that_nobody_knows_pass_through() -> None:
    news = b'event: news\ndata: {"type": "news", "model": "their-name"}\n\n'

    def add(stream: bytes) -> bytes:
        head, mark, tail = stream.partition(b"event: message_delta")
        return head + news + mark + tail

    events = speak("messages", "anthropic", {**BODY, "stream": True}, spoil=add).events
    assert ("news", {"type": "news", "model": "their-name"}) in events


def test_a_request_that_needs_nothing_keeps_its_bytes() -> None:
    body = b'{ "model" : "m", "max_tokens":5,"messages":[{}], "new_field": [1] }'
    request = wire.decode_request(body)
    assert wire.limit_request(body, request, 5) is body
    assert wire.limit_request(body, request, 5, "m") is body
    changed = json.loads(wire.limit_request(body, request, 3, "n"))
    assert changed == {**json.loads(body), "max_tokens": 3, "model": "n"}


def test_an_answer_without_content_is_still_one() -> None:
    plan: dict[str, Any] = {"text": "", "chunks": 0}
    stream = stream_events(Messages(Plan(**plan), BODY, 1))
    assert b"content_block_delta" not in stream
    spoken = speak("messages", "anthropic", {**BODY, "stream": True}, plan)
    names = [name for name, _ in spoken.events]
    assert names == ["message_start", "ping", "message_delta", "message_stop"]


def test_a_cache_entry_that_no_price_covers_is_refused() -> None:
    def body(ttl: str) -> bytes:
        control = {"type": "ephemeral", "ttl": ttl}
        part = {"type": "text", "text": 'say "1h"', "cache_control": control}
        messages = [{"role": "user", "content": [part]}]
        return json.dumps({"model": "m", "max_tokens": 9, "messages": messages}).encode()

    assert wire.decode_request(body("5m")).max_tokens == 9
    with pytest.raises(PilotageError) as caught:
        wire.decode_request(body("1h"))
    assert (caught.value.code, caught.value.param) == ("unsupported", "cache_control.ttl")
