"""Adapters through the gateway: one process, the adapter of each call its deployment's."""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from msgspec.structs import replace

import openai_server
from engine_process import make_spec, run_engine
from pilotage.endpoints.engines.llamacpp import ENGINE
from pilotage.endpoints.launch import AdapterFile
from pilotage.gateway.providers.adapters import FIELD, choose_adapter
from pilotage.kit.blobs_file import read_file
from pilotage.sdk.control import ControlClient
from system import System, add_model, ask, poll, running, serve
from tiny_adapter import make_adapter

CHAT = "/v1/chat/completions"
MODULE = "pilotage.endpoints.engines.llamacpp.child"
BASE, FIRST, SECOND = "base", "first", "second"
PROMPTS = ("hello world", "the number three", "hello again")
ARMS = (BASE, FIRST, SECOND)
PROGRAM = Path(openai_server.__file__)
ENGINES = f"{{own: {{preset: vllm, program: ['{sys.executable}', '{PROGRAM}']}}}}"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Files(NamedTuple):
    """The model, its adapters by arm, and what processes with one of them alone answer."""

    base: Path
    adapters: Mapping[str, Path]
    alone: Mapping[tuple[str, str], str]


@pytest.fixture(scope="module")
def files(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("adapters")
    adapters = {
        arm: make_adapter(tiny_gguf, folder / f"{arm}.gguf", seed)
        for seed, arm in enumerate((FIRST, SECOND))
    }
    alone: dict[tuple[str, str], str] = {}
    for arm in ARMS:
        own = {arm: adapters[arm]} if arm in adapters else {}
        alone |= dict(ask_alone(tiny_gguf, arm, own))
    return Files(tiny_gguf, adapters, alone)


def ask_alone(
    base: Path, arm: str, adapters: Mapping[str, Path]
) -> Iterator[tuple[tuple[str, str], str]]:
    given = tuple(AdapterFile(name=name, path=str(path)) for name, path in adapters.items())
    with run_engine(ENGINE, replace(make_spec(base, slots=4), adapters=given)) as engine:
        for prompt in PROMPTS:
            member = choose_adapter(tuple(adapters), arm if given else "")
            more = {} if member is None else {FIELD: member}
            reply = engine.client.post(CHAT, json=ask(arm, prompt, temperature=0, **more))
            yield (arm, prompt), read(reply)


def read(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


@pytest.fixture
async def system(tmp_path: Path, files: Files) -> AsyncIterator[System]:
    """Serve the base and each adapter on an endpoint of its own name."""
    settings = tmp_path / "pilotage.yaml"
    settings.write_text(f"engines: {ENGINES}\n")
    async with running(tmp_path / "data", PILOTAGE_CONFIG=str(settings)) as system:
        async with system.control() as control:
            await add_model(control, files.base, "tiny", "1.0.0")
            for number, arm in enumerate((FIRST, SECOND), start=1):
                await add_adapter(control, files.adapters[arm], f"1.{number}.0")
            for number, arm in enumerate(ARMS):
                await serve(control, arm, f"tiny@1.{number}.0")
        for arm in ARMS:
            await system.wait_served(arm)
        await wait_one_engine(system)
        yield system


async def add_adapter(control: ControlClient, file: Path, version: str) -> None:
    artifact = await control.upload("/artifacts", read_file(file))
    body = {"version": version, "artifact_sha256": artifact["sha256"], "parent": "tiny@1.0.0"}
    await control.post("/models/tiny/versions", body)


async def wait_one_engine(system: System) -> None:
    async def count() -> int:
        return len(system.children(MODULE))

    await poll(count, lambda found: found == 1)


async def test_adapters_are_served_come_and_go_and_so_do_commands(
    system: System, files: Files
) -> None:
    await check_eight_calls_at_a_time(system, files)
    await check_no_call_fails_while_the_base_goes(system, files)
    await check_a_command_of_the_settings(system, files)


async def check_eight_calls_at_a_time(system: System, files: Files) -> None:
    asked = [*itertools.product(ARMS, PROMPTS)] * 4
    eight = asyncio.Semaphore(8)
    async with system.http() as client:

        async def call(arm: str, prompt: str) -> str:
            async with eight:
                return read(await client.post(CHAT, json=ask(arm, prompt, temperature=0)))

        answers = await asyncio.gather(*(call(*item) for item in asked))
        assert answers == [files.alone[item] for item in asked]

        # whoever asks for an adapter by its number gets what the endpoint serves
        sly = {**ask(BASE, PROMPTS[0], temperature=0), FIELD: [{"id": 1, "scale": 1.0}]}
        assert read(await client.post(CHAT, json=sly)) == files.alone[BASE, PROMPTS[0]]
    assert len(system.children(MODULE)) == 1


async def check_no_call_fails_while_the_base_goes(system: System, files: Files) -> None:
    former = system.child(MODULE)
    is_over = asyncio.Event()
    async with system.http() as client, system.control() as control:

        async def keep_calling() -> int:
            for count in itertools.count():
                text = read(await client.post(CHAT, json=ask(FIRST, PROMPTS[0], temperature=0)))
                assert text == files.alone[FIRST, PROMPTS[0]]
                if is_over.is_set():
                    return count
            raise AssertionError

        async with asyncio.TaskGroup() as callers:
            calls = [callers.create_task(keep_calling()) for _ in range(2)]
            await control.delete(f"/endpoints/{BASE}", force=True)
            await system.replaced(former, MODULE)
            await wait_one_engine(system)
            is_over.set()
    assert all(task.result() > 0 for task in calls)


async def check_a_command_of_the_settings(system: System, files: Files) -> None:
    async with system.control() as control, system.http() as client:
        await control.post("/endpoints", {"name": "other"})
        body = {"model": "tiny@1.0.0", "engine": "own"}
        await control.finish(await control.post("/endpoints/other/deployments", body))
        (shown,) = (await control.get("/endpoints/other"))["deployments"]
        assert (shown["engine"], shown["state"]) == ("own", "ready")

        async def answer() -> httpx.Response:
            return await client.post(CHAT, json=ask("other", PROMPTS[0], temperature=0))

        assert (
            read(await poll(answer, lambda reply: reply.is_success))
            == (files.alone[BASE, PROMPTS[0]])
        )
        (command,) = system.children(PROGRAM.name)
        command.kill()
        assert (
            read(await poll(answer, lambda reply: reply.is_success))
            == (files.alone[BASE, PROMPTS[0]])
        )
