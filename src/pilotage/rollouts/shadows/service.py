"""The verbs of comparisons. Never commits: whoever opened the transaction does."""

from collections.abc import Mapping, Sequence

from pilotage.core.gates.pairs import Pairs, add_pairs
from pilotage.kit.db import Tx
from pilotage.rollouts.shadows import store
from pilotage.rollouts.shadows.rules import DAY_US, Place, merge, read
from pilotage.rollouts.shadows.types import Comparison, Held, PairKey

KEPT_US = 400 * DAY_US


class ShadowService:
    """What pairs of answers add up to."""

    async def record(self, tx: Tx, found: Mapping[Place, Held]) -> None:
        """Add counts."""
        await store.add(tx, found)

    async def read(
        self, tx: Tx, alias: str | None = None, rollout: str | None = None, since_us: int = 0
    ) -> Sequence[Comparison]:
        """Return what is known of pairs of arms, the days since a time together."""
        held: dict[PairKey, Held] = {}
        since_us = since_us // DAY_US * DAY_US
        for key, counts in await store.list_held(tx, alias, rollout, since_us):
            held[key] = merge(held.get(key, Held()), counts)
        return [read(key, counts) for key, counts in held.items()]

    async def read_marks(self, tx: Tx, alias: str, rollout_id: str, baseline_id: str) -> Pairs:
        """Return how many pairs of a rollout there are of each difference of marks.

        Calls that a fallback answered instead of the baseline are none.
        """
        held = await store.list_held(tx, alias, rollout_id, 0)
        return add_pairs([one.marks for key, one in held if key.baseline == baseline_id])

    async def drop_old(self, tx: Tx) -> int:
        """Drop counts after 400 days; return how many."""
        return await store.drop_before(tx, tx.now_us - KEPT_US)
