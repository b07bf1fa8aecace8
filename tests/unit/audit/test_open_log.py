"""The open log: one at a time, whoever is cancelled."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotage.audit.log import LogWriter
from pilotage.audit.open_log import OpenLog
from pilotage.kit.crypto import Signer

NAME = "audit.example/open"
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


class SlowWriter(LogWriter):
    """A writer whose appends wait until they may begin."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, NAME, SIGNER)
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()

    def append(self, entries: Sequence[bytes]) -> int:
        self.has_begun.set()
        assert self.may_go_on.wait(10)
        return super().append(entries)


async def test_nobody_begins_beside_an_append_whose_caller_was_cancelled(tmp_path: Path) -> None:
    with SlowWriter(tmp_path) as writer:
        log = OpenLog(writer, SIGNER.public)
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(log.append([b"first"]))
            await asyncio.to_thread(writer.has_begun.wait, 10)
            first.cancel()
            counted = tasks.create_task(log.count())
            for _ in range(10):
                await asyncio.sleep(0)
            first.cancel()  # and again, while it waits for the thread
            was_counted = counted.done()
            writer.may_go_on.set()

        assert first.cancelled()
        assert not was_counted
        assert counted.result() == 1
        assert await log.append([b"second"]) == 1
        assert await log.read_from(0, 10) == [b"first", b"second"]
