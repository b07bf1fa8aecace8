"""The llama.cpp engine as a real child process, over loopback, with the tiny model."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from engine_process import ALIAS, KEY, RunningEngine, make_spec, read_line, run_engine, spawn
from pilotage.endpoints.engines.llamacpp import ENGINE
from pilotage.endpoints.launch import Failed, Ready, read_event

MARKER = "MARKER-7d1c2f"
CHAT = "/v1/chat/completions"
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def engine(tiny_gguf: Path) -> Iterator[RunningEngine]:
    with run_engine(ENGINE, make_spec(tiny_gguf)) as running:
        yield running


def ask(text: str = "hello world", **more: object) -> dict[str, object]:
    body = {"model": "x", "messages": [{"role": "user", "content": text}], "temperature": 0}
    return {**body, "max_tokens": 8, **more}


def read_stream(reply: httpx.Response) -> list[Any]:
    events = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def test_the_engine_can_run_here() -> None:
    assert ENGINE.check() is None


def test_the_key_is_in_no_place_that_others_can_read(engine: RunningEngine) -> None:
    child = psutil.Process(engine.process.pid)
    assert KEY.encode() in engine.launch.config
    assert KEY not in " ".join(child.cmdline())
    assert KEY not in " ".join(child.environ().values())


def test_the_child_is_nice_passive_and_leaves_no_core_file(engine: RunningEngine) -> None:
    child = psutil.Process(engine.process.pid)
    assert {os.getpriority(os.PRIO_PROCESS, it.id) for it in child.threads()} == {19}
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert child.environ()["OMP_WAIT_POLICY"] == "passive"
    assert child.environ()["GOMP_SPINCOUNT"] == "0"


def test_it_listens_on_loopback_alone(engine: RunningEngine) -> None:
    connections = psutil.Process(engine.process.pid).net_connections("inet")
    listening = [found.laddr for found in connections if found.status == psutil.CONN_LISTEN]
    assert listening == [("127.0.0.1", engine.ready.port)]


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
def test_only_the_key_opens_it(engine: RunningEngine, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=engine.client.base_url, headers=headers) as stranger:
        refused = stranger.post(CHAT, json=ask())
        models = stranger.get("/v1/models")
        health = stranger.get("/health")
    assert refused.status_code == models.status_code == 401
    assert refused.json()["error"] == {
        "message": "Invalid API Key",
        "type": "authentication_error",
        "code": 401,
    }
    assert (health.status_code, health.json()) == (200, {"status": "ok"})


def test_a_chat_is_answered_under_the_alias_with_its_usage(engine: RunningEngine) -> None:
    reply = engine.client.post(CHAT, json=ask(max_tokens=5)).json()
    assert reply["model"] == ALIAS
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["choices"][0]["message"]["content"].isascii()
    usage = reply["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["prompt_tokens"] + 5 == usage["total_tokens"]


def test_a_stream_says_the_same_and_ends_with_its_usage(engine: RunningEngine) -> None:
    whole = engine.client.post(CHAT, json=ask()).json()
    streamed = ask(stream=True, stream_options={"include_usage": True})
    with engine.client.stream("POST", CHAT, json=streamed) as reply:
        chunks = read_stream(reply)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == whole["choices"][0]["message"]["content"]
    assert {chunk["model"] for chunk in chunks} == {ALIAS}
    usage = chunks[-1]["usage"]
    assert usage["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert usage["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_it_closes_the_connection_after_a_stream_without_saying_so(engine: RunningEngine) -> None:
    connection = http.client.HTTPConnection(
        engine.ready.host, engine.ready.port, timeout=DEADLINE_S
    )
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    connection.request("POST", CHAT, json.dumps(ask(stream=True)), headers)
    stream = connection.sock
    reply = connection.getresponse()
    assert reply.read().endswith(b"data: [DONE]\n\n")
    assert reply.getheader("connection") is None
    assert stream.recv(1) == b""
    connection.close()


def test_a_stop_text_ends_the_answer(engine: RunningEngine) -> None:
    text = engine.client.post(CHAT, json=ask()).json()["choices"][0]["message"]["content"]
    stop = text[len(text) // 2 :]
    choice = engine.client.post(CHAT, json=ask(stop=[stop])).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == text.removesuffix(stop)


def test_more_calls_than_slots_are_all_answered(engine: RunningEngine) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: engine.client.post(CHAT, json=ask()), range(24)))
    texts = {reply.json()["choices"][0]["message"]["content"] for reply in replies}
    assert [reply.status_code for reply in replies] == [200] * 24
    assert len(texts) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_an_overlong_prompt_is_refused_with_both_numbers(
    engine: RunningEngine, *, stream: bool
) -> None:
    refused = engine.client.post(CHAT, json=ask("word " * 2000, stream=stream))
    error = refused.json()["error"]
    assert refused.status_code == error["code"] == 400
    assert error["type"] == "exceed_context_size_error"
    assert error["n_ctx"] == engine.ready.context_tokens == 512
    assert error["n_prompt_tokens"] > 2000
    assert "exceeds the available context size (512 tokens)" in error["message"]


def test_malformed_json_is_refused(engine: RunningEngine) -> None:
    refused = engine.client.post(CHAT, content=b'{"messages": [')
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"


def test_sigterm_and_ctrl_c_do_not_end_it(engine: RunningEngine) -> None:
    engine.process.send_signal(signal.SIGTERM)
    engine.process.send_signal(signal.SIGINT)
    assert engine.client.post(CHAT, json=ask()).status_code == 200
    assert engine.process.poll() is None


def test_a_context_is_capped_by_what_the_model_was_trained_for(tiny_gguf: Path) -> None:
    with run_engine(ENGINE, make_spec(tiny_gguf, context_tokens=100_000)) as running:
        assert running.ready.context_tokens == 2048


def test_prompts_never_reach_its_output(tiny_gguf: Path) -> None:
    message = {"role": "user", "content": MARKER}
    bodies: list[dict[str, object]] = [
        ask(MARKER),
        ask(MARKER * 2000),
        ask(MARKER, stream=True),
        {"messages": MARKER},
        {"messages": [{"role": MARKER, "content": {"a": MARKER}}]},
        ask(MARKER, temperature=MARKER),
        ask(MARKER, grammar=f"{MARKER} ::= ??"),
        ask(MARKER, tools=[{"type": MARKER}]),
        ask(MARKER, response_format={"type": "json_object", "schema": {"type": MARKER}}),
    ]
    raw = [json.dumps({"messages": [message]})[:-2].encode(), MARKER.encode() + b"\xff"]
    raw.append(b'{"messages": [{"role": "user", "content": "' + MARKER.encode() + b"\xff")
    with run_engine(ENGINE, make_spec(tiny_gguf)) as running:
        statuses = [running.client.post(CHAT, json=body).status_code for body in bodies]
        statuses += [running.client.post(CHAT, content=body).status_code for body in raw]
        running.client.get(f"/{MARKER}")
        running.process.kill()
        stdout, stderr = running.process.communicate()
    assert statuses[0] == statuses[2] == 200
    assert all(status >= 400 for status in statuses[3:])
    assert (stdout, stderr) == (b"", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), (b"GGUF\x09\x00\x00\x00", "llama.cpp: gguf_init")],
)
def test_a_file_that_cannot_be_served_is_told_with_the_reason(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    with spawn(ENGINE.prepare(make_spec(path), KEY)) as process:
        event = read_event(read_line(process))
        assert process.wait(DEADLINE_S) == 1
    assert isinstance(event, Failed)
    assert reason in event.reason


def test_it_does_not_start_for_another_parent(tiny_gguf: Path) -> None:
    launch = ENGINE.prepare(make_spec(tiny_gguf), KEY)
    starter = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    child = subprocess.run(
        [sys.executable, "-c", starter, *launch.argv],
        input=launch.config,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert child.returncode == 1
    assert child.stdout == b""
    assert child.stderr == b"the parent process is gone\n"


PARENT = """
import os, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from engine_process import KEY, make_spec, read_line, spawn
from pilotage.endpoints.engines.llamacpp import ENGINE
child = spawn(ENGINE.prepare(make_spec(Path(sys.argv[1])), KEY))
print(child.pid, read_line(child).decode(), flush=True)
sys.stdin.read()
"""


def test_it_dies_with_a_parent_that_is_killed(tiny_gguf: Path) -> None:
    support = Path(make_spec.__code__.co_filename).parent
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tiny_gguf), str(support)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        pid, event = read_line(parent).split(b" ", 1)
        assert isinstance(read_event(event), Ready)
        assert is_running(int(pid))
        parent.kill()
    deadline = time.monotonic() + DEADLINE_S
    while is_running(int(pid)):
        assert time.monotonic() < deadline
        os.sched_yield()


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
