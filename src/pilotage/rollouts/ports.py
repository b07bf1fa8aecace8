"""What rollouts need: somebody who counts their units, and who knows what was before."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pilotage.core.gates.pairs import Pairs
from pilotage.endpoints.types import Deployment
from pilotage.kit.db import Tx
from pilotage.rollouts.types import Known, Measured, Rollout


class Measuring(Protocol):
    """Counts the units of rollouts by gate, step, weight and arm."""

    async def begin(self, tx: Tx, rollout: Rollout, known: Known) -> None:
        """Count from now on what carries the steps of this rollout."""
        ...

    async def read(self, tx: Tx, rollout: Rollout, now_us: int) -> Measured:
        """Return what was counted so far.

        There is a tally for every gate of the plan, for the whole rollout and for the step that
        runs; before the first step and behind the last one those of the step are empty.
        """
        ...

    async def end(self, tx: Tx, rollout: Rollout) -> None:
        """Count no more; counts stay."""
        ...

    async def forget(self, tx: Tx, rollout: Rollout) -> bool:
        """Drop some of what single units did, after the end; say if there is more."""
        ...


class Copies(Protocol):
    """Knows how the answers to calls compare with those to their copies."""

    async def read_marks(self, tx: Tx, alias: str, rollout_id: str, baseline_id: str) -> Pairs:
        """Return the differences of marks of the copies that a rollout has made so far."""
        ...


class Past(Protocol):
    """Knows the calls of the days before, what they cost, and what others will cost."""

    async def has_price(self, tx: Tx, deployment: Deployment, provider: str) -> bool:
        """Say whether calls of a deployment have a price; ``provider`` is its upstream's, or ""."""
        ...

    async def find_known(self, tx: Tx, endpoint: str, arm: str) -> Known:
        """Return what is known of the calls that a deployment of an endpoint has answered.

        It takes long the first time; asked again within a minute it is what it was.
        """
        ...

    async def find_cost(self, tx: Tx, rollout: Rollout) -> int:
        """Return what the candidate has cost since the day of the start, in nano-USD."""
        ...


class Gateways(Protocol):
    """Knows the gateways that run apart."""

    def list_outdated(self) -> Sequence[str]:
        """Return those that would end to serve if a rollout began: they cannot read its steps."""
        ...


class Sources(NamedTuple):
    """Everything that rollouts know of calls, and of who answers them, from."""

    measuring: Measuring
    copies: Copies
    past: Past
    gateways: Gateways
