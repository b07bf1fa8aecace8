"""How many calls may be asked again: a small share of an alias's calls, so that no storm begins."""

from dataclasses import dataclass

PRICE = 10.0  # calls that pay for one more attempt
EARNED_BY_SECOND = 20.0  # as if so many calls had come
MOST_SAVED = 100.0
MOST_ALIASES = 4096

AliasKey = tuple[str, str]


@dataclass(slots=True)
class _Account:
    saved: float
    filled_s: float


class RetryBudget:
    """One account for each alias (project and name), in this process."""

    def __init__(self) -> None:
        self._accounts: dict[AliasKey, _Account] = {}

    @property
    def is_used(self) -> bool:
        """Whether any alias ever asked again: nobody earns before."""
        return bool(self._accounts)

    def earn(self, alias: AliasKey) -> None:
        """Count a call of an alias."""
        account = self._accounts.get(alias)
        if account is not None:
            account.saved += 1.0

    def take(self, alias: AliasKey, now_s: float) -> bool:
        """Pay for one more attempt; False if there is nothing left to pay with.

        An alias begins with a full account, opened when it first needs one.
        """
        account = self._accounts.get(alias)
        if account is None:
            if len(self._accounts) >= MOST_ALIASES:
                oldest = min(self._accounts, key=lambda key: self._accounts[key].filled_s)
                del self._accounts[oldest]
            account = self._accounts[alias] = _Account(MOST_SAVED, now_s)
        earned = (now_s - account.filled_s) * EARNED_BY_SECOND
        account.saved = min(account.saved + earned, MOST_SAVED)
        account.filled_s = now_s
        if account.saved < PRICE:
            return False
        account.saved -= PRICE
        return True
