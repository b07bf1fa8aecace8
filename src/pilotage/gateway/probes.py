"""Probes: records of bad calls that nobody made, to see whether bad calls are counted.

That a candidate had no bad call at all is good news only if one would have been noticed. So each
process writes, for each step of a rollout that it begins to serve, a failed call and a lost one of
each arm into its own spool, from where they go the way of all others. They are marked as probes,
and as copies, so that they are in nobody's numbers and cost nothing.

They show that what is in a record is counted. That it gets into the record is for each call to
show: one of which nobody knows why its answer ended counts neither as filtered nor as not.
"""

from collections.abc import Iterator

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Flag, Outcome, encode_frame
from pilotage.core.names import SHADOW_TENANT
from pilotage.core.snapshot import AliasEntry, ArmEntry
from pilotage.core.usage import Usage
from pilotage.gateway.snapshots import SnapshotView
from pilotage.kit.clock import Clock
from pilotage.kit.spool import SpoolWriter

_WORST_US = 86_400_000_000  # a day: slower than any limit allows
_FILTERED = "content_filter"


class Probes:
    """Writes the probes of one process."""

    def __init__(self, spool: SpoolWriter, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._sent: set[str] = set()

    def send(self, view: SnapshotView) -> None:
        """Write probes for the steps that a Snapshot is the first to have.

        A spool that is full takes none; they are written with the next Snapshot.
        """
        entries = [alias.entry for alias in view.aliases.values() if alias.entry.rollout]
        self._sent &= {entry.rollout for entry in entries}
        for entry in entries:
            if entry.rollout in self._sent:
                continue
            try:
                for probe in self._make(entry, view.n):
                    self._spool.append(encode_frame(probe))
            except PilotageError:
                return
            self._sent.add(entry.rollout)

    def _make(self, entry: AliasEntry, snapshot_n: int) -> Iterator[Ended]:
        for arm in entry.arms:
            for outcome in (Outcome.UPSTREAM_ERROR, Outcome.LOST) if arm.weight else ():
                yield self._end(entry, arm, outcome, snapshot_n)

    def _end(self, entry: AliasEntry, arm: ArmEntry, outcome: Outcome, snapshot_n: int) -> Ended:
        return Ended(
            call_id=self._clock.new_id("call"),
            at_us=self._clock.now_us(),
            project_id=entry.project_id,
            tenant_id=SHADOW_TENANT,
            key_id="",
            alias=entry.name,
            outcome=outcome,
            status=0,
            usage=Usage(),
            cost_nano=0,
            is_estimated=False,
            duration_us=_WORST_US,
            ttft_us=_WORST_US,
            chunks=0,
            attempts=0,
            arm=arm.id,
            version_id=arm.version_id,
            model=arm.model,
            code="probe",
            snapshot_n=snapshot_n,
            finish_reason=_FILTERED,
            flags=sorted((Flag.PROBE, Flag.SHADOW)),
            assigned=arm.id,
            rollout=entry.rollout,
        )
