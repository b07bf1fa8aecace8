"""Every call in the log: the ends of calls, sealed in blocks of one spool each.

A block is a file of lines, one for each ended call, and one entry of the log with the Merkle root
over the lines: a call is proved by its path in the block and the block's path in the log. The entry
says which records of which spool the block is made of, so the log itself is the cursor: a process
that is killed at any point seals the same records again or none of them.
"""

import asyncio
import hashlib
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pilotage.audit import store
from pilotage.audit.entries import write_calls
from pilotage.audit.service import AuditService
from pilotage.audit.tree import fold, hash_leaf, prove_inclusion
from pilotage.audit.types import Block, CallProof
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, decode_frame
from pilotage.core.ids import decode_uuid
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.files import write_private
from pilotage.kit.spool_reader import SpoolDamage, SpoolReader, list_spools, read_epoch
from pilotage.kit.worker import Wakeup, Worker

BATCH = 2_000
MOST_CALLS = 10_000  # in a block
LONGEST_OPEN_S = 60.0  # that calls wait for their block to be sealed
CALLS = "calls"
_LOG = logging.getLogger("pilotage.audit")
LabelUser = Callable[[str, str], str]
"""Return what stands for a tenant's end user in the log: never the name itself."""


def leave_out(_: str, __: str) -> str:
    """Say nothing of end users."""
    return ""


class CallLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the log says of a call: who paid, who answered, what it came to; never what was said."""

    call: str
    at_us: int
    project: str
    tenant: str
    key: str
    alias: str
    outcome: str
    status: int
    cost_nano: int
    duration_us: int
    tokens: dict[str, int] = {}
    user: str = ""
    arm: str = ""
    version: str = ""
    model: str = ""
    code: str = ""
    prompt: str = ""
    trace: str = ""
    shadow_of: str = ""
    flags: list[str] = []
    is_estimated: bool = False


@dataclass(slots=True)
class _Open:
    """A spool being followed, and the lines that are in no sealed block yet."""

    folder: Path
    epoch: str
    reader: SpoolReader
    sealed_seq: int
    read_seq: int
    since_s: float = 0.0
    lines: list[bytes] = field(default_factory=list)
    first_us: int = 0
    last_us: int = 0


class CallSealer:
    """Follows every spool below a folder and seals what ends there."""

    def __init__(
        self,
        service: AuditService,
        spool_root: Path,
        clock: Clock,
        label_user: LabelUser = leave_out,
    ) -> None:
        self._service = service
        self._root = spool_root
        self._clock = clock
        self._label_user = label_user
        self._open: dict[Path, _Open] = {}
        self.unreadable = 0

    async def step(self) -> bool:
        """Read a batch of each spool, seal what is due; return whether one has more."""
        has_more = False
        for folder in list_spools(self._root):
            try:
                has_more |= await self._read_on(folder, is_last=False)
            except BaseException:
                self._forget(folder)  # the reader may be ahead of the log: begin from there again
                raise
        return has_more

    async def seal_all(self) -> None:
        """Seal everything that has ended, for the end of a process."""
        for folder in list_spools(self._root):
            while await self._read_on(folder, is_last=True):
                pass

    def close(self) -> None:
        """Close every file."""
        for folder in list(self._open):
            self._forget(folder)

    def sealed_until(self, folder: Path) -> int:
        """Return the last record of a spool that the log needs no more; 0 if it needs all."""
        found = self._open.get(folder)
        if found is None:
            return 0
        return found.sealed_seq if found.lines else found.read_seq

    async def _read_on(self, folder: Path, *, is_last: bool) -> bool:
        spool = await self._follow(folder)
        try:
            records = await asyncio.to_thread(spool.reader.read, BATCH)
        except SpoolDamage as damage:
            await self._step_over(spool, damage)
            return True
        for seq, payload in records:
            self._take(spool, payload)
            spool.read_seq = seq
        if self._is_due(spool, is_last=is_last):
            await self._seal(spool)
        return spool.reader.was_cut

    async def _follow(self, folder: Path) -> _Open:
        epoch = read_epoch(folder)
        found = self._open.get(folder)
        if found is not None and found.epoch == epoch:
            return found
        self._forget(folder)
        place = await self._service.find_sealed_place(folder.name, epoch)
        found = _Open(folder, epoch, SpoolReader(folder, place), place, place)
        self._open[folder] = found
        return found

    def _take(self, spool: _Open, payload: bytes) -> None:
        try:
            frame = decode_frame(payload)
        except ValueError as wrong:
            self.unreadable += 1
            if self.unreadable == 1:
                _LOG.error("a record of %s is in no block: %s", spool.folder.name, wrong)
            return
        if not isinstance(frame, Ended):
            return
        if not spool.lines:
            spool.since_s, spool.first_us = self._clock.monotonic_s(), frame.at_us
        spool.first_us = min(spool.first_us, frame.at_us)
        spool.last_us = max(spool.last_us, frame.at_us)
        label = self._label_user(frame.tenant_id, frame.user) if frame.user else ""
        spool.lines.append(write_line(frame, label))

    def _is_due(self, spool: _Open, *, is_last: bool) -> bool:
        if not spool.lines:
            return False
        is_old = self._clock.monotonic_s() - spool.since_s >= LONGEST_OPEN_S
        return is_last or is_old or len(spool.lines) >= MOST_CALLS

    async def _seal(self, spool: _Open) -> None:
        """Write the file, and then the entry that makes it count."""
        content = zlib.compress(b"\n".join(spool.lines) + b"\n")
        block = Block(
            position=self._service.log.size,
            gateway=spool.folder.name,
            epoch=spool.epoch,
            first_seq=spool.sealed_seq + 1,
            last_seq=spool.read_seq,
            calls=len(spool.lines),
            first_us=spool.first_us,
            last_us=spool.last_us,
            root=fold([hash_leaf(line) for line in spool.lines]).hex(),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        path = place_block(self._service.log.folder, block)
        await asyncio.to_thread(write_private, path, content)
        await self._service.append_entry(write_calls(self._clock.now_us(), block))
        spool.sealed_seq = spool.read_seq
        spool.lines = []

    async def _step_over(self, spool: _Open, damage: SpoolDamage) -> None:
        """Go on behind missing records; those before them are sealed by themselves."""
        _LOG.error("the audit log goes on behind missing records: %s", damage)
        if spool.lines:
            await self._seal(spool)
        spool.reader.close()
        spool.reader = SpoolReader(spool.folder, damage.next_seq - 1)
        spool.sealed_seq = spool.read_seq = damage.next_seq - 1

    def _forget(self, folder: Path) -> None:
        found = self._open.pop(folder, None)
        if found is not None:
            found.reader.close()


def write_line(frame: Ended, user: str) -> bytes:
    """Return what the log says of an ended call."""
    used = msgspec.structs.asdict(frame.usage).items()
    return msgspec.json.encode(
        CallLine(
            call=frame.call_id,
            at_us=frame.at_us,
            project=frame.project_id,
            tenant=frame.tenant_id,
            key=frame.key_id,
            alias=frame.alias,
            outcome=frame.outcome,
            status=frame.status,
            cost_nano=frame.cost_nano,
            duration_us=frame.duration_us,
            tokens={name: count for name, count in used if isinstance(count, int) and count},
            user=user,
            arm=frame.arm,
            version=frame.version_id,
            model=frame.model,
            code=frame.code,
            prompt=frame.prompt,
            trace=frame.trace_id,
            shadow_of=frame.shadow_of,
            flags=frame.flags,
            is_estimated=frame.is_estimated,
        )
    )


def place_block(folder: Path, block: Block) -> Path:
    """Return where a block's file is, below the log."""
    return folder / CALLS / block.gateway / block.epoch / f"{block.first_seq:020d}.z"


def read_lines(folder: Path, block: Block) -> list[bytes]:
    """Return the lines of a block; raise ``audit_broken`` if the file is not what the log says."""
    try:
        content = place_block(folder, block).read_bytes()
    except FileNotFoundError:
        raise _broken(block, "is not there") from None
    if hashlib.sha256(content).hexdigest() != block.sha256:
        raise _broken(block, "is not the one that was sealed")
    lines = zlib.decompress(content).split(b"\n")[:-1]
    if len(lines) != block.calls or fold([hash_leaf(line) for line in lines]).hex() != block.root:
        raise _broken(block, "does not hold the calls that were sealed")
    return lines


def _broken(block: Block, why: str) -> PilotageError:
    return PilotageError(
        "audit_broken",
        f"The file of the calls in entry {block.position} of the audit log {why}.",
        hint="Check the whole log: pilotage audit verify",
    )


class CallProofs:
    """Finds the sealed call and proves it."""

    def __init__(self, service: AuditService) -> None:
        self._service = service

    async def prove(self, tx: Tx, call_id: str) -> CallProof:
        """Return the proof that a call is in the log; raise ``not_found`` if it is in no block."""
        begun_us = _read_begun(call_id)
        wanted = b'{"call":"%b",' % call_id.encode()
        after = -1
        while blocks := await store.list_blocks(tx, begun_us, after):
            for block in blocks:
                lines = await asyncio.to_thread(read_lines, self._service.log.folder, block)
                for index, line in enumerate(lines):
                    if line.startswith(wanted):
                        return await self._prove(block, index, lines)
            after = blocks[-1].position
        raise PilotageError(
            "not_found",
            f"Call {call_id} is in no sealed block.",
            hint="A call that has ended is sealed within a minute; its block may be pruned.",
        )

    async def _prove(self, block: Block, index: int, lines: Sequence[bytes]) -> CallProof:
        return CallProof(
            line=lines[index],
            index=index,
            calls=block.calls,
            path=prove_inclusion(index, len(lines), _reader(lines)),
            block=await self._service.prove(block.position),
        )


def _read_begun(call_id: str) -> int:
    """Return when an id was made, in microseconds UTC; ids hold it in milliseconds."""
    try:
        return (decode_uuid(call_id) >> 80) * 1000
    except ValueError:
        raise PilotageError(
            "invalid_request", f"{call_id[:80]!r} is no call's id.", param="call_id"
        ) from None


def _reader(lines: Sequence[bytes]) -> Callable[[int, int], bytes]:
    hashes = [hash_leaf(line) for line in lines]
    return lambda bits, index: fold(hashes[index << bits : (index + 1) << bits])


def make_call_sealer_worker(sealer: CallSealer, interval_s: float = 1.0) -> Worker:
    """Make the worker; it looks at the spools every ``interval_s``."""
    return Worker("call sealer", sealer.step, Wakeup(), interval_s)
