"""The gateway through langchain-openai, with nothing but its address and a key.

The connections are given in only because the package never closes those that it makes itself.
"""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import openai
import pydantic
import pytest
import pytest_asyncio
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

from gateway_cases import Serving
from gateway_harness import ALIAS
from wire_cases import CLAUDE, MODELS, last_body, plan, serve_wires

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIVE = "tok0 tok1 tok2 tok3 tok4 "


class Point(pydantic.BaseModel):
    """Where it is."""

    x: int


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


class Place(NamedTuple):
    """A gateway, and what every client of it is given."""

    serving: Serving
    given: dict[str, Any]

    def open_chat(self, model: str, **more: Any) -> ChatOpenAI:  # noqa: ANN401
        """Return a chat client."""
        return ChatOpenAI(model=model, **self.given, **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with (
        serve_wires(tmp_path_factory.mktemp("langchain")) as serving,
        openai.DefaultAsyncHttpxClient(trust_env=False) as connections,
    ):
        given = {
            "base_url": f"{serving.gateway.url}/v1",
            "api_key": serving.world.secret,
            "max_retries": 0,
            "http_async_client": connections,
        }
        yield Place(serving, given)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("uses_responses", [False, True])
async def test_an_answer(place: Place, model: str, uses_responses: bool) -> None:
    chat = place.open_chat(model, use_responses_api=uses_responses, temperature=0.5)
    answer = await chat.ainvoke(plan(prompt_tokens=9, cached=4))
    assert answer.text == FIVE
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == 9
    assert answer.usage_metadata["input_token_details"]["cache_read"] == 4
    assert answer.response_metadata["model_name"] == model


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("uses_responses", [False, True])
async def test_a_stream(place: Place, model: str, uses_responses: bool) -> None:
    chat = place.open_chat(model, use_responses_api=uses_responses, stream_usage=True)
    whole: Any = None
    async for chunk in chat.astream(plan(text="Let |me |see.")):
        assert isinstance(chunk, AIMessageChunk)
        whole = chunk if whole is None else whole + chunk
    assert whole.text == "Let me see."
    assert whole.usage_metadata["total_tokens"] == 14


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("uses_responses", [False, True])
async def test_tools(place: Place, model: str, uses_responses: bool) -> None:
    chat = place.open_chat(model, use_responses_api=uses_responses).bind_tools([weather])
    first = HumanMessage(plan(calls=[{"name": "weather", "arguments": {"city": "Bern"}}]))
    asked = await chat.ainvoke([first])
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Bern"})
    result = await weather.ainvoke(call)
    assert isinstance(result, ToolMessage)
    told = await chat.ainvoke([first, asked, result, HumanMessage("And now?")])
    assert told.text == FIVE
    said = last_body(place.serving)["messages"]
    assert "sunny in Bern" in str(said[2])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output(place: Place, model: str, method: Any) -> None:  # noqa: ANN401
    chat = place.open_chat(model).with_structured_output(Point, method=method)
    if method == "json_schema":
        wish = plan(text='{"x": 3}')
    else:
        wish = plan(calls=[{"name": "Point", "arguments": {"x": 3}}])
    assert await chat.ainvoke(wish) == Point(x=3)
    sent = last_body(place.serving)
    if model == CLAUDE:
        assert ("tools" in sent) == (method == "function_calling")


async def test_a_text_goes_on(place: Place) -> None:
    model = OpenAI(model=ALIAS, **place.given)
    assert await model.ainvoke("Once") == FIVE
    assert "".join([part async for part in model.astream("Once")]) == FIVE


async def test_embeddings(place: Place) -> None:
    model = OpenAIEmbeddings(model=ALIAS, check_embedding_ctx_length=False, **place.given)
    assert await model.aembed_documents(["a", "b"]) == [[0.0] * 4, [1.0] * 4]
