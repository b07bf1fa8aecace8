"""The child process that serves one GGUF file.

Run as ``python -P -m pilotage.endpoints.engines.llamacpp.child``: reads a :class:`ChildConfig` line
from stdin, loads the model, writes one event line to stdout and serves until it is killed.

What llama.cpp's server does with its key (``CommonParams.api_keys``): ``/health`` and
``/v1/health`` answer without one, every other route it has answers 401.

What it does with adapters: all are loaded with scale 0, so a call has those that it names and no
others. ``lora_init_without_apply`` would leave them at 1, and calls that name none would have all.

What it says: until the model is loaded its log goes to memory and gives the reason of a failure.
From then on stdout and stderr are the null device. No verbosity would do: below "error" the
server quotes malformed bodies and tool definitions in warnings, and the grammar parser prints a
grammar it rejects to stderr at any level, so prompts would reach the log.
"""

import http.client
import importlib
import json
import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, NoReturn, Protocol
from urllib.parse import urlsplit

import msgspec

from pilotage.endpoints.engines.llamacpp.config import ChildConfig
from pilotage.endpoints.launch import Failed, Ready
from pilotage.kit.lifeline import die_with_parent, leave_no_core_file

_FIRST_CONTEXT_TOKENS = 4096
_NICENESS = 19
_LOG_ERRORS = 1
_LOG_LOOKS = 50
_LOG_PAUSE_S = 0.02
_LOG_LINE = re.compile(r"^[\d.]+ E (?P<text>.+)\n", re.MULTILINE)


class _Server(Protocol):
    """A running server: it listens as long as the object lives."""

    @property
    def listening_address(self) -> str: ...


def main() -> NoReturn:
    """Serve until killed; exit 1 after a ``failed`` event if the model cannot be served."""
    config = ChildConfig.decode(sys.stdin.buffer.readline())
    die_with_parent(config.parent_pid)
    leave_no_core_file()
    # A group-wide SIGTERM or Ctrl-C must not cut answers that the gateway is still draining: the
    # parent kills the engine when the last call has ended.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "wb") as events:
        log = _capture_output()
        try:
            server, ready = _load(config)
        except (ImportError, RuntimeError, OSError) as failed:
            _send(events, Failed(reason=_explain(failed, log)))
            sys.exit(1)
        _silence_output(log)
        _give_way()
        _send(events, ready)
    _serve_for_ever(server)


def _load(config: ChildConfig) -> tuple[_Server, Ready]:
    """Load the model with the wanted context, or the most that it was trained for.

    The training context is known only once a model is loaded, and memory for a context is taken
    at once: so a large one is asked for in a second start, when it is known to make sense.
    """
    engine = importlib.import_module("xllamacpp")  # here, in the child process, and nowhere else
    tokens = min(config.context_tokens, _FIRST_CONTEXT_TOKENS)
    server = engine.Server(_make_parameters(engine, config, tokens))
    trained_tokens, ready = _inspect(server, config)
    wanted = min(config.context_tokens, trained_tokens)
    if wanted > tokens:
        del server
        server = engine.Server(_make_parameters(engine, config, wanted))
        _, ready = _inspect(server, config)
    return server, ready


def _make_parameters(engine: ModuleType, config: ChildConfig, context_tokens: int) -> object:
    parameters = engine.CommonParams()
    parameters.model.path = config.artifact_path
    parameters.model_alias = {config.alias}  # replies would carry the file's path
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [config.key]
    parameters.n_parallel = config.slots
    parameters.n_ctx = context_tokens * config.slots  # llama.cpp divides it among the slots
    parameters.cpuparams.n_threads = config.threads
    parameters.cpuparams_batch.n_threads = config.threads
    # fewer HTTP threads than open connections made new connections break now and then
    parameters.n_threads_http = max(16, 2 * config.slots + 2)
    parameters.warmup = True
    parameters.fit_params = False  # do what is asked or fail, never shrink in silence
    parameters.cache_ram_mib = 0  # by default up to 8 GiB of old prompts are kept in memory
    parameters.cache_idle_slots = False
    parameters.endpoint_slots = False  # it shows the prompts of running calls
    parameters.endpoint_props = False
    parameters.ui = False
    parameters.sse_ping_interval = -1  # a comment line would hide a stalled model from the gateway
    parameters.verbosity = _LOG_ERRORS
    adapters = [engine.CommonAdapterLoraInfo(path, 0.0) for path in config.adapter_paths]
    parameters.lora_adapters = adapters
    return parameters


def _inspect(server: _Server, config: ChildConfig) -> tuple[int, Ready]:
    """Ask the server what it serves; also the proof that it answers."""
    address = urlsplit(server.listening_address)
    host, port = address.hostname or "127.0.0.1", address.port or 0
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {config.key}"})
        reply = connection.getresponse()
        body = reply.read()
    finally:
        connection.close()
    if reply.status != http.client.OK:
        raise RuntimeError(f"The engine answered its own first request with {reply.status}.")
    model = json.loads(body)["data"][0]["meta"]
    return int(model["n_ctx_train"]), Ready(
        host=host, port=port, context_tokens=int(model["n_ctx"])
    )


def _capture_output() -> int:
    log = os.memfd_create("engine-log")
    os.dup2(log, 1)
    os.dup2(log, 2)
    return log


def _silence_output(log: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    os.close(log)


def _give_way() -> None:
    """Let the gateway's short turns go before those of any thread, but not before a load.

    A call may wait for a model that wakes up, while others keep all cores busy.
    """
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it was of the load
            os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICENESS)


def _explain(failed: Exception, log: int) -> str:
    """Return the first error of llama.cpp's log, which names the cause; the exception does not."""
    if isinstance(failed, ImportError):
        return (
            f"The engine llamacpp cannot be loaded ({failed}). "
            'Run: pip install "pilotage[local]". '
            "It needs the system libraries libgomp1 and libstdc++6."
        )
    found = _find_error(log)
    return f"llama.cpp: {found or failed}"


def _find_error(log: int) -> str | None:
    """Wait for the first error line: llama.cpp writes its log from a thread of its own."""
    for _ in range(_LOG_LOOKS):
        found = _LOG_LINE.search(os.pread(log, 1 << 20, 0).decode(errors="replace"))
        if found:
            return found["text"].strip()
        time.sleep(_LOG_PAUSE_S)
    return None


def _send(events: BinaryIO, event: Ready | Failed) -> None:
    events.write(msgspec.json.encode(event) + b"\n")
    events.flush()


def _serve_for_ever(_server: _Server) -> NoReturn:
    """Hold on to the server until the process is killed."""
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
