"""The programs in examples/, run as a user runs them, against a whole installation."""

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from system import System, add_model, poll, running, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = Path(__file__).parents[2] / "examples"
NOBODY = "http://127.0.0.1:9/v1"
PROGRAMS = (
    "anthropic_sdk.py",
    "hybrid_client.py",
    "model_endpoints.py",
    "model_registry.py",
    "openai_sdk.py",
    "prompts_openai_sdk.py",
)
SEEN_BY_A_STREAM_AND_A_CALL = 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(
    tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path
) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp("examples")
    async with running(folder / "data", PILOTAGE_EGRESS_ALLOW="*, 127.0.0.1:9") as found:
        async with found.control() as control:
            await serve(control, "chat", await add_model(control, tiny_gguf, "tiny", "1.0.0"))
            await add_model(control, tiny_gguf, "tiny", "1.1.0")
            upstream = {"name": "away", "provider": "openai", "base_url": NOBODY}
            await control.post("/upstreams", upstream)
            await control.post("/prices", {"subject": "big", "input": "1", "output": "2"})
            await control.post("/endpoints", {"name": "distant"})
            deployment = {"model": "big", "upstream": "away"}
            await control.finish(await control.post("/endpoints/distant/deployments", deployment))
            await control.post("/prompts", {"name": "greeting"})
            greeting = {"version": "1.0.0", "text": "Greet {{ name }}."}
            await control.post("/prompts/greeting/versions", greeting)
        place = folder / "data" / "gs" / "my-bucket" / "models" / "routing"
        place.mkdir(parents=True)
        shutil.copy(tiny_gguf, place)
        yield found


async def run_example(system: System, name: str, *words: str) -> tuple[int, str, str]:
    """Run a program with the variables that its first lines ask for."""
    url, key = system.server.gateway_url, system.credentials.api_key
    variables = {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": key,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": key,
        "NO_PROXY": "127.0.0.1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        *words,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **system.environment, **variables},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def count_calls(system: System) -> int:
    async with system.control() as control:
        return int((await control.get("/usage"))["items"][0]["calls"])


async def test_the_openai_package_needs_an_address_and_a_key(system: System) -> None:
    before = await count_calls(system)
    code, out, err = await run_example(system, "openai_sdk.py", "chat")
    lines = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)

    assert (code, err) == (0, "")
    assert lines["answer"]
    assert lines["x-request-id"].startswith("call_")
    assert float(lines["x-pilotage-overhead-ms"]) > 0
    assert float(lines["x-pilotage-cost-usd"]) > 0
    prompt, completion = map(int, lines["tokens"].split(" + "))
    assert prompt > 0
    assert 0 < completion <= 64
    async with system.control() as control:
        await poll(
            lambda: control.get("/usage"),
            lambda usage: usage["items"][0]["calls"] == before + SEEN_BY_A_STREAM_AND_A_CALL,
        )


async def test_the_anthropic_package_reaches_a_local_model(system: System) -> None:
    code, out, err = await run_example(system, "anthropic_sdk.py", "chat")

    assert (code, err) == (0, "")
    assert out.startswith("answer: ")
    assert "\nstreamed: " in out
    assert out.splitlines()[-1] in {"ended: max_tokens", "ended: end_turn"}


async def test_the_hybrid_client_goes_on_to_who_answers(system: System) -> None:
    code, out, _ = await run_example(system, "hybrid_client.py", "distant", "chat")

    assert code == 0
    assert out.startswith("answer: ")
    assert "fallbacks: 1" in out
    assert "calls_by_endpoint: {'chat': 1}" in out


async def test_versions_are_registered_and_compared(system: System) -> None:
    code, out, err = await run_example(
        system, "model_registry.py", "gs://my-bucket/models/routing", "my-project"
    )

    assert (code, err) == (0, "")
    assert out.splitlines()[2:] == [
        "recommendation: version_b is 5% more accurate and 25% faster",
        "listed: 1.1.0 development",
        "listed: 1.0.0 development",
    ]


async def test_two_versions_share_an_endpoint_that_python_made(system: System) -> None:
    code, out, err = await run_example(system, "model_endpoints.py", "tiny@1.0.0", "tiny@1.1.0")

    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["answer", "answer"]
    assert lines[2:] == ["tiny@1.0.0: 50 %", "tiny@1.1.0: 50 %", "status: healthy"]


async def test_a_prompt_is_named_on_two_wires(system: System) -> None:
    code, out, err = await run_example(system, "prompts_openai_sdk.py", "chat")
    lines = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)

    assert (code, err) == (0, "")
    assert lines["prompt"] == "greeting@1.0.0"
    assert "in a chat" in lines
    async with system.control() as control:
        await poll(
            lambda: control.get("/usage", by="prompt"),
            lambda usage: (
                ("greeting@1.0.0", SEEN_BY_A_STREAM_AND_A_CALL)
                in [(item["groups"]["prompt"], item["calls"]) for item in usage["items"]]
            ),
        )


@pytest.mark.parametrize("name", PROGRAMS)
async def test_an_example_says_why_it_was_refused(system: System, name: str) -> None:
    code, _, err = await run_example(system, name, "no-such-model")

    assert code == 1
    assert "no-such-model" in err
    assert "Traceback" not in err


async def test_every_program_of_the_folder_is_run(system: System) -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == list(PROGRAMS)
