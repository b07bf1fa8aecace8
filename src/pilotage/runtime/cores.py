"""Which cores replicas run on that may not use all of them: those that the fewest others use."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Cores:
    """The cores of this machine that this process may use."""

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        self._cores = sorted(os.sched_getaffinity(0) if cores is None else cores)
        self._users: Counter[int] = Counter()

    @contextmanager
    def take(self, count: int) -> Iterator[Sequence[int]]:
        """Give some cores to a replica while the block lasts; 0 gives none of its own: any.

        More than there are are all there are.
        """
        taken = sorted(self._cores, key=lambda core: (self._users[core], core))[:count]
        self._users.update(taken)
        try:
            yield taken
        finally:
            self._users.subtract(taken)
