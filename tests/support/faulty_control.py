"""A control process that dies in the middle of a line to its supervisor.

It does so once, when it is next told what to run, if the file :data:`CUT` lies in the data folder.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from pilotage.endpoints.backends import local
from pilotage.endpoints.groups import ReplicaGroup
from pilotage.server.process import main

MODULE = "faulty_control"
CUT = "cut-the-line"


class BreakingFleet(local.SupervisedFleet):
    """Writes half an order and is killed."""

    async def set_desired(self, groups: Sequence[ReplicaGroup]) -> None:
        """Send the whole desired state, or half of it."""
        order = Path(os.environ["PILOTAGE_DATA_DIR"]) / CUT
        if not order.exists():
            await super().set_desired(groups)
            return
        order.unlink()
        self._writer.write(b'{"type":"desired","groups":[{"deployment_id":"dep_')
        await self._writer.drain()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from pilotage.server import process

    process.SupervisedFleet = BreakingFleet  # type: ignore[attr-defined]
    main()
