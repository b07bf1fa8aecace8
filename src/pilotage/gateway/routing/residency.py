"""Residency and data classes: which arms may answer a call, as a type nothing else can make.

A plan, a fallback and a shadow copy are drawn from :class:`Allowed` alone. :func:`allow_arms` is
the only way to one, and all that can be done with one is to make it smaller or order it.
"""

from collections.abc import Iterable
from typing import Final, Never, final

from pilotage.core.data_classes import INTERNAL, may_answer, may_copy
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
    """Return the arms of an alias that may have a tenant's calls.

    They run where both the alias and the tenant allow it, and are accepted for its class of data.
    """
    return Allowed(
        [
            arm
            for arm in alias.arms
            if may_answer(tenant.data_class, find_accepted(arm))
            and is_within(locate(arm), alias.regions)
            and is_within(locate(arm), tenant.regions)
        ],
        _SEAL,
    )


def allow_copies(allowed: Allowed, tenant: TenantEntry) -> Allowed:
    """Return those of some allowed arms that copies of a tenant's calls may go to."""
    return Allowed(
        [arm for arm in allowed if may_copy(tenant.data_class, find_accepted(arm))], _SEAL
    )


def find_accepted(arm: ArmEntry) -> str:
    """Return what class of data an arm is accepted for; "" is an own engine, which takes all.

    An upstream of which an older Snapshot does not say it is accepted for internal data.
    """
    return (arm.accepts or INTERNAL) if arm.upstream_id else ""


def locate(arm: ArmEntry) -> str:
    """Return where an arm runs; "" is an upstream of which nobody said it."""
    return arm.location or ("" if arm.upstream_id else LOCAL)
