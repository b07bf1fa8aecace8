"""A gateway's limits alone, as a process: it spends from shared budgets until they are used up.

Each call goes through the real steps (record, admit, begin), the real spool and the real store.
What is truly spent goes to a file of its own, written before anything is settled: a kill -9 loses
nothing of it. ``python budget_worker.py FOLDER SLOT URL CALLS``.
"""

import asyncio
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

import uvloop

from gateway_harness import make_rates
from made_calls import PROJECT, make_alias, make_arm, make_call, make_view
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.snapshot import LimitEntry
from pilotage.core.usage import Usage
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.chain import build_chain
from pilotage.gateway.counters.limits import Limits
from pilotage.gateway.counters.open import open_store
from pilotage.gateway.recovery import recover_spool
from pilotage.gateway.snapshots import SnapshotView
from pilotage.gateway.steps.admit import LEAST_OUTPUT, Admit
from pilotage.gateway.steps.record import Begin, Record
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import CounterSettings
from pilotage.kit.spool import SpoolWriter, open_spool

USERS = 3
SHARES = (2, 1, 1)  # of the calls, by user
AT_ONCE = 12  # calls that one process makes at once
MOST_AT_ONCE = 40  # calls that all may run at once, by their limit
EVENT = struct.Struct("<cdBqq")  # kind, time, user, two amounts
BODY = '{"model":"chat","messages":[{"role":"user","content":"a"}],"max_tokens":%d}'
TOKEN = 1_000_000  # nano-USD
ALIAS = make_alias(make_arm(rates=make_rates("1000", "1000")), max_output_tokens=1000)
MEAN_TOKENS = 440  # of a call, about
GIVE_UP_AFTER = 40  # refusals in a row


def make_limits(calls: int) -> list[LimitEntry]:
    """Return budgets that about so many calls use up, those of the first user before the rest."""
    cap = calls * MEAN_TOKENS * TOKEN
    return [
        LimitEntry(id="all", project_id=PROJECT, measure="cost", amount=cap, per="total"),
        LimitEntry(
            id="user",
            project_id=PROJECT,
            measure="cost",
            amount=cap * 2 // 5,
            per="total",
            user="*",
        ),
        LimitEntry(id="once", project_id=PROJECT, measure="concurrency", amount=MOST_AT_ONCE),
    ]


class Worker:
    """One process of a slot."""

    def __init__(self, folder: Path, slot: str, url: str, calls: int) -> None:
        self.clock = SystemClock()
        self.view: SnapshotView = make_view(ALIAS, limits=make_limits(calls))
        self.spool_folder = folder / slot
        self.spool: SpoolWriter = open_spool(
            self.spool_folder, segment_bytes=64 << 20, reserve_bytes=1 << 16, sync="none"
        )
        recovered = recover_spool(self.spool, self.spool_folder, self.clock.now_us())
        store = open_store(CounterSettings(url=url), self.clock)
        self.limits = Limits(
            store, self.clock, self.spool_folder, recovered.counters, call_timeout_s=60.0
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.truth = os.open(folder / f"{slot}.{recovered.counters.life}.truth", flags, 0o600)
        self.open: set[Call] = set()
        self.refused = 0
        self.is_stopping = False
        self.chain = build_chain(
            [
                lambda follow: Record(follow, self.spool, self.clock),
                lambda follow: Admit(follow, self.limits, self.clock),
                lambda follow: Begin(follow, self.spool, self.clock, waits_for_disk=False),
            ],
            self.answer,
        )

    def note(self, kind: bytes, user: int, amount: int = 0, spent: int = 0) -> None:
        """Write an event of the truth."""
        os.write(self.truth, EVENT.pack(kind, time.monotonic(), user, amount, spent))

    async def answer(self, call: Call) -> Reply:
        """Be the model: spend at once, say so in the truth, answer a little later."""
        user = int(call.user)
        usage = Usage(
            input=random.randint(0, call.input_bound), output=random.randint(0, call.output_limit)
        )
        self.note(b"b", user, call.worst_nano, usage.total * TOKEN)
        call.at_end(lambda: self.note(b"e", user, call.worst_nano, bill_call(call).cost_nano))
        call.arm = ALIAS.entry.arms[0]
        call.note_sent()
        call.usage = usage  # what is spent is spent, whatever becomes of the call
        await asyncio.sleep(random.random() * 0.002)
        return Reply(body=b"{}")

    async def call_once(self) -> None:
        """Make one call, which now and then is left by its client."""
        user = str(random.choices(range(USERS), SHARES)[0])
        body = (BODY % random.randint(100, 999)).encode()
        call = make_call(
            ALIAS, view=self.view, body=body, call_id=self.clock.new_id("call"), user=user
        )
        if random.random() < 0.03:
            asyncio.get_running_loop().call_later(random.random() * 0.002, call.leave)
        began_s = time.monotonic()
        self.open.add(call)
        try:
            async with call:
                await self.chain(call)
        finally:
            self.open.discard(call)
            call.task = None  # whoever leaves now leaves nothing
        if isinstance(call.error, PilotageError) and call.outcome is Outcome.REFUSED:
            if call.error.code == "insufficient_quota":
                self.refused += 1
                least = ALIAS.worst_nano(call.input_bound, LEAST_OUTPUT)
                began_us = round(began_s * 1e6)
                self.note(b"r", int(user), least, began_us)
            else:
                self.note(b"u", int(user))
                await asyncio.sleep(0.005)
        elif call.outcome is Outcome.OK:
            self.refused = 0

    async def spend(self) -> None:
        """Call until the budgets are used up."""
        while not self.is_stopping and self.refused < GIVE_UP_AFTER:
            await self.call_once()
            if self.refused:
                await asyncio.sleep(random.random() * 0.01)

    async def keep_house(self) -> None:
        """Do what the gateway's watcher does."""
        while True:
            self.limits.save(self.spool)
            first = min((call.seq for call in self.open if call.seq), default=self.spool.seq + 1)
            self.spool.set_floor(first)
            await asyncio.sleep(0.2)

    async def run(self) -> None:
        """Spend, then hand back what is left, and go on answering to the store until stopped."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        async with asyncio.TaskGroup() as group:
            others = [
                group.create_task(self.limits.run()),
                group.create_task(self.keep_house()),
            ]
            async with asyncio.TaskGroup() as spenders:
                for _ in range(AT_ONCE):
                    spenders.create_task(self.spend())
            self.note(b"d", 0)
            print("done", flush=True)
            await stopped.wait()
            await self.limits.leave()
            for task in others:
                task.cancel()
        self.spool.close()


if __name__ == "__main__":
    where, slot, url, calls = sys.argv[1:]
    uvloop.run(Worker(Path(where), slot, url, int(calls)).run())
