"""What bounds shadow copies: how many of an alias run at once, and what they cost in a UTC day.

Each gateway process counts for itself and from nothing when it starts, so N processes may spend N
times the bound, and a restarted one once more. Nothing is charged to a tenant.
"""

from dataclasses import dataclass

from pilotage.core.snapshot import Shadow

DAY_US = 86_400_000_000

AliasKey = tuple[str, str]


@dataclass(slots=True)
class _Account:
    day: int
    running: int = 0
    taken_nano: int = 0  # spent or reserved on that day


class ShadowBounds:
    """One account for each alias (project and name); every copy begins and ends once.

    ``counts`` says how many copies began, and how many were dropped for which reason.
    """

    def __init__(self) -> None:
        self.counts = {"begun": 0, "busy": 0, "budget": 0, "not_allowed": 0, "closed": 0}
        self._accounts: dict[AliasKey, _Account] = {}

    def begin(self, alias: AliasKey, bounds: Shadow, worst_nano: int, day: int) -> bool:
        """Reserve a copy's place and worst case; False (and counted) if there is none left."""
        account = self._accounts.get(alias)
        if account is None or account.day != day:
            account = self._turn(alias, account, day)
        if account.running >= bounds.concurrency:
            self.counts["busy"] += 1
            return False
        if account.taken_nano + worst_nano > bounds.daily_nano:
            self.counts["budget"] += 1
            return False
        account.running += 1
        account.taken_nano += worst_nano
        self.counts["begun"] += 1
        return True

    def end(self, alias: AliasKey, worst_nano: int, cost_nano: int, day: int) -> None:
        """Free the place, and settle what was reserved on that day."""
        account = self._accounts[alias]
        account.running -= 1
        if account.day == day:
            account.taken_nano += cost_nano - worst_nano

    def _turn(self, alias: AliasKey, account: _Account | None, day: int) -> _Account:
        """Begin a day, and forget aliases that have no copies any more."""
        idle = [key for key, each in self._accounts.items() if each.day != day and not each.running]
        for key in idle:
            del self._accounts[key]
        fresh = _Account(day, running=account.running if account else 0)
        self._accounts[alias] = fresh
        return fresh
