"""``HybridLLMClient`` on a real installation: the same chain, records and bill, without HTTP."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilotage import HybridLLMClient, HybridLLMConfig
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Begun, Ended, Frame, Outcome, decode_frame
from pilotage.kit.spool_reader import read_records
from system import System, add_model, poll, running, serve

SLOT = "python-0"


@pytest.fixture
async def system(tmp_path: Path, tiny_gguf: Path) -> AsyncIterator[System]:
    async with running(tmp_path / "data") as found:
        async with found.control() as control:
            await serve(control, "chat", await add_model(control, tiny_gguf, "tiny", "1.0.0"))
        yield found


def config_of(system: System, *cascade: str, api_key: str | None = None) -> HybridLLMConfig:
    return HybridLLMConfig(data_dir=str(system.folder.path), cascade=list(cascade), api_key=api_key)


def frames_of(system: System) -> list[Frame]:
    records = read_records(system.folder.spool / SLOT, 0, 1_000_000)
    return [decode_frame(payload) for _, payload in records]


async def test_text_is_completed_recorded_and_charged(system: System) -> None:
    async with HybridLLMClient(config_of(system)) as client:
        text = await client.complete_text("hello", system="Be brief.", temperature=0, max_tokens=8)
        metrics = client.get_metrics()
    assert text
    assert metrics["calls_by_endpoint"] == {"chat": 1}
    assert (metrics["calls"], metrics["failures"], metrics["fallbacks"]) == (1, 0, 0)
    assert metrics["output_tokens"] == 8
    begun, ended = frames_of(system)
    assert isinstance(begun, Begun)
    assert isinstance(ended, Ended)
    assert (ended.call_id, ended.outcome) == (begun.call_id, Outcome.OK)
    assert ended.cost_nano == metrics["input_tokens"] * 500 + 8 * 1500
    async with system.control() as control:
        usage = await poll(
            lambda: control.get("/usage", by="tenant"), lambda reply: bool(reply["items"])
        )
    assert (usage["items"][0]["calls"], usage["items"][0]["cost_nano"]) == (1, ended.cost_nano)


async def test_the_cascade_goes_on_where_an_endpoint_cannot_answer(system: System) -> None:
    async with system.control() as control:
        await control.post("/endpoints", {"name": "empty"})
    async with HybridLLMClient(config_of(system, "empty", "chat")) as client:
        assert await client.complete_text("hello", max_tokens=4)
        assert client.get_metrics()["fallbacks"] == 1
    async with HybridLLMClient(config_of(system, "empty")) as client:
        with pytest.raises(PilotageError) as caught:
            await client.complete_text("hello")
        assert caught.value.code == "model_not_found"
        assert client.get_metrics()["failures"] == 1


async def test_a_fault_of_the_caller_stops_the_cascade(system: System) -> None:
    client = HybridLLMClient(config_of(system, "chat", "chat"))
    with pytest.raises(PilotageError) as caught:
        await client.complete_text("word " * 5000, max_tokens=4)
    assert caught.value.code == "context_length_exceeded"
    assert client.get_metrics()["fallbacks"] == 0
    await client.aclose()
    wrong = HybridLLMClient(config_of(system, "chat", api_key="plt_live_wrong"))
    with pytest.raises(PilotageError) as caught:
        await wrong.complete_text("hello")
    assert caught.value.code == "invalid_api_key"
    await wrong.aclose()


async def test_a_cancelled_call_is_on_record_and_the_client_goes_on(system: System) -> None:
    async with HybridLLMClient(config_of(system, "chat")) as client:
        await client.complete_text("hello", max_tokens=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.complete_text("hello " * 50, max_tokens=1500)
        assert await client.complete_text("hello", max_tokens=2)
    ends = [frame for frame in frames_of(system) if isinstance(frame, Ended)]
    assert [end.outcome for end in ends] == [Outcome.OK, Outcome.CANCELLED, Outcome.OK]


async def test_two_clients_have_spools_of_their_own(system: System) -> None:
    async with (
        HybridLLMClient(config_of(system)) as first,
        HybridLLMClient(config_of(system)) as second,
    ):
        answers = await asyncio.gather(
            *(client.complete_text("hello", max_tokens=2) for client in (first, second) * 10)
        )
    assert len(answers) == 20
    for slot in ("python-0", "python-1"):
        frames = [decode_frame(p) for _, p in read_records(system.folder.spool / slot, 0, 1000)]
        assert len(frames) == 20


async def test_without_a_server_the_client_runs_one_and_ends_it(
    tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path / "data") as system, system.control() as control:
        await serve(control, "chat", await add_model(control, tiny_gguf, "tiny", "1.0.0"))
    for name, value in system.environment.items():
        monkeypatch.setenv(name, value)
    client = HybridLLMClient()
    text = await client.complete_text("hello", max_tokens=4)
    assert text
    assert system.folder.find_server() is not None
    await client.aclose()
    assert system.folder.find_server() is None
    assert await client.complete_text("hello", max_tokens=4)  # it opens again
    await client.aclose()
