"""A real engine child process, started the way the program starts it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from pilotage.endpoints.launch import Engine, Launch, Ready, ReplicaSpec, read_event

KEY = "test-key-0123456789abcdef"
ALIAS = "tiny"


class RunningEngine(NamedTuple):
    """A started engine and a client that holds its key."""

    process: subprocess.Popen[bytes]
    launch: Launch
    ready: Ready
    client: httpx.Client


def make_spec(artifact: Path, context_tokens: int = 512, slots: int = 2) -> ReplicaSpec:
    """Return a replica of a file with one thread."""
    return ReplicaSpec(
        replica_id="replica-1",
        artifact_path=str(artifact),
        alias=ALIAS,
        threads=1,
        slots=slots,
        context_tokens=context_tokens,
    )


def spawn(launch: Launch) -> subprocess.Popen[bytes]:
    """Start the command and hand it its configuration; stdin stays open."""
    process = subprocess.Popen(
        launch.argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **launch.environment},
    )
    assert process.stdin is not None
    process.stdin.write(launch.config)
    process.stdin.flush()
    return process


def read_line(process: subprocess.Popen[bytes]) -> bytes:
    """Return the next line of stdout, or nothing when the process has ended."""
    assert process.stdout is not None
    return process.stdout.readline()


@contextmanager
def run_engine(engine: Engine, spec: ReplicaSpec) -> Iterator[RunningEngine]:
    """Start an engine, wait until it is ready, kill it at the end."""
    launch = engine.prepare(spec, KEY)
    with spawn(launch) as process:
        try:
            ready = read_event(read_line(process))
            assert isinstance(ready, Ready), ready
            with httpx.Client(
                base_url=f"http://{ready.host}:{ready.port}",
                headers={"authorization": f"Bearer {KEY}"},
                # llama.cpp closes connections after streams without saying so
                limits=httpx.Limits(max_keepalive_connections=0),
                timeout=60,
            ) as client:
                yield RunningEngine(process, launch, ready, client)
        finally:
            process.kill()
