"""Programs of Debian's that tests run beside us."""

import asyncio
from asyncio.subprocess import DEVNULL, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def program(folder: Path, *arguments: str) -> AsyncIterator[None]:
    """Run a program in a folder for the length of a block; what it says is in a file there."""
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *arguments, cwd=folder, stdin=DEVNULL, stdout=log, stderr=STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()
