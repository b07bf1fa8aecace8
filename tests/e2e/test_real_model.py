"""The real model behind the gateway, asked with the OpenAI SDK as its users do."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from gateway_harness import until
from pilotage.gateway.targets import TargetsFile
from system import System, poll

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(300)]

QUESTION = "What is the capital of France? Answer in one sentence."
SETTINGS = {"PILOTAGE_ENGINE_CONTEXT_TOKENS": "1024"}


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real") / "data"


@pytest.fixture
async def system(data_path: Path) -> AsyncIterator[System]:
    """Run ``pilotage up`` as its users do; the first start fetches the model."""
    found = System(data_path, **SETTINGS)
    found.process = await found.run("up")
    log = data_path.parent / "data.up.log"
    await until(lambda: log.exists() and "Ctrl-C stops." in log.read_text(), "pilotage up", 120)
    log.unlink()
    yield found
    assert await found.stop() == 0


def client_of(system: System, max_retries: int = 2) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{system.server.gateway_url}/v1",
        api_key=system.credentials.api_key,
        max_retries=max_retries,
    )


async def test_a_right_short_answer_streamed_and_not_with_the_engines_own_counts(
    system: System,
) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
    async with client_of(system) as client:
        whole = await client.chat.completions.create(
            model="smollm2", messages=messages, temperature=0, max_tokens=32
        )
        assert whole.model == "smollm2"
        assert "Paris" in (whole.choices[0].message.content or "")
        stream = await client.chat.completions.create(
            model="smollm2",
            messages=messages,
            temperature=0,
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
        )
        text, usage = "", None
        async for chunk in stream:
            assert chunk.model == "smollm2"
            if chunk.usage is not None:
                usage = chunk.usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
    assert text == whole.choices[0].message.content
    (replica,) = TargetsFile(system.folder.targets).read().replicas
    direct = httpx.post(
        f"http://{replica.host}:{replica.port}/v1/chat/completions",
        headers={"authorization": f"Bearer {replica.key}"},
        json={"messages": messages, "temperature": 0, "max_tokens": 32},
        trust_env=False,
        timeout=60,
    ).json()["usage"]
    assert whole.usage is not None
    assert usage is not None
    for counts in (whole.usage, usage):
        assert counts.prompt_tokens == direct["prompt_tokens"]
        assert counts.completion_tokens == direct["completion_tokens"]
    async with system.control() as control:
        rows = (
            await poll(
                lambda: control.get("/usage", by="model"),
                lambda reply: any(row["calls"] == 2 for row in reply["items"]),
            )
        )["items"]
    assert rows[0]["output_tokens"] == 2 * direct["completion_tokens"]


async def test_an_engine_without_the_key_says_nothing(system: System) -> None:
    (replica,) = TargetsFile(system.folder.targets).read().replicas
    refused = httpx.post(
        f"http://{replica.host}:{replica.port}/v1/chat/completions", json={}, trust_env=False
    )
    assert refused.status_code == 401


async def test_a_prompt_over_the_context_is_a_bad_request(system: System) -> None:
    async with client_of(system, max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model="smollm2", messages=[{"role": "user", "content": "word " * 3000}]
            )
    assert refused.value.code == "context_length_exceeded"


async def test_an_engine_killed_mid_stream_ends_in_an_error_and_comes_back(system: System) -> None:
    old = system.child("llamacpp.child")
    async with client_of(system, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": "Tell me a long story."}],
            max_tokens=600,
            stream=True,
        )
        with pytest.raises(openai.APIError) as broken:
            async for _ in stream:
                if old.is_running():
                    old.kill()
        assert broken.value.code == "upstream_cut"
    await system.replaced(old, "llamacpp.child")
    await system.wait_served("smollm2")
    async with client_of(system, max_retries=5) as client:
        again = await client.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": QUESTION}], temperature=0
        )
    assert "Paris" in (again.choices[0].message.content or "")


async def test_a_later_start_answers_within_five_seconds(data_path: Path) -> None:
    starts = [await time_start(data_path) for _ in range(3)]
    print(f"first answer {', '.join(f'{took_s:.2f}' for took_s in starts)} s after the command")
    assert min(starts) <= 5.0


async def time_start(data_path: Path) -> float:
    """Return the seconds from the command to the first answer."""
    system = System(data_path, **SETTINGS)
    began = time.monotonic()
    system.process = await system.run("up")
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}

    async def answers() -> bool:
        try:
            url = f"{system.server.gateway_url}/v1/chat/completions"
            key = {"authorization": f"Bearer {system.credentials.api_key}"}
            return (await client.post(url, headers=key, json=body)).status_code == 200
        except (httpx.HTTPError, AssertionError):
            return False

    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            await poll(answers, bool, 60)
        took_s = time.monotonic() - began
    finally:
        assert await system.stop() == 0
    return took_s
