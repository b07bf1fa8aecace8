"""The gateway through the openai package: right answers, and errors of the right class."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionChunk

from gateway_cases import Serving, code_of, serve_world
from gateway_harness import ALIAS, chat_body, make_http
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.kit.crypto import make_secret
from raw_client import RawClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

CEILING = 64
SETTINGS = {"gateway": {"call_timeout": "1s", "stall_timeout": "300ms"}}
FIVE = "tok0 tok1 tok2 tok3 tok4 "


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with serve_world(tmp_path_factory.mktemp("sdk"), SETTINGS) as serving:
        serving.world.publish(max_output_tokens=CEILING)
        await serving.gateway.wait_serving(serving.world.n)
        yield serving


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(serving: Serving) -> AsyncIterator[openai.AsyncOpenAI]:
    async with make_sdk(serving) as client:
        # An answer now and then keeps the breaker closed, whatever fails in the tests.
        await client.chat.completions.create(model=ALIAS, messages=say("hello"))
        yield client


def make_sdk(serving: Serving, *, key: str = "", max_retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{serving.gateway.url}/v1",
        api_key=key or serving.world.secret,
        max_retries=max_retries,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    )


def say(plan: dict[str, Any] | str) -> list[Any]:
    messages: list[Any] = chat_body(plan)["messages"]
    return messages


def got(serving: Serving) -> dict[str, Any]:
    """Return the body that the upstream received last."""
    body: dict[str, Any] = serving.upstream.requests[-1].body
    return body


def read_chunks(chunks: Iterator[ChatCompletionChunk]) -> tuple[str, list[Any]]:
    """Return the text of a stream and every usage in it; each chunk is under the alias's name."""
    text, usages = "", []
    for chunk in chunks:
        assert chunk.model == ALIAS
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        if chunk.usage is not None:
            usages.append((chunk.usage.prompt_tokens, chunk.usage.completion_tokens))
    return text, usages


async def stream(sdk: openai.AsyncOpenAI, plan: dict[str, Any], **more: Any) -> list[Any]:  # noqa: ANN401
    chunks = await sdk.chat.completions.create(model=ALIAS, messages=say(plan), stream=True, **more)
    return [chunk async for chunk in chunks]


async def refuse(sdk: openai.AsyncOpenAI, kind: type[openai.APIError], **more: Any) -> Any:  # noqa: ANN401
    """Make a call that must raise; return the error."""
    arguments = {"model": ALIAS, "messages": say("hello"), **more}
    with pytest.raises(kind) as caught:
        await sdk.chat.completions.create(**arguments)
    return caught.value


# answers


@pytest.mark.parametrize("fault", ["none", "wrong_model", "1xx"])
async def test_an_answer_comes_with_its_text_usage_and_name(
    serving: Serving, sdk: openai.AsyncOpenAI, fault: str
) -> None:
    raw = await sdk.chat.completions.with_raw_response.create(
        model=ALIAS, messages=say({"fault": fault})
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == FIVE
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 5)
    assert answer.model == ALIAS
    assert raw.headers["x-pilotage-model-version"] == "model-dep_a@1.0.0"
    assert raw.headers["x-pilotage-arm"] == "dep_a"
    assert raw.headers["x-request-id"].startswith("call_")
    assert serving.upstream.requests[-1].authorization == "Bearer upstream-key"


@pytest.mark.parametrize("fault", ["none", "wrong_model", "chunk_split", "close_delimited"])
async def test_a_stream_has_its_text_and_no_usage_unless_asked(
    sdk: openai.AsyncOpenAI, fault: str
) -> None:
    chunks = await stream(sdk, {"fault": fault})
    assert read_chunks(iter(chunks)) == (FIVE, [])
    assert all(chunk.choices for chunk in chunks)
    asked = await stream(sdk, {"fault": fault}, stream_options={"include_usage": True})
    assert read_chunks(iter(asked)) == (FIVE, [(9, 5)])
    assert asked[-1].choices == []


async def test_the_blocking_client_works_too(serving: Serving) -> None:
    def call() -> tuple[str | None, tuple[str, list[Any]]]:
        with openai.OpenAI(
            base_url=f"{serving.gateway.url}/v1",
            api_key=serving.world.secret,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        ) as client:
            plain = client.chat.completions.create(model=ALIAS, messages=say("hello"))
            chunks = client.chat.completions.create(model=ALIAS, messages=say("hello"), stream=True)
            return plain.choices[0].message.content, read_chunks(iter(chunks))

    assert await asyncio.to_thread(call) == (FIVE, (FIVE, []))


async def test_tool_calls_stream_through(sdk: openai.AsyncOpenAI) -> None:
    head = {"index": 0, "id": "call_1", "type": "function"}
    deltas = [
        {"role": "assistant", "content": None, "tool_calls": None},
        {"tool_calls": [{**head, "function": {"name": "look", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"model":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"x"}'}}]},
    ]
    chunks = await stream(sdk, {"fault": "deltas", "body": deltas})
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].function.name == "look"
    assert json.loads("".join(call.function.arguments for call in calls)) == {"model": "x"}


async def test_models_are_listed_and_found(sdk: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == [ALIAS]
    assert (await sdk.models.retrieve(ALIAS)).owned_by == "pilotage"
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.models.retrieve("none/such")
    assert caught.value.code == "model_not_found"


# what the upstream receives


async def test_a_body_that_needs_nothing_goes_up_as_it_came(
    serving: Serving, sdk: openai.AsyncOpenAI
) -> None:
    text = ' {"max_tokens" : 7,"model":"chat","messages": [{"role":"user","content":"h\\u00e9"}],'
    text += '"temperature":0.10, "logit_bias": {"5":-1e2}, "model_extra":{"model":"other"}}\n'
    async with make_http(serving.gateway) as http:
        answer = await http.post("/v1/chat/completions", content=text)
    assert answer.status_code == 200
    request = serving.upstream.requests[-1]
    assert request.body == json.loads(text)
    assert request.headers["content-length"] == str(len(text))


@pytest.mark.parametrize(
    ("given", "received"),
    [
        ({}, {"max_tokens": CEILING}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5000}, {"max_tokens": CEILING}),
        ({"max_completion_tokens": 5000}, {"max_completion_tokens": CEILING}),
        ({"max_tokens": None}, {"max_tokens": CEILING}),
        (
            {"max_tokens": 9, "max_completion_tokens": 5000},
            {"max_tokens": 9, "max_completion_tokens": 9},
        ),
        (
            {"max_tokens": 9, "extra_body": {"n_predict": 5000}},
            {"max_tokens": 9, "n_predict": 9},
        ),
    ],
)
async def test_the_output_limit_is_the_least_of_the_clients_and_ours(
    serving: Serving, sdk: openai.AsyncOpenAI, given: dict[str, Any], received: dict[str, int]
) -> None:
    await sdk.chat.completions.create(
        model=ALIAS, messages=say("hello"), temperature=0.25, seed=7, **given
    )
    assert got(serving) == {
        "model": ALIAS,
        "messages": say("hello"),
        "temperature": 0.25,
        "seed": 7,
        **received,
    }


@pytest.mark.parametrize(
    ("options", "received"),
    [
        (openai.omit, {"include_usage": True}),
        (None, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        (
            {"include_usage": False, "include_obfuscation": False},
            {"include_usage": True, "include_obfuscation": False},
        ),
    ],
)
async def test_usage_is_always_asked_upstream(
    serving: Serving,
    sdk: openai.AsyncOpenAI,
    options: Any,  # noqa: ANN401
    received: dict[str, bool],
) -> None:
    chunks = await stream(sdk, {}, stream_options=options)
    assert read_chunks(iter(chunks)) == (FIVE, [])
    assert got(serving)["stream_options"] == received
    assert got(serving)["max_tokens"] == CEILING


# refusals


async def test_a_bad_key_is_an_authentication_error(serving: Serving) -> None:
    for key in ("sk-wrong", make_secret("plt_live_"), make_secret("plt_admin_")):
        async with make_sdk(serving, key=key) as sdk:
            error = await refuse(sdk, openai.AuthenticationError)
            assert error.code == "invalid_api_key"
            assert key not in str(error)
            with pytest.raises(openai.AuthenticationError):
                await sdk.models.list()
    assert "/v1 takes an API key" in str(error)
    async with httpx.AsyncClient(trust_env=False) as http:
        bare = await http.post(f"{serving.gateway.url}/v1/chat/completions", json=chat_body())
    assert (bare.status_code, code_of(bare)) == (401, "invalid_api_key")


async def test_an_unknown_model_is_not_found(sdk: openai.AsyncOpenAI) -> None:
    error = await refuse(sdk, openai.NotFoundError, model="gpt-none")
    assert (error.code, error.param) == ("model_not_found", "model")
    assert ALIAS in str(error)  # says what there is


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"messages": openai.omit}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"model": 5}, "model"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"n_predict": -1}}, "n_predict"),
        ({"n": 1_000_000_000_000_000_000}, "n"),
        ({"extra_body": {"n_cmpl": 129}}, "n"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ],
)
async def test_a_wrong_field_is_named(
    sdk: openai.AsyncOpenAI, wrong: dict[str, Any], param: str
) -> None:
    if wrong.get("messages") is openai.omit:
        error = await refuse_body(sdk, {"model": ALIAS})
    else:
        error = await refuse(sdk, openai.BadRequestError, **wrong)
    assert (error.code, error.param) == ("invalid_request", param)


async def refuse_body(sdk: openai.AsyncOpenAI, body: dict[str, Any]) -> Any:  # noqa: ANN401
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.post("/chat/completions", cast_to=object, body=body)
    return caught.value


@pytest.mark.parametrize(
    "content", [b"", b"no json", b'{"model":', b'{"model":"\xff","messages":[1]}']
)
async def test_a_body_that_is_no_json_is_refused(serving: Serving, content: bytes) -> None:
    async with make_http(serving.gateway) as http:
        answer = await http.post("/v1/chat/completions", content=content)
        assert (answer.status_code, code_of(answer)) == (400, "invalid_json")
        nested = b'{"model":"chat","messages":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}"
        answer = await http.post("/v1/chat/completions", content=nested)
        assert (answer.status_code, code_of(answer)) == (400, "invalid_json")
    assert "Traceback" not in serving.gateway.log()


async def test_a_body_that_is_too_large_is_refused(
    serving: Serving, sdk: openai.AsyncOpenAI
) -> None:
    error = await refuse(sdk, openai.APIStatusError, messages=say("x" * 50_000_000))
    assert (error.status_code, error.code) == (413, "request_too_large")
    with RawClient(serving.gateway) as client:
        await client.post(chat_body(), content_length=str(10**12))
        assert b"413 Request Entity Too Large" in await client.read_all()


async def test_a_body_that_does_not_come_is_given_up(serving: Serving) -> None:
    with RawClient(serving.gateway) as client:
        await client.send(client.make_post(chat_body())[:-5])
        seen = await client.read_all()
    assert b"408 Request Timeout" in seen
    assert b'"code":"request_timeout"' in seen


async def test_other_addresses_and_methods_are_refused(serving: Serving) -> None:
    async with make_http(serving.gateway) as http:
        assert code_of(await http.get("/v1/none")) == "unknown_url"
        assert code_of(await http.get("/v1/chat/completions")) == "method_not_allowed"
        assert (await http.post("/v1/models")).status_code == 405
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json() == {"status": "ready"}


# what goes wrong upstream


async def test_a_prompt_that_does_not_fit_is_the_clients_error(sdk: openai.AsyncOpenAI) -> None:
    inner = {
        "code": 400,
        "message": "the request exceeds the available context size",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 4000,
        "n_ctx": 2048,
    }
    plan = {"fault": "status", "status": 400, "body": {"error": inner}}
    error = await refuse(sdk, openai.BadRequestError, messages=say(plan))
    assert (error.code, error.param) == ("context_length_exceeded", "messages")
    assert "available context size" in str(error)


async def test_another_400_of_the_model_stays_one(sdk: openai.AsyncOpenAI) -> None:
    inner = {"message": "bad grammar", "type": "invalid_request_error", "param": "grammar"}
    plan = {"fault": "status", "status": 400, "body": {"error": inner}}
    error = await refuse(sdk, openai.BadRequestError, messages=say(plan))
    assert (error.code, error.param) == ("invalid_request", "grammar")


@pytest.mark.parametrize(
    ("plan", "status", "code"),
    [
        ({"fault": "status", "status": 500}, 502, "upstream_error"),
        ({"fault": "status", "status": 401}, 502, "upstream_auth"),
        ({"fault": "status", "status": 302}, 502, "upstream_error"),
        ({"fault": "status", "status": 429}, 503, "upstream_overloaded"),
        ({"fault": "garbage_body"}, 502, "upstream_invalid"),
        ({"fault": "garbage_head"}, 502, "upstream_invalid"),
        ({"fault": "cut_before_headers"}, 502, "upstream_unreachable"),
        ({"fault": "cut_mid_stream"}, 502, "upstream_cut"),
        ({"fault": "stall_mid_stream"}, 504, "upstream_stall"),
        ({"fault": "hang_before_headers"}, 504, "deadline"),
    ],
)
async def test_a_failure_of_the_model_is_a_server_error(
    sdk: openai.AsyncOpenAI, plan: dict[str, Any], status: int, code: str
) -> None:
    error = await refuse(sdk, openai.InternalServerError, messages=say(plan))
    assert (error.status_code, error.code, error.type) == (status, code, "api_error")


async def serve_arm(serving: Serving, arm: str) -> None:
    """Have the alias's calls answered by another arm, at the same upstream."""
    serving.world.point({arm: serving.upstream.port})
    serving.world.publish({arm: FULL_WEIGHT}, max_output_tokens=CEILING)
    await serving.gateway.wait_serving(serving.world.n)


async def test_an_overloaded_model_says_when_to_come_again(
    serving: Serving, sdk: openai.AsyncOpenAI
) -> None:
    for wait, seconds in ((7, "7"), (1e30, "1"), (99_999, "3600")):
        await serve_arm(serving, f"dep_{seconds}")  # what asked for rest is left alone
        plan = {"fault": "status", "status": 429, "retry_after": wait}
        error = await refuse(sdk, openai.InternalServerError, messages=say(plan))
        assert error.response.headers["retry-after"] == seconds
        assert error.response.headers["retry-after-ms"] == seconds + "000"
    await serve_arm(serving, "dep_a")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("cut_mid_stream", "upstream_cut"),
        ("no_done", "upstream_cut"),
        ("stall_mid_stream", "upstream_stall"),
        ("garbage_chunk", "upstream_invalid"),
        ("error_in_stream", "upstream_error"),
    ],
)
async def test_a_stream_that_breaks_raises_with_the_code(
    sdk: openai.AsyncOpenAI, fault: str, code: str
) -> None:
    plan = {"fault": fault, "delay_ms": 20}
    text = ""
    chunks = await sdk.chat.completions.create(model=ALIAS, messages=say(plan), stream=True)
    with pytest.raises(openai.APIError) as caught:
        async for chunk in chunks:
            text += chunk.choices[0].delta.content or ""
    assert caught.value.code == code
    assert text.startswith("tok0 ")


async def test_false_usage_is_not_believed(serving: Serving, sdk: openai.AsyncOpenAI) -> None:
    inner = {"prompt_tokens": 5, "completion_tokens": 2}
    details = {"prompt_tokens_details": {"cached_tokens": 6}}
    choice = {"index": 0, "message": {"role": "assistant", "content": "x" * 400}}
    body = {"id": "1", "model": "m", "choices": [choice], "usage": {**inner, **details}}
    plan = {"fault": "status", "status": 200, "body": body}
    answer = await sdk.chat.completions.create(model=ALIAS, messages=say(plan))
    assert answer.choices[0].message.content == "x" * 400
    [end] = list(serving.world.ends_by_call().values())[-1]
    assert end.is_estimated
    assert end.usage.output >= 100
    assert end.cost_nano > 0


async def test_the_sdk_comes_again_after_a_503(serving: Serving) -> None:
    plan = {"fault": "status", "status": 429, "times": 1}
    before = len(serving.upstream.requests)
    async with make_sdk(serving, max_retries=2) as sdk:
        answer = await sdk.chat.completions.create(model=ALIAS, messages=say(plan))
    assert answer.choices[0].message.content == FIVE
    assert [request.status for request in serving.upstream.requests[before:]] == [429, 200]


async def test_a_model_that_is_down_is_unreachable_and_costs_nothing(
    serving: Serving, sdk: openai.AsyncOpenAI
) -> None:
    try:
        serving.world.point({"dep_a": 1})  # a port on which nothing listens
        error = await refuse_until(sdk, "upstream_unreachable")
        assert (error.status_code, error.type) == (502, "api_error")
        [end] = list(serving.world.ends_by_call().values())[-1]
        assert (end.outcome, end.cost_nano, end.is_estimated) == ("upstream_error", 0, False)
        serving.world.point({})
        error = await refuse_until(sdk, "no_replica")
        assert (error.status_code, error.response.headers["retry-after"]) == (503, "1")
    finally:
        serving.world.point({"dep_a": serving.upstream.port})


async def refuse_until(sdk: openai.AsyncOpenAI, code: str) -> openai.InternalServerError:
    """Call until the gateway has heard of the change; return the error with the code."""
    async with asyncio.timeout(5):
        while True:
            try:
                await sdk.chat.completions.create(model=ALIAS, messages=say("hello"))
            except openai.InternalServerError as error:
                if error.code == code:
                    return error
