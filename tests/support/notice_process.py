"""A process that tells of alerts and delivers notices until it is killed.

``python notice_process.py DATABASE ALLOW LIMIT_S``: a SQLite file, the setting ``egress.allow``,
and how long an attempt may take; a claim holds twice as long.
"""

import asyncio
import sys
from pathlib import Path

from channel_files import make_sender
from pilotage.kit.clock import SystemClock
from pilotage.kit.db import open_sqlite
from pilotage.kit.resources import Background
from pilotage.kit.worker import Wakeup
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.worker import NoticeDelivery, NoticeTeller


async def main(path: Path, allow: str, limit_s: float) -> None:
    """Work until killed."""
    clock = SystemClock()
    db = open_sqlite(path, clock)
    service = NotifyService(clock)
    sender = make_sender(path.parent, clock, allow, limit_s)
    async with Background() as background:
        delivery = NoticeDelivery(db, service, sender, background)
        teller = NoticeTeller(db, service, clock)
        background.start(teller.make_worker(Wakeup()).run(), "teller")
        background.start(delivery.make_worker(Wakeup()).run(), "lanes")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
