"""Residency: which arms may answer a call, as a type that nothing else can make.

A plan, a fallback and a shadow copy are drawn from :class:`Allowed` alone. :func:`allow_arms` is
the only way to one, and all that can be done with one is to make it smaller or order it.
"""

from collections.abc import Iterable
from typing import Final, Never, final

from pilotage.core.regions import LOCAL, is_within
from pilotage.core.snapshot import AliasEntry, ArmEntry, TenantEntry


@final
class _Seal:
    """What only this module has."""


_SEAL: Final = _Seal()


@final
class Allowed(tuple[ArmEntry, ...]):
    """Arms that may answer a call, in an order; made by :func:`allow_arms` only."""

    __slots__ = ()

    def __new__(cls, arms: Iterable[ArmEntry], seal: _Seal) -> "Allowed":
        """Take arms that were checked; raise TypeError for anybody else's."""
        if seal is not _SEAL:
            raise TypeError("allow_arms says which arms are allowed")
        return super().__new__(cls, arms)

    def only(self, arm_ids: Iterable[str]) -> "Allowed":
        """Return those of these arms that are named, in the order of the names, each once."""
        known = {arm.id: arm for arm in self}
        return Allowed(
            [known[arm_id] for arm_id in dict.fromkeys(arm_ids) if arm_id in known], _SEAL
        )

    def __reduce__(self) -> Never:
        """Refuse to be pickled or copied: that would be another way to make one."""
        raise TypeError("allow_arms says which arms are allowed")


NOBODY: Final = Allowed((), _SEAL)


def allow_arms(alias: AliasEntry, tenant: TenantEntry) -> Allowed:
    """Return the arms of an alias that run where both the alias and the tenant allow it."""
    return Allowed(
        [
            arm
            for arm in alias.arms
            if is_within(locate(arm), alias.regions) and is_within(locate(arm), tenant.regions)
        ],
        _SEAL,
    )


def locate(arm: ArmEntry) -> str:
    """Return where an arm runs; "" is an upstream of which nobody said it."""
    return arm.location or ("" if arm.upstream_id else LOCAL)
