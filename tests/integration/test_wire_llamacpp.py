"""What the gateway assumes of llama.cpp's wire, asked of the real engine with the tiny model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine_process import RunningEngine, make_spec, run_engine
from pilotage.endpoints.engines.llamacpp import ENGINE
from pilotage.gateway.http import WIRES
from pilotage.gateway.wire.door import Wire

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HOSTILE = ["", "hello", "日本語🎉" * 30, "\x00\x01\x7f", "\u202e\ufdfa" * 40, "<|im_end|>" * 20]


@pytest.fixture(scope="module")
def engine(tiny_gguf: Path) -> Iterator[RunningEngine]:
    with run_engine(ENGINE, make_spec(tiny_gguf, context_tokens=4096, slots=4)) as running:
        yield running


def ask(engine: RunningEngine, path: str, **body: Any) -> Any:  # noqa: ANN401 - any JSON
    if path == CHAT:
        body.setdefault("messages", [{"role": "user", "content": "hello"}])
    reply = engine.client.post(path, json={"model": "x", "max_tokens": 8, **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_it_counts_one_choice_only_and_is_known_by_its_timings(engine: RunningEngine) -> None:
    three = ask(engine, CHAT, n=3, ignore_eos=True)
    assert len(three["choices"]) == 3
    assert three["usage"]["completion_tokens"] == 8
    assert "timings" in three


def test_it_counts_one_prompt_only(engine: RunningEngine) -> None:
    one = ask(engine, COMPLETIONS, prompt="hello")
    two = ask(engine, COMPLETIONS, prompt=["hello", "hello world " * 20])
    assert len(two["choices"]) == 2
    assert two["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert "timings" in two


def test_it_prefers_its_own_name_of_the_limit(engine: RunningEngine) -> None:
    answer = ask(engine, COMPLETIONS, prompt="hello", n_predict=2, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("is_ascii", [False, True])
def test_no_prompt_has_more_tokens_than_its_bound(
    engine: RunningEngine, text: str, is_ascii: bool
) -> None:
    def bound(wire: Wire, body: dict[str, Any]) -> int:
        payload = json.dumps({"model": "x", **body}, ensure_ascii=is_ascii).encode()
        return wire.decode_request(payload).bound_input(payload)

    messages = [{"role": "system", "content": text}, {"role": "user", "content": text}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    for more in ({}, {"tools": tools}):
        counted = ask(engine, CHAT, messages=messages, **more)["usage"]["prompt_tokens"]
        assert 0 < counted <= bound(WIRES[CHAT], {"messages": messages, **more})
    counted = ask(engine, COMPLETIONS, prompt=text)["usage"]["prompt_tokens"]
    assert counted <= bound(WIRES[COMPLETIONS], {"prompt": text})
