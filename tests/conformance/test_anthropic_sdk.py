"""The gateway through the anthropic package, whatever wire the model behind it speaks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pydantic
import pytest
import pytest_asyncio

from gateway_cases import Serving
from gateway_harness import ALIAS
from pilotage.core.usage import Usage
from pilotage.kit.crypto import make_secret
from wire_cases import (
    CEILING,
    CLAUDE,
    GPT,
    MODELS,
    TOOL_SCHEMA,
    last_body,
    last_end,
    make_anthropic,
    plan,
    say,
    serve_wires,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIVE = "tok0 tok1 tok2 tok3 tok4 "
TOOL: Any = {"name": "weather", "description": "Tell the weather.", "input_schema": TOOL_SCHEMA}
CALLS = [{"name": "weather", "arguments": {"city": "Bern"}}, {"name": "weather", "arguments": {}}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with serve_wires(tmp_path_factory.mktemp("anthropic")) as serving:
        yield serving


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(serving: Serving) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with make_anthropic(serving) as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
async def test_a_message(serving: Serving, sdk: anthropic.AsyncAnthropic, model: str) -> None:
    raw = await sdk.messages.with_raw_response.create(
        model=model,
        max_tokens=50,
        system="Be brief.",
        messages=say(plan(prompt_tokens=9, cached=4, written=2)),
    )
    message = await raw.parse()
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].type == "text"
    assert message.content[0].text == FIVE
    assert (message.model, message.stop_reason) == (model, "end_turn")
    usage = message.usage
    assert (usage.input_tokens, usage.output_tokens) == (3, 5)
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (4, 2)
    assert message._request_id == raw.headers["x-request-id"]
    assert raw.headers["x-request-id"].startswith("call_")
    end = last_end(serving)
    assert (end.call_id, end.outcome) == (message._request_id, "ok")
    assert end.usage == Usage(input=3, cache_read=4, cache_write=2, output=5)
    sent = serving.upstream.requests[-1]
    if model == CLAUDE:
        assert sent.path == "/v1/messages"
        assert (sent.headers["x-api-key"], sent.body["system"]) == ("provider-key", "Be brief.")
        assert (sent.body["model"], sent.body["max_tokens"]) == ("big-claude", 50)
        assert end.finish_reason == "end_turn"
    else:
        assert sent.path == "/v1/chat/completions"
        assert sent.body["messages"][0] == {"role": "system", "content": "Be brief."}
        limit = "max_completion_tokens" if model == GPT else "max_tokens"
        assert sent.body[limit] == 50


@pytest.mark.parametrize("model", MODELS)
async def test_a_stream(serving: Serving, sdk: anthropic.AsyncAnthropic, model: str) -> None:
    wish = plan(thinking="Hm.", text="Let |me see.", prompt_tokens=9, cached=4, reasoning=1)
    async with sdk.messages.stream(model=model, max_tokens=99, messages=say(wish)) as stream:
        seen = [event.type async for event in stream]
        message = await stream.get_final_message()
    assert (seen[0], seen[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[1].type == "text"
    assert message.content[1].text == "Let me see."
    assert (message.model, message.stop_reason) == (model, "end_turn")
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (5, 4)
    end = last_end(serving)
    assert end.usage == Usage(input=5, cache_read=4, output=4, reasoning=1)
    assert CEILING in last_body(serving).values()


@pytest.mark.parametrize("model", MODELS)
async def test_tools_are_called_and_answer(
    serving: Serving, sdk: anthropic.AsyncAnthropic, model: str
) -> None:
    first = say(plan(text="Let me look.", calls=CALLS))
    choice: Any = {"type": "any", "disable_parallel_tool_use": False}
    asked = await sdk.messages.create(
        model=model, max_tokens=50, messages=first, tools=[TOOL], tool_choice=choice
    )
    assert asked.stop_reason == "tool_use"
    uses = [block for block in asked.content if block.type == "tool_use"]
    assert [(use.name, use.input) for use in uses] == [
        ("weather", {"city": "Bern"}),
        ("weather", {}),
    ]
    async with sdk.messages.stream(
        model=model, max_tokens=50, messages=first, tools=[TOOL]
    ) as stream:
        streamed = await stream.get_final_message()
    assert [block.to_dict() for block in streamed.content] == [
        block.to_dict() for block in asked.content
    ]
    results: Any = [
        {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"} for use in uses
    ]
    results.append({"type": "text", "text": "And now?"})
    answer: Any = asked.to_param()
    said: Any = [*first, answer, {"role": "user", "content": results}]
    told = await sdk.messages.create(model=model, max_tokens=50, messages=said, tools=[TOOL])
    assert told.stop_reason == "end_turn"
    messages = last_body(serving)["messages"]
    if model == CLAUDE:
        parts = messages[-1]["content"][:-1]
        assert [part["tool_use_id"] for part in parts] == [use.id for use in uses]
    else:
        assert [m.get("tool_call_id") for m in messages[-3:-1]] == [use.id for use in uses]


@pytest.mark.parametrize("model", MODELS)
async def test_an_answer_after_a_schema(sdk: anthropic.AsyncAnthropic, model: str) -> None:
    class Point(pydantic.BaseModel):
        x: int

    parsed = await sdk.messages.parse(
        model=model, max_tokens=50, messages=say(plan(text='{"x": 3}')), output_format=Point
    )
    assert parsed.parsed_output == Point(x=3)


async def test_the_blocking_client_works_too(serving: Serving) -> None:
    def call() -> str:
        with (
            anthropic.Anthropic(
                base_url=serving.gateway.url,
                api_key=serving.world.secret,
                http_client=anthropic.DefaultHttpxClient(trust_env=False),
            ) as client,
            client.messages.stream(model=GPT, max_tokens=9, messages=say("hello")) as stream,
        ):
            return "".join(stream.text_stream)

    assert await asyncio.to_thread(call) == FIVE


async def test_models_are_listed_in_their_own_shape(sdk: anthropic.AsyncAnthropic) -> None:
    listed = [model async for model in sdk.models.list()]
    assert sorted(model.id for model in listed) == sorted(MODELS)
    one = await sdk.models.retrieve(CLAUDE)
    assert (one.type, one.display_name) == ("model", CLAUDE)
    with pytest.raises(anthropic.NotFoundError) as caught:
        await sdk.models.retrieve("none")
    assert (caught.value.type, caught.value.error_code) == ("not_found_error", "model_not_found")


@pytest.mark.parametrize(
    ("more", "kind", "said", "code"),
    [
        ({"model": "none"}, anthropic.NotFoundError, "not_found_error", "model_not_found"),
        ({"max_tokens": -1}, anthropic.BadRequestError, "invalid_request_error", "invalid_request"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error", "invalid_request"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            "unsupported",
        ),
        (
            {"messages": say("x" * (1 << 20))},
            anthropic.RequestTooLargeError,
            "request_too_large",
            "request_too_large",
        ),
    ],
)
async def test_a_request_that_is_wrong(
    sdk: anthropic.AsyncAnthropic,
    more: dict[str, Any],
    kind: type[anthropic.APIStatusError],
    said: str,
    code: str,
) -> None:
    with pytest.raises(kind) as caught:
        arguments: dict[str, Any] = {"model": ALIAS, "max_tokens": 9, "messages": say("hello")}
        await sdk.messages.create(**{**arguments, **more})
    assert (caught.value.type, caught.value.error_code) == (said, code)


async def test_a_wrong_key(serving: Serving) -> None:
    async with make_anthropic(serving, make_secret("plt_live_")) as client:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await client.messages.create(model=ALIAS, max_tokens=9, messages=say("hello"))
    assert (caught.value.type, caught.value.error_code) == (
        "authentication_error",
        "invalid_api_key",
    )


@pytest.mark.parametrize("model", MODELS)
async def test_a_model_that_fails(sdk: anthropic.AsyncAnthropic, model: str) -> None:
    with pytest.raises(anthropic.InternalServerError) as caught:
        wish = plan(fault="status", status=500)
        await sdk.messages.create(model=model, max_tokens=9, messages=say(wish))
    assert (caught.value.status_code, caught.value.type) == (502, "api_error")
    with pytest.raises(anthropic.BadRequestError):
        wish = plan(fault="status", status=400)
        await sdk.messages.create(model=model, max_tokens=9, messages=say(wish))


@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_that_breaks_raises(
    serving: Serving, sdk: anthropic.AsyncAnthropic, model: str
) -> None:
    words = ""
    with pytest.raises(anthropic.APIStatusError) as caught:
        async with sdk.messages.stream(
            model=model, max_tokens=9, messages=say(plan(fault="cut_mid_stream"))
        ) as stream:
            async for text in stream.text_stream:
                words += text
    assert words == "tok0 tok1 "
    assert caught.value.error_code == "upstream_cut"
    end = last_end(serving)
    assert (end.outcome, end.is_estimated) == ("upstream_cut", True)
    assert end.usage.output == 2


@pytest.mark.parametrize("model", MODELS)  # last: an overloaded model is left alone for a while
async def test_a_model_that_is_overloaded(sdk: anthropic.AsyncAnthropic, model: str) -> None:
    with pytest.raises(anthropic.ServiceUnavailableError) as caught:
        wish = plan(fault="status", status=429, retry_after=2)
        await sdk.messages.create(model=model, max_tokens=9, messages=say(wish))
    assert caught.value.type == "overloaded_error"
    assert caught.value.response.headers["retry-after"] == "2"
