"""What bounds shadow copies: how many of an alias run at once, and what they cost in a UTC day.

Each gateway process has places of its own. What copies cost is counted as limits are, so that it
holds over restarts, and over all gateway processes that share their counters. Nothing is charged to
a tenant.
"""

from pilotage.core.snapshot import AliasEntry, LimitEntry, Shadow

AliasKey = tuple[str, str]


class ShadowBounds:
    """The places of each alias (project and name); every copy takes one and gives it back.

    ``running`` has those that are taken, ``counts`` says how many copies began, and how many were
    dropped for which reason.
    """

    def __init__(self) -> None:
        self.counts = {"begun": 0, "busy": 0, "budget": 0, "not_allowed": 0, "closed": 0}
        self.running: dict[AliasKey, int] = {}

    def enter(self, alias: AliasKey, most: int) -> bool:
        """Take a place; False (and counted) if there is none left."""
        running = self.running.get(alias, 0)
        if running >= most:
            self.counts["busy"] += 1
            return False
        self.running[alias] = running + 1
        return True

    def leave(self, alias: AliasKey) -> None:
        """Give a place back."""
        running = self.running.pop(alias) - 1
        if running:
            self.running[alias] = running


def make_budget(entry: AliasEntry, rule: Shadow) -> LimitEntry:
    """Return what copies of an alias's calls may cost together on a UTC day, as a limit."""
    return LimitEntry(
        id=f"shadow:{entry.project_id}:{entry.name}",
        project_id=entry.project_id,
        measure="cost",
        amount=rule.daily_nano,
        per="day",
        alias=entry.name,
    )
