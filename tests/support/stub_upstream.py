"""The stub upstream of the benches: a C program, so that it costs next to nothing."""

import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway_harness import PATIENCE_S, until


@asynccontextmanager
async def run_stub(folder: Path, port: int) -> AsyncIterator[None]:
    """Compile and run the stub upstream on core 0."""
    program = compile_c("stub.c", folder / "stub")
    stub = subprocess.Popen(["taskset", "-c", "0", str(program), str(port), "100", "10000"])
    try:
        await wait_port(port)
        yield
    finally:
        stub.kill()
        stub.wait()


def compile_c(source: str, program: Path) -> Path:
    """Compile a C file that stands beside this module."""
    path = Path(__file__).with_name(source)
    subprocess.run(["cc", "-O2", "-o", str(program), str(path)], check=True)
    return program


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def wait_port(port: int, patience_s: float = PATIENCE_S) -> None:
    """Wait until somebody listens."""

    def is_open() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await until(is_open, f"port {port}", patience_s)
