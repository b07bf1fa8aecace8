"""Frames of a rollout counted batch by batch, as the store would keep what they come to."""

from collections.abc import Iterable

from pilotage.core.frames import Begun, Ended
from pilotage.core.gates.ranks import Ranks
from pilotage.rollouts.measuring.rules import Counting, make_ranks, measure, watch
from pilotage.rollouts.measuring.types import Answer, Standing, StepCount, UnitSeen
from pilotage.rollouts.types import Measured, Progress, Rollout, State


class Counted:
    """Counts batches; ``units`` and ``standing`` are what is known beside the counts."""

    def __init__(self, rollout: Rollout, standing: Standing | None = None) -> None:
        self.standing = standing or Standing()
        self.units: dict[str, UnitSeen] = {}
        self._watched = watch(rollout)
        self._steps: dict[int, StepCount] = {}
        self._ranks: dict[str, Ranks] = {}

    def add(self, frames: Iterable[Begun | Ended], scores: Iterable[Answer] = ()) -> list[Answer]:
        """Count a batch; return whose feedback counts."""
        counting = Counting(self._watched, self.standing, self.units)
        for frame in frames:
            if isinstance(frame, Begun):
                counting.begin(frame)
            else:
                counting.end(frame)
        for score in scores:
            counting.score(score)
        for step, count in counting.steps.items():
            self._steps.setdefault(step, StepCount()).merge(count)
        return counting.answers

    def measure(self, step: int = 0, now_us: int = 0) -> Measured:
        """Return what is known while a step runs."""
        progress = Progress(state=State.RUNNING, step=step)
        found = measure(self._watched, self._steps, self.standing, progress, now_us)
        self._ranks = make_ranks(self.standing, self._ranks)
        return Measured(measurement=found, ranks=self._ranks)
