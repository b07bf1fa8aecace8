"""Calls that name a prompt, through a real gateway process: what the model and the records get."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway_cases import Serving, code_of, serve_world
from gateway_harness import make_http
from pilotage.core.frames import Begun, Ended
from pilotage.core.prompt_table import PublishedPrompt
from pilotage.core.prompts import encode_content, read_content
from wire_cases import last_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

LETTER = {
    "messages": [
        {"role": "system", "content": "Write a {{ tone }} letter."},
        {"role": "user", "content": "{{ wish }}"},
    ],
    "variables": [{"name": "wish"}, {"name": "tone", "default": "kind"}],
    "parameters": {"max_tokens": 7, "temperature": 0.5},
}
MOST_MB = 1


def publish(serving: Serving, *contents: dict[str, Any], label_at: int = 0) -> int:
    """Publish versions 1.0.0, 1.1.0, ... of the prompt ``letter``; one is in production."""
    return serving.world.publish(
        prompts=[
            PublishedPrompt(
                serving.world.tenant.project_id,
                "letter",
                f"1.{number}.0",
                ["production"] if number == label_at else [],
                encode_content(read_content(content)),
            )
            for number, content in enumerate(contents)
        ]
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    settings = {"gateway": {"max_body_mb": MOST_MB}}
    async with serve_world(tmp_path_factory.mktemp("prompts"), settings) as serving:
        await serving.gateway.wait_serving(publish(serving, LETTER))
        yield serving


@pytest_asyncio.fixture(loop_scope="module")
async def http(serving: Serving) -> AsyncIterator[httpx.AsyncClient]:
    async with make_http(serving.gateway) as client:
        yield client


def named(ref: str = "letter@1.0.0", wish: str = '{"chunks": 2}', **more: object) -> dict[str, Any]:
    return {"model": "chat", "prompt": {"id": ref, "variables": {"wish": wish}}, **more}


def last_frames(serving: Serving) -> tuple[Begun, Ended]:
    begun, ended = serving.world.frames()[-2:]
    assert isinstance(begun, Begun)
    assert isinstance(ended, Ended)
    return begun, ended


@pytest.mark.parametrize("ref", ["letter@1.0.0", "letter@production"])
async def test_the_model_gets_the_messages_and_the_records_the_version(
    serving: Serving, http: httpx.AsyncClient, ref: str
) -> None:
    reply = await http.post("/v1/chat/completions", json=named(ref))

    assert reply.status_code == 200, reply.text
    assert reply.headers["x-pilotage-prompt"] == "letter@1.0.0"
    asked = last_body(serving)
    assert asked["messages"] == [
        {"role": "system", "content": "Write a kind letter."},
        {"role": "user", "content": '{"chunks": 2}'},
    ]
    assert (asked["max_tokens"], asked["temperature"]) == (7, 0.5)
    assert "prompt" not in asked
    begun, ended = last_frames(serving)
    assert (begun.prompt, ended.prompt) == ("letter@1.0.0", "letter@1.0.0")


async def test_the_worst_case_is_that_of_the_whole_text(
    serving: Serving, http: httpx.AsyncClient
) -> None:
    bounds = []
    for extra in (0, 5000):
        wish = json.dumps({"chunks": 1, "x": "y" * extra})
        await http.post("/v1/chat/completions", json=named(wish=wish))
        bounds.append(last_frames(serving)[0].worst_tokens)
    sent = json.dumps({"id": "letter@1.0.0", "variables": {"wish": '{"chunks": 1, "x": ""}'}})

    assert bounds[1] - bounds[0] == 5000
    assert bounds[0] > len(sent)


async def test_a_stream_is_answered_on_every_wire(
    serving: Serving, http: httpx.AsyncClient
) -> None:
    for path, more in (
        ("/v1/chat/completions", {"stream": True}),
        ("/v1/messages", {"stream": True}),
        ("/v1/responses", {"stream": True, "input": '{"chunks": 1}'}),
    ):
        reply = await http.post(path, json=named(**more))
        assert reply.status_code == 200, reply.text
        assert "tok0" in reply.text
        assert reply.headers["x-pilotage-prompt"] == "letter@1.0.0"
        assert last_frames(serving)[1].prompt == "letter@1.0.0"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (named("letter@2.0.0"), 404, "prompt_not_found"),
        (named("letter@candidate"), 404, "prompt_not_found"),
        (named("letter"), 400, "invalid_request"),
        (named() | {"prompt": {"id": "letter@1.0.0"}}, 400, "invalid_request"),
        (named(wish="x" * (MOST_MB << 20) + "x"), 413, "request_too_large"),
        (named(wish="\x01" * 200_000), 413, "request_too_large"),
    ],
    ids=["version", "label", "name", "variables", "long", "escaped"],
)
async def test_a_refusal_is_told_on_the_callers_wire_and_is_no_call(
    serving: Serving, http: httpx.AsyncClient, body: dict[str, Any], status: int, code: str
) -> None:
    before = len(serving.world.frames())

    chat = await http.post("/v1/chat/completions", json=body)
    messages = await http.post("/v1/messages", json={"max_tokens": 5, **body})

    assert (chat.status_code, code_of(chat)) == (status, code)
    assert messages.status_code == status
    assert messages.json()["error"]["details"]["error_code"] == code
    assert len(serving.world.frames()) == before


async def test_a_completion_has_its_own_prompt(serving: Serving, http: httpx.AsyncClient) -> None:
    reply = await http.post(
        "/v1/completions", json={"model": "chat", "prompt": "letter@1.0.0", "max_tokens": 3}
    )

    assert reply.status_code == 200, reply.text
    assert last_body(serving)["prompt"] == "letter@1.0.0"
    assert last_frames(serving)[1].prompt == ""


async def test_a_moved_label_counts_at_once_and_replies_are_kept_by_what_was_sent(
    serving: Serving, http: httpx.AsyncClient
) -> None:
    other = LETTER | {"parameters": {"max_tokens": 3}}
    key = {"idempotency-key": "moved"}
    first = await http.post("/v1/chat/completions", json=named("letter@production"), headers=key)
    await serving.gateway.wait_serving(publish(serving, LETTER, other, label_at=1))

    again = await http.post("/v1/chat/completions", json=named("letter@production"), headers=key)
    fresh = await http.post("/v1/chat/completions", json=named("letter@production"))

    assert again.json() == first.json()
    assert again.headers["x-pilotage-idempotent-replay"] == "true"
    assert fresh.headers["x-pilotage-prompt"] == "letter@1.1.0"
    assert last_body(serving)["max_tokens"] == 3


async def test_a_prompt_that_is_gone_is_refused(serving: Serving, http: httpx.AsyncClient) -> None:
    await serving.gateway.wait_serving(serving.world.publish())

    reply = await http.post("/v1/chat/completions", json=named())

    assert (reply.status_code, code_of(reply)) == (404, "prompt_not_found")
    assert "pilotage prompts show letter" in reply.json()["error"]["message"]
    await serving.gateway.wait_serving(publish(serving, LETTER))
