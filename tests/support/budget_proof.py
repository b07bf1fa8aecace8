"""The proof that budgets cannot be overrun, as a program: ``python budget_proof.py OPERATIONS``.

Four processes spend from shared budgets in a real Valkey while they and the server are killed
(kill -9) and paused (SIGSTOP), and the server once comes back knowing nothing. What they truly
spent is added up from files of their own and compared with the caps; so is every refusal.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from budget_worker import EVENT, MOST_AT_ONCE, USERS, make_limits
from pilotage.core.frames import Begun, Ended, decode_frame
from pilotage.gateway.counters.valkey import PREFIX
from raw_spool import read_raw
from valkey_server import ValkeyServer, open_valkey_server

SLOTS = 4
LOOK_S = 0.02
LONGEST_S = 600.0
STALE_S = 0.5  # a refusal is false if for so long before it the budget could have paid
FORGET_FROM = 0.75  # of the budget: then the server forgets all, and the rest is spent in peace
AWAY_S = 2.0
AFTER_FAULT_S = 1.5  # what a fault holds back is not refused falsely until then


@dataclass
class Report:
    """What the truth says; amounts in nano-USD."""

    calls: int = 0
    operations: int = 0
    refusals: int = 0
    unavailable: int = 0
    kills: int = 0
    pauses: int = 0
    restarts: int = 0
    looks: int = 0
    violations: int = 0
    overshoot: int = 0
    held_at_rest: int = 0
    false_refusals: int = 0
    judged_refusals: int = 0
    most_at_once: int = 0
    wrong_frames: int = 0
    books_differ: int = 0
    used_share: float = 0.0
    seconds: float = 0.0


@dataclass
class Proof:
    """One run."""

    folder: Path
    server: ValkeyServer
    calls: int
    report: Report = field(default_factory=Report)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    faults: list[tuple[float, float]] = field(default_factory=list)
    used_share: float = 0.0

    def run(self) -> Report:
        """Spend everything under faults, then look at what is there."""
        began = time.monotonic()
        for number in range(SLOTS):
            self.start(f"gateway-{number}")
        due = began + 1.0
        while not self.is_done():
            if time.monotonic() > began + LONGEST_S:
                raise AssertionError(f"not done after {LONGEST_S:g} s: {self.report}")
            self.look()
            if time.monotonic() >= due:
                self.make_fault()
                due = time.monotonic() + random.uniform(0.15, 0.35)
            time.sleep(LOOK_S)
        self.stop()
        self.report.seconds = round(time.monotonic() - began, 1)
        self.judge()
        return self.report

    def start(self, slot: str) -> None:
        """Start the process of a slot."""
        program = [sys.executable, str(Path(__file__).with_name("budget_worker.py"))]
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        with (
            (self.folder / f"{slot}.out").open("ab") as out,
            (self.folder / f"{slot}.err").open("ab") as err,
        ):
            self.processes[slot] = subprocess.Popen(
                [*program, str(self.folder), slot, self.server.url, str(self.calls)],
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": path},
            )

    def is_done(self) -> bool:
        """Say whether every process has given up; one that died by itself is a failure."""
        for slot, process in self.processes.items():
            if process.poll() is not None:
                said = (self.folder / f"{slot}.err").read_text()[-2000:]
                raise AssertionError(f"{slot} ended by itself: {said}")
        return all(
            (self.folder / f"{slot}.out").read_bytes().endswith(b"done\n")
            for slot in self.processes
        )

    def make_fault(self) -> None:
        """Do one fault: many kinds at first, then the one loss of memory, then none."""
        began = time.monotonic()
        if self.used_share < FORGET_FROM:
            kinds = [self.kill_one, self.pause_one, self.kill_one, self.pause_server]
            kinds[(self.report.kills + self.report.pauses) % len(kinds)]()
        elif not self.report.restarts:
            self.empty_server()
        else:
            return
        self.faults.append((began, time.monotonic()))

    def kill_one(self) -> None:
        slot = random.choice(list(self.processes))
        self.processes[slot].kill()
        self.processes[slot].wait()
        (self.folder / f"{slot}.out").write_bytes(b"")
        time.sleep(random.choice([0.0, 0.0, 0.2]))
        self.start(slot)
        self.report.kills += 1

    def pause_one(self) -> None:
        process = random.choice(list(self.processes.values()))
        process.send_signal(signal.SIGSTOP)
        time.sleep(random.uniform(0.1, 0.5))
        process.send_signal(signal.SIGCONT)
        self.report.pauses += 1

    def pause_server(self) -> None:
        self.server.pause()
        time.sleep(random.uniform(0.1, 0.4))
        self.server.go_on()
        self.report.pauses += 1

    def empty_server(self) -> None:
        """Have the server forget everything while a process is away that had spent a lot.

        It comes back after the others could have spent all that its absence seems to leave.
        """
        slot = random.choice(list(self.processes))
        self.processes[slot].kill()
        self.processes[slot].wait()
        (self.folder / f"{slot}.out").write_bytes(b"")
        self.server.kill()
        self.server.start()
        away = time.monotonic() + AWAY_S
        while time.monotonic() < away:
            self.look()
            time.sleep(LOOK_S)
        self.start(slot)
        self.report.restarts += 1
        self.report.kills += 1

    def look(self) -> None:
        """Compare the store's own numbers with the caps."""
        with suppress(OSError):
            for key, cap in self.list_caps():
                used, held = self.read_sums(key)
                self.report.looks += 1
                self.report.violations += used + held > cap
                if key.startswith("all"):
                    self.used_share = max(self.used_share, used / cap)

    def list_caps(self) -> list[tuple[str, int]]:
        limits = make_limits(self.calls)
        users = [(f"user|cost|total|user={n}", limits[1].amount) for n in range(USERS)]
        return [("all|cost|total", limits[0].amount), *users]

    def read_sums(self, key: str) -> tuple[int, int]:
        used, held = (
            self.server.run("HGET", f"{PREFIX}c:{key}", name).split("\r\n")
            for name in ("_used", "_held")
        )
        return tuple(int(found[1]) if len(found) > 2 else 0 for found in (used, held))  # type: ignore[return-value]

    def stop(self) -> None:
        """Have every process hand back what it holds, and end."""
        for process in self.processes.values():
            process.terminate()
        for slot, process in self.processes.items():
            if process.wait(20) != 0:
                said = (self.folder / f"{slot}.err").read_text()[-2000:]
                raise AssertionError(f"{slot} failed: {said}")

    def judge(self) -> None:
        """Add up the truth."""
        report = self.report
        truth = Truth(self.folder)
        report.calls, report.refusals = truth.calls, len(truth.refusals)
        report.unavailable = truth.unavailable
        report.operations = truth.calls * 2 + report.refusals
        report.most_at_once = truth.find_most_at_once()
        booked = self.read_frames()
        payable: dict[str, int] = {}
        for key, cap in self.list_caps():
            used, held = self.read_sums(key)
            payable[key] = cap - (used - truth.find_level(key))
            spent = truth.spent[key]
            report.overshoot = max(report.overshoot, spent - cap, used - cap)
            report.held_at_rest += held
            report.books_differ += used != booked[key] or used < spent
            if key.startswith("all"):
                report.used_share = round(used / cap, 5)
        report.held_at_rest += self.read_sums("once|concurrency|now")[1]
        quiet = [when for when in truth.refusals if not self.is_faulty(when[0], when[1])]
        report.judged_refusals = len(quiet)
        report.false_refusals = sum(
            truth.could_pay(began, ended, user, least, payable)
            for began, ended, user, least in quiet
        )

    def is_faulty(self, began: float, ended: float) -> bool:
        return any(start <= ended and began <= end + AFTER_FAULT_S for start, end in self.faults)

    def read_frames(self) -> Counter[str]:
        """Add up what the spools say was charged; each call has one Begun and one Ended."""
        booked: Counter[str] = Counter()
        for slot in self.processes:
            counts: Counter[tuple[str, str]] = Counter()
            records, _ = read_raw(self.folder / slot)
            for _, payload in records:
                frame = decode_frame(payload)
                counts[type(frame).__name__, frame.call_id] += 1
                if isinstance(frame, Ended):
                    for key in frame.counters:
                        booked[key] += frame.cost_nano
            begun = {call for kind, call in counts if kind == Begun.__name__}
            ended = {call for kind, call in counts if kind == Ended.__name__}
            self.report.wrong_frames += len(begun ^ ended) + sum(
                count != 1 for count in counts.values()
            )
        return booked


class Truth:
    """What the processes wrote of what they did."""

    def __init__(self, folder: Path) -> None:
        self.calls = 0
        self.unavailable = 0
        self.spent: Counter[str] = Counter()
        self.refusals: list[tuple[float, float, int, int]] = []
        steps: list[tuple[float, int, int]] = []  # when, user, change of settled + reserved
        running: list[tuple[float, int]] = []
        for path in sorted(folder.glob("*.truth")):
            self._read(path, steps, running)
        self._running = sorted(running)
        self._levels: dict[str, tuple[list[float], list[int]]] = {}
        for key, users in [("all|cost|total", range(USERS))] + [
            (f"user|cost|total|user={n}", range(n, n + 1)) for n in range(USERS)
        ]:
            times, levels, level = [], [], 0
            for when, _, change in sorted(step for step in steps if step[1] in users):
                level += change
                times.append(when)
                levels.append(level)
            self._levels[key] = (times, levels)

    def could_pay(
        self, began: float, ended: float, user: int, least: int, caps: dict[str, int]
    ) -> bool:
        """Say whether all budgets had room for a call all the time until it was refused."""
        for key in ("all|cost|total", f"user|cost|total|user={user}"):
            times, levels = self._levels[key]
            first = max(bisect_left(times, began - STALE_S) - 1, 0)
            most = max(levels[first : bisect_right(times, ended + 0.05)], default=0)
            if most + least > caps[key]:
                return False
        return True

    def find_level(self, key: str) -> int:
        """Return what was settled in the end, calls of killed processes at their worst.

        A process killed within the microseconds between a Begun or a truth and the next leaves a
        call that its books charge at its worst and this does not.
        """
        levels = self._levels[key][1]
        return levels[-1] if levels else 0

    def find_most_at_once(self) -> int:
        """Return how many calls ran at once at most."""
        most = level = 0
        for _, change in self._running:
            level += change
            most = max(most, level)
        return most

    def _read(
        self, path: Path, steps: list[tuple[float, int, int]], running: list[tuple[float, int]]
    ) -> None:
        data = path.read_bytes()
        opened: list[tuple[int, int, int]] = []
        last = 0.0
        for kind, when, user, amount, spent in EVENT.iter_unpack(
            data[: len(data) // EVENT.size * EVENT.size]
        ):
            last = when
            if kind == b"b":
                self.calls += 1
                opened.append((user, amount, spent))
                steps.append((when, user, amount))
                running.append((when, 1))
                self._spend(user, spent)
            elif kind == b"e":
                opened.remove((user, amount, spent))
                steps.append((when, user, spent - amount))
                running.append((when, -1))
            elif kind == b"r":
                self.refusals.append((spent / 1e6, when, user, amount))
            elif kind == b"u":
                self.unavailable += 1
        running.extend((last, -1) for _ in opened)  # a killed process runs nothing any more

    def _spend(self, user: int, spent: int) -> None:
        self.spent["all|cost|total"] += spent
        self.spent[f"user|cost|total|user={user}"] += spent


def prove(operations: int) -> Report:
    """Run the proof with about so many reservations, settlements and refusals."""
    with (
        tempfile.TemporaryDirectory(prefix="pilotage-proof-") as folder,
        open_valkey_server() as server,
    ):
        proof = Proof(Path(folder), server, operations // 2)
        try:
            return proof.run()
        finally:
            for process in proof.processes.values():
                process.kill()
                process.wait()


def check(report: Report) -> None:
    """Fail, saying what was found, unless every claim held."""
    found = asdict(report)
    assert report.overshoot == 0, found
    assert report.violations == 0, found
    assert report.held_at_rest == 0, found
    assert report.false_refusals == 0, found
    assert report.books_differ == 0, found
    assert report.wrong_frames == 0, found
    assert report.used_share >= 0.99, found
    assert report.most_at_once <= MOST_AT_ONCE, found
    assert report.kills, found
    assert report.pauses, found


if __name__ == "__main__":
    outcome = prove(int(sys.argv[1]))
    print(json.dumps(asdict(outcome), indent=1))
    check(outcome)
