"""The desk that takes feedback on calls and puts it into the spool, after the calls' own frames.

A comment may hold anything, so it is dropped unless its tenant keeps them, and then it is sealed
before it goes anywhere: a gateway can seal comments and cannot open them. Whether the call was one
of the tenant's is found out where the calls are known, by whoever reads the spool.
"""

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Feedback, encode_frame
from pilotage.core.snapshot import TenantEntry
from pilotage.gateway.wire.feedback import decode_feedback, encode_feedback
from pilotage.kit.clock import Clock
from pilotage.kit.sealing import post
from pilotage.kit.spool import SpoolWriter

PER_SECOND = 100  # of one tenant, in one gateway process; feedback is free, and takes room
LETTER_BYTES = 256  # of a comment that is kept take as much room as one more without a comment


class FeedbackDesk:
    """Takes feedback, so much of each tenant a second."""

    def __init__(self, spool: SpoolWriter, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._second = 0
        self._taken: dict[str, int] = {}

    async def take(self, tenant: TenantEntry, key_id: str, body: bytes) -> bytes:
        """Record what a body says and return the reply's.

        Raises what reading it does, ``rate_limit_exceeded``, or ``spool_full``.
        """
        said = decode_feedback(body)
        kept = said.comment.encode() if said.comment and tenant.letterbox else b""
        self._admit(tenant.id, 1 + len(kept) // LETTER_BYTES)
        feedback_id = self._clock.new_id("fbk")
        comment = kept and post(tenant.letterbox, tenant.id, feedback_id, kept)
        feedback = Feedback(
            call_id=said.call_id,
            at_us=self._clock.now_us(),
            feedback_id=feedback_id,
            project_id=tenant.project_id,
            tenant_id=tenant.id,
            key_id=key_id,
            score=said.score,
            label=said.label,
            comment=comment,
        )
        seq = self._spool.append(encode_frame(feedback))
        await self._spool.synced(seq)
        return encode_feedback(feedback_id, said, is_kept=bool(comment))

    def _admit(self, tenant_id: str, room: int) -> None:
        """Let so much in as would be without comments; raise ``rate_limit_exceeded`` beyond."""
        second = int(self._clock.monotonic_s())
        if second != self._second:
            self._second = second
            self._taken.clear()
        taken = self._taken.get(tenant_id, 0) + room
        if taken > PER_SECOND:
            raise PilotageError(
                "rate_limit_exceeded",
                f"A gateway takes feedback {PER_SECOND} times a second of each tenant, "
                "and less often with long comments.",
                retry_after_s=1.0,
            )
        self._taken[tenant_id] = taken
