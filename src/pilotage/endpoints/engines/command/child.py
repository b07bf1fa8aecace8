"""The child process that runs a command and looks after it.

Run as ``python -P -m pilotage.endpoints.engines.command.child``: reads a :class:`ChildConfig` line
from stdin, starts the command on a free port of 127.0.0.1, waits until it answers, writes one event
line to stdout and ends when the command does.

The command and whatever it starts are one process group with this process. When the parent is
killed, the kernel says so by SIGHUP and the whole group is killed: servers on GPUs are many
processes, and one that outlives its parent keeps the memory of its card.

What the command says goes to memory until it is ready, for the reason of a failure, and nowhere
from then on: servers log what they are asked.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, NoReturn, Self

import msgspec

from pilotage.endpoints.engines.command.config import ChildConfig
from pilotage.endpoints.launch import Failed, Ready
from pilotage.kit.config import foreign_environment
from pilotage.kit.files import write_private
from pilotage.kit.lifeline import die_with_parent, leave_no_core_file

HOST = "127.0.0.1"
_LOOK_S = 0.05
_ANSWER_S = 10.0
_KEPT_BYTES = 1 << 14
_LONGEST_REASON = 400
_LISTENING = "0A"  # of /proc/net/tcp, see proc(5)
_REFUSALS = (http.client.UNAUTHORIZED, http.client.FORBIDDEN)


def main() -> NoReturn:
    """Run the command until it ends; exit 1 after a ``failed`` event if it does not serve."""
    config = ChildConfig.decode(sys.stdin.buffer.readline())
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    signal.signal(signal.SIGHUP, _end_all)
    die_with_parent(config.parent_pid, by=signal.SIGHUP)
    leave_no_core_file()
    # calls drain before the parent kills the group: a group-wide SIGTERM must not cut them off
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "wb") as events:
        try:
            with _start(config) as command:
                code = _look_after(command, config, events)
        except OSError as failed:
            _send(events, Failed(reason=f"{config.argv[0]} cannot be run: {failed.strerror}"))
            code = 1
        finally:
            Path(config.config_path).unlink(missing_ok=True)
    sys.exit(code)


class _Command:
    """The command as it runs: its process and port, the end of what it has said."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self._said = b""
        self._keeps = True
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def forget(self) -> None:
        """Keep nothing of what it says from now on."""
        self._keeps, self._said = False, b""

    def explain(self) -> str:
        """Return the last line that it has said, or how it ended."""
        self._reader.join(_ANSWER_S)
        lines = self._said.decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last[:_LONGEST_REASON] or f"it ended with code {self.process.returncode}"

    def _listen(self) -> None:
        output = self.process.stdout
        while output is not None and (part := os.read(output.fileno(), _KEPT_BYTES)):
            if self._keeps:
                self._said = (self._said + part)[-_KEPT_BYTES:]


def _start(config: ChildConfig) -> _Command:
    port = _find_port()
    words = {
        "model": config.model,
        "name": config.name,
        "host": HOST,
        "port": str(port),
        "context_tokens": str(config.context_tokens),
        "slots": str(config.slots),
        "threads": str(config.threads),
        "key": config.key,
        "config": config.config_path,
    }
    if config.config_text:
        text = _fill(config.config_text, words)
        write_private(Path(config.config_path), text.encode(), is_durable=False)
    parent = os.getpid()
    process = subprocess.Popen(
        [_fill(word, words) for word in config.argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=foreign_environment(
            **{name: _fill(text, words) for name, text in config.environment.items()}
        ),
        # there is no other thread yet that could hold a lock
        preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509
    )
    return _Command(process, port)


def _look_after(command: _Command, config: ChildConfig, events: BinaryIO) -> int:
    """Say when the command is ready, and return what to exit with when it has ended."""
    while not _is_ready(command, config):
        if command.process.poll() is not None:
            _send(events, Failed(reason=f"{config.argv[0]}: {command.explain()}"))
            return 1
        time.sleep(_LOOK_S)
    status, _ = _get(command, "/v1/models", "nobody-knows-this-key")
    if status not in _REFUSALS:
        _send(events, Failed(reason=f"{config.argv[0]} answers {status} to whoever has no key"))
        return 1
    command.forget()
    Path(config.config_path).unlink(missing_ok=True)
    context = _read_context(_get(command, "/v1/models", config.key)[1], config.context_tokens)
    _send(events, Ready(host=HOST, port=command.port, context_tokens=context))
    return command.process.wait()


def _is_ready(command: _Command, config: ChildConfig) -> bool:
    if not _is_own(command.port):
        return False
    try:
        return _get(command, config.ready_path, config.key)[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def _is_own(port: int) -> bool:
    """Say whether this user listens at a port: only then may it be told a key, and prompts."""
    wanted = f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, address, _, state, _, _, _, uid, *_ = line.split()
        if (address, state) == (wanted, _LISTENING):
            return int(uid) == os.getuid()
    return False


def _get(command: _Command, path: str, key: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, command.port, timeout=_ANSWER_S)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {key}"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def _read_context(models: bytes, asked: int) -> int:
    """Return the context of a call that a server states, in vLLM's, SGLang's or llama.cpp's way."""
    try:
        model = json.loads(models)["data"][0]
        meta = model.get("meta") or {}
        return int(model.get("max_model_len") or meta.get("n_ctx") or asked)
    except (ValueError, LookupError, TypeError, AttributeError):
        return asked


def _find_port() -> int:
    """Return a port that is free now; if another takes it meanwhile, the next start finds one."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port: int = taken.getsockname()[1]
        return port


def _fill(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", value)
    return text


def _send(events: BinaryIO, event: Ready | Failed) -> None:
    events.write(msgspec.json.encode(event) + b"\n")
    events.flush()


def _end_all(*_: object) -> NoReturn:
    os.killpg(0, signal.SIGKILL)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
