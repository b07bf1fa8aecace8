"""What the audit log costs: appending changes as JSON, a proof, and a check of the whole.

    python tests/bench/audit.py [--entries 1000000] [--folder FOLDER] [--json FILE]

Appends are durable: a group is on disk before the next begins. The check reads, parses and hashes
every entry in two processes, with the page cache warm.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotage.audit.entries import write_revision
from pilotage.audit.log import LogWriter
from pilotage.audit.notes import open_checkpoint
from pilotage.audit.open_log import prove_entries
from pilotage.audit.proofs import check_inclusion
from pilotage.audit.tree import hash_leaf
from pilotage.audit.verification import verify_files
from pilotage.kit.crypto import Signer
from pilotage.kit.outbox import Revision

NAME = "audit.example/bench"
SIGNER = Signer(Ed25519PrivateKey.generate())
GROUPS = (10, 100, 1_000)  # revisions in a group; the audit worker takes up to 1,000
IN_GROUPS = 50_000  # appended in groups of each size
PROOFS = 200


class Found(NamedTuple):
    """What a run found; rates are of durable appends, JSON included."""

    entry_bytes: int
    appended_per_s: dict[int, int]
    appended_per_core_s: dict[int, int]
    publish_ms: float
    proof_ms: float
    proof_core_ms: float
    verify_s: dict[int, float]


def main() -> None:
    """Measure, print, and write to a file if asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        found = measure(Path(folder), asked.entries)
    for name, value in found._asdict().items():
        print(f"{name:20} {value}")
    if asked.json:
        asked.json.write_text(json.dumps(found._asdict()))


def measure(folder: Path, entries: int) -> Found:
    """Measure on a disk."""
    rates = {size: append_in_groups(folder / f"by-{size}", size, IN_GROUPS) for size in GROUPS}
    whole = folder / "whole"
    append_in_groups(whole, 1_000, entries)
    with LogWriter(whole, NAME, SIGNER) as log:
        publish_ms = 1e3 * min(clock(log.publish) for _ in range(20))
        note = log.publish()
    root = open_checkpoint(note, NAME, SIGNER.public).root
    wall, core = time.perf_counter(), time.process_time()
    for number in range(PROOFS):
        prove(whole, note, root, number * entries // PROOFS)
    wall, core = time.perf_counter() - wall, time.process_time() - core
    return Found(
        entry_bytes=len(make_entry(123_456)),
        appended_per_s={size: round(IN_GROUPS / wall) for size, (wall, _) in rates.items()},
        appended_per_core_s={size: round(IN_GROUPS / core) for size, (_, core) in rates.items()},
        publish_ms=publish_ms,
        proof_ms=1e3 * wall / PROOFS,
        proof_core_ms=1e3 * core / PROOFS,
        verify_s={processes: clock(partial(verify, whole, processes)) for processes in (1, 2)},
    )


def append_in_groups(folder: Path, size: int, count: int) -> tuple[float, float]:
    """Return how long it took, and of that how long a core was busy."""
    with LogWriter(folder, NAME, SIGNER) as log:
        wall, core = time.perf_counter(), time.process_time()
        for first in range(0, count, size):
            log.append([make_entry(seq) for seq in range(first, min(first + size, count))])
        return time.perf_counter() - wall, time.process_time() - core


def make_entry(seq: int) -> bytes:
    """Return the entry of a usual change."""
    return write_revision(
        Revision(
            seq=seq,
            at_us=1_795_000_000_000_000 + seq,
            project_id="prj_0198f2c4k3m5",
            event="endpoints.deployment.weight_changed",
            object_id=f"dep_{seq % 40:020}",
            rev=seq,
            actor=f"prn_{seq % 5_000:020}",
            reason="step 2: the gate has passed",
            before='{"weight":100,"version":"support-bot@2.3.1"}',
            after='{"weight":250,"version":"support-bot@2.3.1"}',
        )
    ).entry


def prove(folder: Path, note: str, root: bytes, index: int) -> None:
    """Make one proof with nothing read before, and see that it holds."""
    [proof] = prove_entries(folder, NAME, SIGNER.public, note, [index])
    if not check_inclusion(hash_leaf(proof.entry), index, proof.size, proof.path, root):
        raise SystemExit("a proof does not hold")


def verify(folder: Path, processes: int) -> None:
    """Check the whole log."""
    verify_files(folder, NAME, SIGNER.public, processes=processes)


def clock(work: Callable[[], object]) -> float:
    """Return how many seconds some work takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
