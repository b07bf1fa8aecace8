"""The stub upstream of the benches: a C program, so that it costs next to nothing."""

import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway_harness import until

SOURCE = Path(__file__).with_name("stub.c")


@asynccontextmanager
async def run_stub(folder: Path, port: int) -> AsyncIterator[None]:
    """Compile and run the stub upstream on core 0."""
    program = folder / "stub"
    subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCE)], check=True)
    stub = subprocess.Popen(["taskset", "-c", "0", str(program), str(port), "100", "10000"])
    try:
        await wait_port(port)
        yield
    finally:
        stub.kill()
        stub.wait()


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def wait_port(port: int) -> None:
    """Wait until somebody listens."""

    def is_open() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await until(is_open, f"port {port}")
