"""The gateway through the openai package: all but chat, and chat with other models behind it."""

from collections.abc import AsyncIterator
from typing import Any

import openai
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
    make_openai,
    plan,
    say,
    serve_wires,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIVE = "tok0 tok1 tok2 tok3 tok4 "
CALLS = [{"name": "weather", "arguments": {"city": "Bern"}}]
FUNCTION = {"name": "weather", "parameters": {**TOOL_SCHEMA, "additionalProperties": False}}
CHAT_TOOL: Any = {"type": "function", "function": {**FUNCTION, "strict": True}}
RESPONSES_TOOL: Any = {"type": "function", **FUNCTION, "strict": True}
LOCAL_OR_GPT = (ALIAS, GPT)


class Point(pydantic.BaseModel):
    x: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with serve_wires(tmp_path_factory.mktemp("openai")) as serving:
        yield serving


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(serving: Serving) -> AsyncIterator[openai.AsyncOpenAI]:
    async with make_openai(serving) as client:
        yield client


# chat


@pytest.mark.parametrize("model", MODELS)
async def test_chat_with_any_model(serving: Serving, sdk: openai.AsyncOpenAI, model: str) -> None:
    wish = plan(text="Let |me see.", calls=CALLS, prompt_tokens=9, cached=4, reasoning=2)
    asked = await sdk.chat.completions.create(model=model, messages=say(wish), tools=[CHAT_TOOL])
    (choice,) = asked.choices
    assert (asked.model, choice.finish_reason) == (model, "tool_calls")
    assert choice.message.content == "Let me see."
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Bern"}')
    assert asked.usage is not None
    assert asked.usage.prompt_tokens_details is not None
    assert (asked.usage.prompt_tokens, asked.usage.completion_tokens) == (9, 5)
    assert asked.usage.prompt_tokens_details.cached_tokens == 4
    assert last_end(serving).usage == Usage(input=5, cache_read=4, output=3, reasoning=2)
    answer: Any = choice.message.to_dict()
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    told = await sdk.chat.completions.create(
        model=model, messages=[*say("hello"), answer, result], tools=[CHAT_TOOL]
    )
    assert told.choices[0].message.content == FIVE
    assert CEILING in last_body(serving).values()


@pytest.mark.parametrize("model", MODELS)
async def test_chat_streams_with_any_model(sdk: openai.AsyncOpenAI, model: str) -> None:
    wish = plan(text="Let |me see.", calls=CALLS)
    options: Any = {"include_usage": True}
    async with sdk.chat.completions.stream(
        model=model, messages=say(wish), tools=[CHAT_TOOL], stream_options=options
    ) as stream:
        seen = {event.type async for event in stream}
        completion = await stream.get_final_completion()
    assert {"content.delta", "tool_calls.function.arguments.delta"} <= seen
    (choice,) = completion.choices
    assert (choice.message.content, choice.finish_reason) == ("Let me see.", "tool_calls")
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.parsed_arguments == {"city": "Bern"}
    assert completion.usage is not None
    assert completion.usage.total_tokens == 14


@pytest.mark.parametrize("model", MODELS)
async def test_chat_after_a_schema(serving: Serving, sdk: openai.AsyncOpenAI, model: str) -> None:
    parsed = await sdk.chat.completions.parse(
        model=model, messages=say(plan(text='{"x": 3}')), response_format=Point
    )
    assert parsed.choices[0].message.parsed == Point(x=3)
    sent = last_body(serving)
    if model == CLAUDE:
        assert sent["output_config"]["format"]["schema"]["required"] == ["x"]
    else:
        assert sent["response_format"]["json_schema"]["name"] == "Point"


async def test_what_another_wire_cannot_say_is_refused(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.chat.completions.create(model=CLAUDE, messages=say("hello"), n=2)
    assert (caught.value.code, caught.value.param) == ("unsupported", "n")


# completions


@pytest.mark.parametrize("model", LOCAL_OR_GPT)
async def test_completions(serving: Serving, sdk: openai.AsyncOpenAI, model: str) -> None:
    made = await sdk.completions.create(model=model, prompt=["a", "b"], max_tokens=7)
    assert [choice.text for choice in made.choices] == [FIVE, FIVE]
    assert (made.model, last_body(serving)["max_tokens"]) == (model, 7)
    await sdk.completions.create(model=model, prompt=[[1, 2], [3]])
    assert (last_body(serving)["prompt"], last_body(serving)["max_tokens"]) == ([[1, 2], [3]], 16)
    await sdk.completions.create(model=model, prompt=[1, 2], max_tokens=1000, echo=True)
    assert (last_body(serving)["max_tokens"], last_body(serving)["echo"]) == (CEILING, True)
    assert last_end(serving).usage == Usage(input=9, output=5)


@pytest.mark.parametrize("model", LOCAL_OR_GPT)
async def test_completions_stream(serving: Serving, sdk: openai.AsyncOpenAI, model: str) -> None:
    chunks = [c async for c in await sdk.completions.create(model=model, prompt="a", stream=True)]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == FIVE
    assert {chunk.model for chunk in chunks} == {model}
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert last_end(serving).usage == Usage(input=9, output=5)
    asked = await sdk.completions.create(
        model=model, prompt="a", stream=True, stream_options={"include_usage": True}
    )
    *_, last = [chunk async for chunk in asked]
    assert last.usage is not None
    assert (last.choices, last.usage.total_tokens) == ([], 14)
    with pytest.raises(openai.APIError) as caught:
        wish = plan(fault="cut_mid_stream")
        async for _ in await sdk.completions.create(model=model, prompt=wish, stream=True):
            pass
    assert caught.value.code == "upstream_cut"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"n": 0}, "n"),
        ({"prompt": ["a"] * 65, "best_of": 2}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
    ],
)
async def test_completions_that_are_wrong(
    sdk: openai.AsyncOpenAI, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.completions.create(**{"model": ALIAS, "prompt": "a", **more})
    assert (caught.value.code, caught.value.param) == ("invalid_request", param)


# embeddings


@pytest.mark.parametrize("model", LOCAL_OR_GPT)
async def test_embeddings(serving: Serving, sdk: openai.AsyncOpenAI, model: str) -> None:
    made = await sdk.embeddings.create(model=model, input=["a", "b"], dimensions=4)
    assert [item.embedding for item in made.data] == [[0.0] * 4, [1.0] * 4]
    assert (made.model, made.usage.prompt_tokens) == (model, 9)
    sent = last_body(serving)
    assert (sent["input"], sent["dimensions"]) == (["a", "b"], 4)
    assert not {"max_tokens", "max_completion_tokens"} & sent.keys()
    end = last_end(serving)
    assert (end.usage, end.outcome) == (Usage(input=9), "ok")
    for one in ("a", [1, 2, 3]):
        assert len((await sdk.embeddings.create(model=model, input=one)).data) == 1
    two: Any = [[1, 2], [3]]
    assert len((await sdk.embeddings.create(model=model, input=two)).data) == 2


@pytest.mark.parametrize("value", [[], ["a", []], 5, ["a"] * 2049])
async def test_embeddings_that_are_wrong(sdk: openai.AsyncOpenAI, value: Any) -> None:  # noqa: ANN401
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.embeddings.create(model=ALIAS, input=value)
    assert (caught.value.code, caught.value.param) == ("invalid_request", "input")


async def test_embeddings_of_a_model_without_them(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.embeddings.create(model=CLAUDE, input="a")
    assert caught.value.code == "unsupported"


# responses


@pytest.mark.parametrize("model", MODELS)
async def test_responses(serving: Serving, sdk: openai.AsyncOpenAI, model: str) -> None:
    wish = plan(text="Let |me see.", calls=CALLS, prompt_tokens=9, cached=4, reasoning=2)
    made = await sdk.responses.create(
        model=model, instructions="Be brief.", input=wish, tools=[RESPONSES_TOOL], store=False
    )
    assert (made.output_text, made.status, made.model) == ("Let me see.", "completed", model)
    assert made.usage is not None
    assert (made.usage.input_tokens, made.usage.input_tokens_details.cached_tokens) == (9, 4)
    assert made.usage.output_tokens_details.reasoning_tokens == 2
    message, call = made.output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("weather", '{"city": "Bern"}')
    said: Any = [
        {"role": "user", "content": "hello"},
        message.to_dict(),
        call.to_dict(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    told = await sdk.responses.create(model=model, input=said)
    assert told.output_text == FIVE
    sent = last_body(serving)["messages"]
    assert [turn["role"] for turn in sent][:2] == ["user", "assistant"]


@pytest.mark.parametrize("model", MODELS)
async def test_responses_stream(serving: Serving, sdk: openai.AsyncOpenAI, model: str) -> None:
    wish = plan(thinking="Hm.", text="Let |me see.", calls=CALLS)
    async with sdk.responses.stream(model=model, input=wish, tools=[RESPONSES_TOOL]) as stream:
        seen = [event.type async for event in stream]
        made = await stream.get_final_response()
    assert (seen[0], seen[-1]) == ("response.created", "response.completed")
    assert "response.reasoning_text.delta" in seen
    assert made.output_text == "Let me see."
    assert [item.type for item in made.output] == ["reasoning", "message", "function_call"]
    assert made.output[2].type == "function_call"
    assert made.output[2].parsed_arguments == {"city": "Bern"}
    assert made.usage is not None
    assert made.usage.total_tokens == 14
    assert last_end(serving).usage == Usage(input=9, output=5)


@pytest.mark.parametrize("model", MODELS)
async def test_responses_after_a_schema(sdk: openai.AsyncOpenAI, model: str) -> None:
    made = await sdk.responses.parse(model=model, input=plan(text='{"x": 3}'), text_format=Point)
    assert made.output_parsed == Point(x=3)


async def test_a_response_that_is_cut_by_its_limit(sdk: openai.AsyncOpenAI) -> None:
    made = await sdk.responses.create(model=GPT, input=plan(finish="length"), max_output_tokens=5)
    assert made.incomplete_details is not None
    assert (made.status, made.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize("model", MODELS)
async def test_a_response_that_breaks_raises(sdk: openai.AsyncOpenAI, model: str) -> None:
    words = ""
    with pytest.raises(openai.APIError) as caught:
        wish = plan(fault="cut_mid_stream")
        async for event in await sdk.responses.create(model=model, input=wish, stream=True):
            if event.type == "response.output_text.delta":
                words += event.delta
    assert (words, caught.value.code) == ("tok0 tok1 ", "upstream_cut")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ],
)
async def test_what_responses_cannot_do_here(
    sdk: openai.AsyncOpenAI, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.responses.create(**{"model": GPT, "input": "hello", **more})
    assert (caught.value.code, caught.value.param) == ("unsupported", param)


# errors of every door


@pytest.mark.parametrize("door", ["completions", "embeddings", "responses"])
async def test_errors_have_their_classes(serving: Serving, door: str) -> None:
    async def ask(client: openai.AsyncOpenAI, model: str, said: str) -> None:
        if door == "completions":
            await client.completions.create(model=model, prompt=said)
        elif door == "embeddings":
            await client.embeddings.create(model=model, input=said)
        else:
            await client.responses.create(model=model, input=said)

    async with make_openai(serving, make_secret("plt_live_")) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await ask(stranger, ALIAS, "hello")
    async with make_openai(serving) as client:
        with pytest.raises(openai.NotFoundError):
            await ask(client, "none", "hello")
        with pytest.raises(openai.BadRequestError):
            await ask(client, ALIAS, plan(fault="status", status=400))
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client, ALIAS, plan(fault="status", status=500))
        assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")
        await ask(client, ALIAS, "hello")
