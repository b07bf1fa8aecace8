"""The verbs of silences. Never commits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.monitoring.notify import store
from pilotage.monitoring.notify.spec_rules import check_match, check_span_of_silence
from pilotage.monitoring.notify.types import Silence


class Silences:
    """Times in which nobody is told of some alerts; each ends by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def create(
        self,
        tx: Tx,
        match: Mapping[str, str],
        *,
        starts_at_us: int | None,
        ends_at_us: int,
        reason: str,
    ) -> Silence:
        """Create a silence; raise ``invalid_request`` for what it cannot be."""
        check_match(match, "match")
        starts_us = tx.now_us if starts_at_us is None else starts_at_us
        check_span_of_silence(starts_us, ends_at_us, tx.now_us)
        if not reason.strip():
            raise PilotageError(
                "invalid_request",
                "reason: A silence has a reason.",
                hint="Say why nobody needs to be told.",
                param="reason",
            )
        silence = Silence(
            id=self._clock.new_id("sil"),
            rev=1,
            project_id=tx.project_id,
            match=dict(match),
            starts_at_us=starts_us,
            ends_at_us=ends_at_us,
            reason=reason,
            created_by=tx.actor.principal_id,
            created_at_us=tx.now_us,
        )
        await store.insert_silence(tx, silence)
        await append_revision(tx, "monitoring.silence.created", silence.id, 1, silence)
        return silence

    async def get(self, tx: Tx, silence_id: str) -> Silence:
        """Return a silence, over or not; raise ``not_found``."""
        found = await store.find_silence(tx, silence_id)
        if found is None:
            raise PilotageError(
                "not_found",
                f"There is no silence {silence_id!r}.",
                hint="List them: pilotage silences list",
                param="silence",
            )
        return found

    async def list(
        self, tx: Tx, after: str, limit: int, *, with_ended: bool = False
    ) -> Sequence[Silence]:
        """Return silences in the order in which they were made, those that are over if asked."""
        ending_us = 0 if with_ended else tx.now_us
        return await store.list_silences(tx, after, limit, ending_after_us=ending_us)

    async def end(self, tx: Tx, silence_id: str) -> Silence:
        """End a silence now; one that is over stays as it is."""
        silence = await self.get(tx, silence_id)
        if silence.ends_at_us <= tx.now_us:
            return silence
        ended = replace(silence, rev=silence.rev + 1, ends_at_us=tx.now_us)
        if not await store.end_silence(tx, silence, tx.now_us):
            raise PilotageError(
                "precondition_failed", "The silence has changed meanwhile.", hint="Try again."
            )
        await append_revision(tx, "monitoring.silence.ended", silence.id, ended.rev, ended, silence)
        return ended
